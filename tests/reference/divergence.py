"""KL of full distributions from the definition, in float64, with no slices and no tricks."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def log_softmax(logits: Array) -> Array:
    """Of each row, (rows, vocabulary)."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def kl(base: Array, other: Array) -> Array:
    """KL(base || other) of rows of logits (rows, vocabulary), nats: (rows,)."""
    p, q = log_softmax(base), log_softmax(other)
    return (np.exp(p) * (p - q)).sum(axis=-1)


def percentile(values: Array, fraction: float) -> float:
    """As llama.cpp's perplexity tool takes it: between the two nearest of the sorted values, linearly."""
    ordered = np.sort(values)
    place = fraction * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    share = place - low
    return float((1 - share) * ordered[low] + share * ordered[high])


def correlation(x: Array, y: Array, weights: Array) -> float:
    """Covariance over both standard deviations, each pair counted `weights` times."""
    x, y = (np.asarray(values, np.float64) for values in (x, y))
    dx, dy = (values - np.average(values, weights=weights) for values in (x, y))
    total = np.sum(weights)
    covariance, of_x, of_y = (float(np.sum(weights * z)) / total for z in (dx * dy, dx * dx, dy * dy))
    return covariance / float(np.sqrt(of_x) * np.sqrt(of_y))
