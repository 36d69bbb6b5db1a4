"""Needle gain and accuracy by their definitions, a needle at a time, in Python floats."""

import math
from typing import NamedTuple


class Answered(NamedTuple):
    """The answer of one document: nats of its tokens, and whether each was the likeliest of the vocabulary."""

    nll: list[float]
    top1: list[bool]


def gain(right: list[Answered], wrong: list[Answered]) -> float:
    """Nats a token of the answer that the right number saves against a wrong one; pairs of documents in one order."""
    saved = [math.fsum(w.nll) - math.fsum(r.nll) for r, w in zip(right, wrong, strict=True)]
    return math.fsum(saved) / sum(len(r.nll) for r in right)


def accuracy(right: list[Answered]) -> float:
    """Share of the answers that greedy decoding gives."""
    return sum(all(r.top1) for r in right) / len(right)
