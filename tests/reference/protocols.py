"""Protocols written from their definitions: which tokens are scored behind which context, and each loss by itself.

A list of windows, each a list of (scored token, context); a context is (first token that is seen, BOS in front or not).
Every loss comes from a forward of its own, in float64, over nothing but the context of its token. Slow and obvious.
A definition is two functions in DEFINITIONS: the windows of a document, and whether one of their tokens is scored.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch


class Target(NamedTuple):
    """A scored token and what the model sees before it: [BOS,] tokens first .. token - 1."""

    token: int
    first: int
    bos: bool


class Setting(NamedTuple):
    """A document's length, the window's, the BOS policy, the stride and the scored tokens where a protocol asks."""

    length: int
    ctx: int
    bos: str
    stride: int
    last: int | None

    @property
    def first(self) -> int:
        """Tokens of text in the first window: a BOS takes a place of the ctx."""
        return self.ctx - (self.bos != "none")

    @property
    def later(self) -> int:
        """Tokens of text in every other window."""
        return self.ctx - (self.bos == "every_window")


class Place(NamedTuple):
    """A token that a window sees: the window's first token and its end, and all tokens scored before."""

    token: int
    begin: int
    end: int
    has_bos: bool
    done: set[int]


def _sliding(s: Setting) -> list[tuple[int, int]]:
    """Every window but the first ends one stride behind the one before it."""
    ends = [s.first]
    while ends[-1] < s.length:
        ends.append(ends[-1] + s.stride)
    return [(0, s.first), *((e - s.later, min(e, s.length)) for e in ends[1:])]


def _side_by_side(s: Setting) -> list[tuple[int, int]]:
    ends = [s.first]
    while ends[-1] < s.length:
        ends.append(ends[-1] + s.later)
    return [(b, min(e, s.length)) for b, e in zip([0, *ends], ends, strict=False)]


def _full(s: Setting) -> list[tuple[int, int]]:
    """Windows every stride tokens, as far as they are full."""
    windows, begin = [], 0
    while begin + (s.later if windows else s.first) <= s.length:
        windows.append((begin, begin + (s.later if windows else s.first)))
        begin += s.stride
    return windows


def _chunks(s: Setting) -> list[tuple[int, int]]:
    """Chunks of ctx tokens whose first one a BOS replaces."""
    chunks = [(n * s.ctx, n * s.ctx + s.ctx) for n in range(s.length // s.ctx)]
    return [(b + (s.bos == "every_window" or (s.bos == "first_window" and b == 0)), e) for b, e in chunks]


def _everywhere(s: Setting, at: Place) -> bool:
    return True


Windows = Callable[[Setting], list[tuple[int, int]]]  # (first token, end) of every window
Scored = Callable[[Setting, Place], bool]
DEFINITIONS: dict[str, tuple[Windows, Scored]] = {
    "sliding": (_sliding, lambda s, at: at.token not in at.done),
    "single_pass": (lambda s: [(0, s.first)], _everywhere),
    "disjoint": (_side_by_side, _everywhere),
    "last": (_full, lambda s, at: at.token >= at.end - (s.last or s.stride)),
    "second_half": (_chunks, lambda s, at: at.token - (at.begin - at.has_bos) > s.ctx // 2),
    "fixed_targets": (
        lambda s: [(s.length - s.first, s.length)],
        lambda s, at: s.last is not None and at.token >= s.length - s.last,
    ),
    "overlapping_full": (_full, _everywhere),
}


def targets(name: str, length: int, ctx: int, *, bos: str, stride: int, last: int | None) -> list[list[Target]]:
    """Scored tokens of each window of a document of `length` tokens; `last` tokens count where the protocol asks."""
    setting = Setting(length, ctx, bos, stride, last)
    spans, scored = DEFINITIONS[name]
    windows: list[list[Target]] = []
    for number, (begin, end) in enumerate(spans(setting)):
        has_bos = bos == "every_window" or (bos == "first_window" and number == 0)
        done = {t.token for w in windows for t in w}
        preceded = range(begin if has_bos else begin + 1, end)
        places = [Place(token, begin, end, has_bos, done) for token in preceded]
        windows.append([Target(at.token, begin, has_bos) for at in places if scored(setting, at)])
    return [w for w in windows if w]


class Losses:
    """Loss of a token behind its context, one forward a token; contexts of one length go through together."""

    def __init__(self, model: Any, ids: list[int], bos_token_id: int | None) -> None:
        self.model, self.ids, self.bos = model, ids, bos_token_id  # a float64 model
        self.known: dict[Target, float] = {}

    @torch.no_grad()
    def of(self, wanted: list[Target]) -> list[float]:
        by_length = defaultdict(list)
        for target in set(wanted) - set(self.known):
            by_length[target.token - target.first + target.bos].append(target)
        for group in by_length.values():
            rows = [[self.bos] * t.bos + self.ids[t.first : t.token] for t in group]
            logits = self.model(torch.tensor(rows), use_cache=False).logits[:, -1]
            assert logits.dtype == torch.float64
            for target, row in zip(group, logits.numpy(), strict=True):
                log_sum = row.max() + np.log(np.exp(row - row.max()).sum())
                self.known[target] = float(log_sum - row[self.ids[target.token]])
        return [self.known[target] for target in wanted]


def perplexities(documents: list[list[list[float]]]) -> dict[str, float]:
    """Every aggregate of losses[document][window][token]."""
    tokens = [x for document in documents for window in document for x in window]
    windows = [math.fsum(w) / len(w) for document in documents for w in document]
    means = [math.fsum(x for w in d for x in w) / sum(len(w) for w in d) for d in documents]
    return {
        "token": math.exp(math.fsum(tokens) / len(tokens)),
        "window": math.exp(math.fsum(windows) / len(windows)),
        "document": math.exp(math.fsum(means) / len(means)),
        "mean_of_perplexities": math.fsum(math.exp(m) for m in means) / len(means),
    }
