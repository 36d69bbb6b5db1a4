"""Key tokens, far copies and gain of context by their definitions, a token at a time, in Python floats."""

import math


def is_key(nll_long: float, nll_short: float, alpha: float = 2.0, beta: float = -2.0) -> bool:
    """arXiv:2410.23771: the log probability gains more than alpha by the long context, and is above beta there."""
    return -nll_long - -nll_short > alpha and -nll_long > beta


def longppl(losses: list[dict[int, float]], keys: list[set[int]]) -> float:
    """losses, keys: a document each; nats by place, and places of key tokens."""
    chosen = [document[place] for document, places in zip(losses, keys, strict=True) for place in sorted(places)]
    return math.exp(math.fsum(chosen) / len(chosen))


def far_copies(ids: list[int], order: int, near: int) -> list[int]:
    """Places of far copies in a document."""
    found = []
    for i in range(order, len(ids)):
        occurrences = [j for j in range(order, i) if ids[j - order : j] == ids[i - order : i]]
        is_far = all(i - j > near for j in occurrences)
        if occurrences and is_far and any(ids[j] == ids[i] for j in occurrences):
            found.append(i)
    return found


def gain(losses_long: list[dict[int, float]], losses_short: list[dict[int, float]], first: int) -> float:
    """Factor between the perplexities of the same tokens, those from place `first` on, all documents together."""
    pairs = [
        (long[place], short[place])
        for long, short in zip(losses_long, losses_short, strict=True)
        for place in long
        if place >= first and place in short
    ]
    return math.exp(math.fsum(short - long for long, short in pairs) / len(pairs))


def covered(spans: list[tuple[int, int]], keys: set[int], others: list[tuple[int, int]]) -> set[int]:
    """Which of the tokens at `others` have all their characters in those of the key tokens among `spans`."""
    text = {character for key in keys for character in range(*spans[key])}
    return {i for i, (begin, end) in enumerate(others) if set(range(begin, end)) <= text}
