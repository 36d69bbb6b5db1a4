"""Aggregates written out row by row in plain Python, as their definitions read; slow and obvious."""

import math
from collections import defaultdict


def perplexity(rows: list[dict], aggregate: str) -> float:
    by_document = defaultdict(list)
    for row in rows:
        by_document[row["document"]].append(row)
    if aggregate == "token":
        nll = math.fsum(row["weight"] * row["nll_sum"] for row in rows)
        return math.exp(nll / math.fsum(row["weight"] * row["num_scored"] for row in rows))
    if aggregate == "window":
        means = [(row["weight"], row["nll_sum"] / row["num_scored"]) for row in rows]
        return math.exp(math.fsum(w * m for w, m in means) / math.fsum(w for w, _ in means))
    means = []
    for windows in by_document.values():
        nll = math.fsum(row["weight"] * row["nll_sum"] for row in windows)
        means.append(nll / math.fsum(row["weight"] * row["num_scored"] for row in windows))
    if aggregate == "document":
        return math.exp(math.fsum(means) / len(means))
    assert aggregate == "mean_of_perplexities"
    return math.fsum(math.exp(mean) for mean in means) / len(means)


def standard_error_of_a_mean(values: list[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))


def jackknife_error(y: list[float], x: list[float]) -> float:
    """Delete-one jackknife of sum y / sum x; close to, not equal to, the linearised error."""
    n = len(y)
    left = [(math.fsum(y) - y[i]) / (math.fsum(x) - x[i]) for i in range(n)]
    mean = math.fsum(left) / n
    return math.sqrt((n - 1) / n * math.fsum((value - mean) ** 2 for value in left))


def studentised_interval(
    y: list[float], x: list[float], draws: list[list[int]], confidence: float
) -> tuple[float, float]:
    """Bootstrap-t limits of sum y / sum x; draws[b][d] says how often resample b holds document d."""

    def ratio_and_error(counts: list[int]) -> tuple[float, float]:
        drawn = [d for d, count in enumerate(counts) for _ in range(count)]
        n = len(drawn)
        ratio = math.fsum(y[d] for d in drawn) / math.fsum(x[d] for d in drawn)
        mean_x = math.fsum(x[d] for d in drawn) / n
        squares = math.fsum(((y[d] - ratio * x[d]) / mean_x) ** 2 for d in drawn)
        return ratio, math.sqrt(squares / (n * (n - 1)))

    value, error = ratio_and_error([1] * len(y))
    floor = math.sqrt(0.5) / len(y) * error  # added in quadrature to every error
    scores = []
    for counts in draws:
        drawn_value, drawn_error = ratio_and_error(counts)
        scores.append((drawn_value - value) / math.sqrt(drawn_error**2 + floor**2))
    scores.sort()
    tail = (1 - confidence) / 2
    reach = math.sqrt(error**2 + floor**2)
    return value - _quantile(scores, 1 - tail) * reach, value - _quantile(scores, tail) * reach


def _quantile(ordered: list[float], share: float) -> float:
    """Linear interpolation between order statistics."""
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])
