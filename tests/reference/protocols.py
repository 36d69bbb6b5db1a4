"""Protocols written from their definitions: which tokens are scored behind which context, and each loss by itself.

What a model reads is a stream: the text, behind a BOS where the policy is first_window. A definition cuts the stream
into windows, each what the model sees in a pass and which of these it scores; token n of the text is the number n.
Every loss comes from a forward of its own, in float64, over nothing but the context of its token. Slow and obvious.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

BOS = -1  # in a stream, where it stands


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
    def stream(self) -> list[int]:
        """What is read from the beginning to the end where no window has a BOS of its own."""
        return [BOS] * (self.bos == "first_window") + list(range(self.length))

    def window(self, begin: int, size: int | None = None) -> list[int]:
        """Up to ctx tokens; where every window has its BOS, that is one of them."""
        size = self.ctx if size is None else size
        if self.bos == "every_window":
            return [BOS, *self.stream[begin : begin + size - 1]]
        return self.stream[begin : begin + size]

    @property
    def new(self) -> int:
        """Tokens of the stream in a window of ctx tokens."""
        return self.ctx - (self.bos == "every_window")


Seen = list[int]  # tokens of a window, BOS among them
Scored = list[int]  # the tokens of it that count
Definition = Callable[[Setting], list[tuple[Seen, Scored]]]


def _sliding(s: Setting) -> list[tuple[Seen, Scored]]:
    """The recipe in the documentation of transformers: what ends later than everything before is new."""
    windows, reached = [], 0
    for begin in range(0, len(s.stream), s.stride):
        end = min(begin + s.new, len(s.stream))
        windows.append((s.window(begin), s.stream[reached:end]))
        reached = end
        if end == len(s.stream):
            break
    return windows


def _single_pass(s: Setting) -> list[tuple[Seen, Scored]]:
    return [(s.window(0), s.window(0))]


def _disjoint(s: Setting) -> list[tuple[Seen, Scored]]:
    return [(s.window(begin), s.window(begin)) for begin in range(0, len(s.stream), s.new)]


def _full(s: Setting) -> list[Seen]:
    """Windows every stride tokens of the stream, as far as they are full."""
    windows = [s.window(begin) for begin in range(0, len(s.stream), s.stride)]
    return [w for w in windows if len(w) == s.ctx]


def _second_half(s: Setting) -> list[tuple[Seen, Scored]]:
    """llama.cpp: the text is tokenized behind a BOS, cut into chunks, and each chunk's first token is overwritten."""
    stream = list(range(s.length)) if s.bos == "none" else [BOS, *range(s.length)]
    windows = []
    for number in range(len(stream) // s.ctx):
        chunk = stream[number * s.ctx : (number + 1) * s.ctx]
        if s.bos == "every_window":
            chunk[0] = BOS
        windows.append((chunk, chunk[s.ctx // 2 + 1 :]))
    return windows


def _fixed_targets(s: Setting) -> list[tuple[Seen, Scored]]:
    seen = _end(s)
    assert s.last is not None
    return [(seen, seen[-s.last :])]


def _end(s: Setting) -> Seen:
    """The end of the text; a BOS is in the place of the first of its ctx tokens."""
    text = list(range(s.length))
    return text[-s.ctx :] if s.bos == "none" else [BOS, *text[s.length - s.ctx + 1 :]]


def _rolling(s: Setting) -> list[tuple[Seen, Scored]]:
    """lm-eval: tokens are predicted ctx at a time, the model being given the ctx tokens before the last of them."""
    windows = []
    text, behind = list(range(s.length)), s.stream if s.bos == "first_window" else list(range(s.length))
    wanted = text[1:] if s.bos == "none" else text
    for begin in range(0, len(wanted), s.ctx):
        scored = wanted[begin : begin + s.ctx]
        before = behind[: behind.index(scored[-1])]  # all that could be given
        given = before[-s.ctx :] if s.bos != "every_window" else [BOS, *(before[-(s.ctx - 1) :] if s.ctx > 1 else [])]
        windows.append(([*given, scored[-1]], scored))
    return windows


DEFINITIONS: dict[str, Definition] = {
    "sliding": _sliding,
    "single_pass": _single_pass,
    "disjoint": _disjoint,
    "rolling": _rolling,
    "last": lambda s: [(w, w[-(s.last or s.stride) :]) for w in _full(s)],
    "second_half": _second_half,
    "fixed_targets": _fixed_targets,
    "targets": lambda s: [(seen := _end(s), seen)],  # of documents that do not say which tokens count
    "overlapping_full": lambda s: [(w, w) for w in _full(s)],
}


def targets(name: str, length: int, ctx: int, *, bos: str, stride: int, last: int | None) -> list[list[Target]]:
    """Scored tokens of each window of a document of `length` tokens; `last` tokens count where the protocol asks.

    A document shorter than `ctx` is one window, as long as it is.
    """
    if length < ctx:
        ctx = length if bos == "none" or name == "rolling" else length + 1
    windows = [_targets(seen, scored) for seen, scored in DEFINITIONS[name](Setting(length, ctx, bos, stride, last))]
    return [w for w in windows if w]


def _targets(seen: Seen, scored: Scored) -> list[Target]:
    """A BOS is no target, and neither is what has nothing before it."""
    found = []
    for place, token in enumerate(seen):
        if token in scored and token != BOS and place:
            context = seen[:place]
            assert context[context[0] == BOS :] == list(range(token - place + (context[0] == BOS), token))
            found.append(Target(token, token - place + (context[0] == BOS), context[0] == BOS))
    return found


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
