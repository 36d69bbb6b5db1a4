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
