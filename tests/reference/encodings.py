"""Causal attention under each trained encoding, one pair of positions at a time, in float64, from the definitions."""

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]  # queries, keys, values: (heads, length, head_dim)


def softmax_attention(q: Array, k: Array, v: Array, score) -> Array:  # score(h, i, j) -> float
    out = np.zeros_like(v)
    for h in range(q.shape[0]):
        for i in range(q.shape[1]):
            scores = np.array([score(h, i, j) for j in range(i + 1)], dtype=np.float64)
            weights = np.exp(scores - scores.max())
            out[h, i] = weights @ v[h, : i + 1] / weights.sum()
    return out


def plain(q: Array, k: Array):
    return lambda h, i, j: q[h, i] @ k[h, j] / math.sqrt(q.shape[-1])


def alibi(q: Array, k: Array, factor: float = 1.0):
    heads = q.shape[0]

    def slope(h: int) -> float:
        below = 2 ** int(math.log2(heads))
        if h < below:
            return 2 ** (-8 * (h + 1) / below)
        return 2 ** (-8 * (2 * (h - below) + 1) / (2 * below))

    return lambda h, i, j: plain(q, k)(h, i, j) - slope(h) / factor * (i - j)


def t5_bucket(r: int, buckets: int = 32, max_distance: int = 128) -> int:
    exact = buckets // 2
    if r < exact:
        return r
    return min(buckets - 1, exact + int(math.log(r / exact) / math.log(max_distance / exact) * (buckets - exact)))


def t5_bias(q: Array, k: Array, table: Array, buckets: int, max_distance: int):
    return lambda h, i, j: plain(q, k)(h, i, j) + table[t5_bucket(i - j, buckets, max_distance), h]


def kerple(q: Array, k: Array, form: str, p: Array, a: Array):
    def kernel(h: int, r: int) -> float:
        return p[h] * (math.log(1 + a[h] * r) if form == "log" else r ** a[h])

    return lambda h, i, j: plain(q, k)(h, i, j) - kernel(h, i - j)


def fire(q: Array, k: Array, c: float, threshold: float, w1: Array, b1: Array, w2: Array, b2: Array):
    def psi(x: float) -> float:
        return math.log(c * x + 1)

    def f(x: float) -> Array:
        return w2 @ np.maximum(w1[:, 0] * x + b1, 0) + b2

    return lambda h, i, j: plain(q, k)(h, i, j) + f(psi(i - j) / (psi(max(i, threshold)) + 1e-6))[h]


def rotate(x: Array, position: float) -> Array:
    """x: (head_dim,); channels m and m + d / 2 are a pair."""
    d = len(x)
    out = np.empty(d)
    for m in range(d // 2):
        angle = position * 10000 ** (-2 * m / d)
        a, b = x[m], x[m + d // 2]
        out[m], out[m + d // 2] = a * math.cos(angle) - b * math.sin(angle), b * math.cos(angle) + a * math.sin(angle)
    return out


def rope(q: Array, k: Array, positions: Array):
    return lambda h, i, j: rotate(q[h, i], positions[i]) @ rotate(k[h, j], positions[j]) / math.sqrt(q.shape[-1])


def xpos(q: Array, k: Array, decay_length: float, factor: float = 1.0, block: int | None = None):
    d = q.shape[-1]
    zeta = np.array([(2 * m + 0.4 * d) / (1.4 * d) for m in range(d // 2)])

    def score(h: int, i: int, j: int) -> float:
        if block is not None and j // block < i // block - 1:
            return -math.inf
        a, b = rotate(q[h, i], i / factor), rotate(k[h, j], j / factor)
        pairs = a[: d // 2] * b[: d // 2] + a[d // 2 :] * b[d // 2 :]
        return float(np.sum(pairs * zeta ** ((i - j) / factor / decay_length)) / math.sqrt(d))

    return score


def permute(x: Array, permutation: NDArray[np.int64], times: int) -> Array:
    for _ in range(times):
        x = x[permutation]
    return x


def permuted(q: Array, k: Array, permutations: NDArray[np.int64]):
    return lambda h, i, j: (
        permute(q[h, i], permutations[h], i) @ permute(k[h, j], permutations[h], j) / math.sqrt(q.shape[-1])
    )


def permuteformer_linear(q: Array, k: Array, v: Array, permutations: NDArray[np.int64]) -> Array:
    heads, length, _ = q.shape
    out = np.zeros_like(v)
    for h in range(heads):
        rho = 1 / (1 + math.exp(-(2 + 3 * h / heads)))
        for i in range(length):
            for j in range(i + 1):
                a = permute(np.maximum(q[h, i], 0) + 1e-3, permutations[h], i)
                b = permute(np.maximum(k[h, j], 0) + 1e-3, permutations[h], j)
                out[h, i] += rho ** (i - j) * (a @ b) * v[h, j]
    return out


def sinusoid(position: float, hidden_size: int, base: float = 10000.0, factor: float = 1.0) -> Array:
    """(hidden_size,): all sines, then all cosines."""
    angles = [position / factor / base ** (2 * c / hidden_size) for c in range(hidden_size // 2)]
    return np.array([math.sin(a) for a in angles] + [math.cos(a) for a in angles])
