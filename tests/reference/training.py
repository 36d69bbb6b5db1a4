"""What training on windows of its own making sees and minimises, a token at a time, in Python floats."""

import math


def pose_window(
    text: list[int], begin: int, ctx: int, first: int, later: int, skipped: int
) -> tuple[list[int], list[int]]:
    """arXiv:2309.10400: ids and positions of a window in two pieces, the second `later` tokens further on."""
    ids = text[begin : begin + first] + text[begin + first + later : begin + ctx + later]
    return ids, list(range(first)) + [place + skipped for place in range(first, ctx)]


def long_ce(nll_long: list[float], nll_short: list[float | None], cap: float = 5.0) -> float:
    """arXiv:2410.23771: both of the same tokens; None: there is no shorter context."""
    weights = [
        1.0 if short is None else min(math.exp(short - long), cap)
        for long, short in zip(nll_long, nll_short, strict=True)
    ]
    return math.fsum(w * nll for w, nll in zip(weights, nll_long, strict=True)) / len(nll_long)


def short_contexts(length: int, short_ctx: int, stride: int) -> list[int | None]:
    """Of every token but the first, where its short context begins; None: it has none. As PKU-ML/LongPPL cuts them."""
    begins: list[int | None] = []
    for place in range(1, length):
        begins.append(None if place < short_ctx else (place - short_ctx) // stride * stride)
    return begins


def random_floats(uniform: list[float], reach: float) -> list[float]:
    """arXiv:2602.14050: positions from uniform draws of [0, 1)."""
    return sorted(reach * u for u in uniform)
