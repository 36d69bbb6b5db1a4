"""Protocols written from their definitions: which tokens are scored behind which context, and each loss by itself.

A list of windows, each a list of (scored token, context); a context is (first token that is seen, BOS in front or not).
Every loss comes from a forward of its own, in float64, over nothing but the context of its token. Slow and obvious.
"""

import math
from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np
import torch


class Target(NamedTuple):
    """A scored token and what the model sees before it: [BOS,] tokens first .. token - 1."""

    token: int
    first: int
    bos: bool


def targets(name: str, length: int, ctx: int, *, bos: str, stride: int, last: int | None) -> list[list[Target]]:
    """Scored tokens of each window of a document of `length` tokens; `last` tokens count where the protocol asks."""
    windows: list[list[Target]] = []
    for number, (begin, end) in enumerate(_windows(name, length, ctx, bos, stride)):
        has_bos = bos == "every_window" or (bos == "first_window" and number == 0)
        windows.append([])
        done = {t.token for w in windows for t in w}
        for token in range(begin, end):
            if token == begin and not has_bos:
                continue  # nothing precedes it
            chunk_begin = begin - has_bos if name == "second_half" else begin
            wanted = {
                "sliding": token not in done,
                "single_pass": True,
                "disjoint": True,
                "last": token >= end - (last or stride),
                "second_half": token - chunk_begin > ctx // 2,
                "fixed_targets": last is not None and token >= length - last,
                "overlapping_full": True,
            }[name]
            if wanted:
                windows[-1].append(Target(token, begin, has_bos))
    return [w for w in windows if w]


def _windows(name: str, length: int, ctx: int, bos: str, stride: int) -> list[tuple[int, int]]:
    """(first token, end) of every window; a BOS takes a place of the ctx."""
    first = ctx - (bos != "none")
    later = ctx - (bos == "every_window")
    if name == "single_pass":
        return [(0, first)]
    if name == "fixed_targets":
        return [(length - first, length)]
    if name == "second_half":  # chunks of ctx tokens whose first one a BOS replaces
        chunks = [(n * ctx, n * ctx + ctx) for n in range(length // ctx)]
        return [(b + (bos == "every_window" or (bos == "first_window" and b == 0)), e) for b, e in chunks]
    if name == "disjoint":
        ends = [first]
        while ends[-1] < length:
            ends.append(ends[-1] + later)
        return [(b, min(e, length)) for b, e in zip([0, *ends], ends, strict=False)]
    if name == "sliding":  # every window but the first ends one stride behind the one before it
        ends = [first]
        while ends[-1] < length:
            ends.append(ends[-1] + stride)
        return [(0, first), *((e - later, min(e, length)) for e in ends[1:])]
    assert name in ("last", "overlapping_full")
    windows, begin = [], 0
    while begin + (later if windows else first) <= length:
        windows.append((begin, begin + (later if windows else first)))
        begin += stride
    return windows


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
