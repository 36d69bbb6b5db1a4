"""Attention-changing methods written from their definitions: one pair at a time, in float64, L x L.

Shares no code with the package. A method here is a function relative(i, j) -> relative position of query i and key
j <= i, or None where the key is masked.
"""

import math

import numpy as np


def rerope(i, j, window):
    """Su 2023: min(i - j, window)."""
    return min(i - j, window)


def leaky_rerope(i, j, window, factor):
    """Su 2023: slope 1 up to the window, slope 1 / factor beyond it."""
    distance = i - j
    return distance if distance < window else window + (distance - window) / factor


def self_extend(i, j, window, group, floor_shift=False):
    """arXiv:2401.01325: neighbours exact, others by group, shifted so that the two meet at the window."""
    if i - j < window:
        return i - j
    shift = window - (window // group if floor_shift else window / group)
    return i // group - j // group + shift


def dca(i, j, chunk, local, form="code"):
    """arXiv:2402.17463: intra-chunk, successive-chunk and inter-chunk attention."""
    size = chunk - local
    cap = chunk if form == "code" else chunk - 1
    key = j % size
    apart = i // size - j // size
    if apart == 0:
        query = i % size
    elif apart == 1:
        query = min(i % size + size, cap)
    else:
        query = min(2 * size - 1, cap)
    return query - key


def lm_infinite(i, j, window, sinks):
    """arXiv:2308.16137: a Lambda-shaped mask, distances clipped at the window."""
    if i - j < window:
        return i - j
    return window if j < sinks else None


def streaming(i, j, window, sinks):
    """arXiv:2309.17453, from the cache's contents: kept tokens numbered in order of their place in the cache."""
    kept = [t for t in range(i + 1) if t < sinks or i - t < window]
    return len(kept) - 1 - kept.index(j) if j in kept else None


def string(i, j, shift, window):
    """arXiv:2410.18745: the diagonals from the shift on are moved so that they begin again at the window."""
    distance = i - j
    return distance if distance < shift else distance - shift + window


def log_n(position, trained):
    """Su: queries grow with the logarithm of the number of keys they see, base the trained length."""
    return max(1.0, math.log(position + 1) / math.log(trained))


def floor_scale(position, every, beta=0.1, first=1):
    """Llama 4 (first 1) and Ministral 3 (first 0): one more step of the logarithm every so many tokens."""
    return 1 + beta * math.log(1 + math.floor((position + first) / every))


def power_scale(position, every=2048, exponent=0.1):
    """Beam."""
    return math.pow(1 + (position + 1) / every, exponent)


def ssmax_scale(position, trained, s=None):
    """arXiv:2501.19399; an s that was not trained makes the mean over the trained length 1."""
    if s is None:
        s = 1 / (sum(math.log(n) for n in range(1, trained + 1)) / trained)
    return s * math.log(position + 1)


def table(relative, length):
    """relative(i, j) for all pairs, NaN where masked or not causal."""
    out = np.full((length, length), np.nan)
    for i in range(length):
        for j in range(i + 1):
            value = relative(i, j)
            out[i, j] = np.nan if value is None else value
    return out


def rotate(vector, angle_of_pair, first, interleaved):
    """Rotate the pairs of `vector`'s rotary channels, which begin at `first`, by one angle each."""
    out = vector.copy()
    pairs = len(angle_of_pair)
    for p, angle in enumerate(angle_of_pair):
        a, b = (first + 2 * p, first + 2 * p + 1) if interleaved else (first + p, first + p + pairs)
        out[..., a] = vector[..., a] * np.cos(angle) - vector[..., b] * np.sin(angle)
        out[..., b] = vector[..., b] * np.cos(angle) + vector[..., a] * np.sin(angle)
    return out


def attention(
    query,
    key,
    value,
    relative,
    inv_freq,
    *,
    scale,
    multiplier=1.0,
    first=0,
    interleaved=False,
    sinks=None,
    trained=None,
    softcap=None,
):
    """Causal attention of (batch, heads, length, channels) arrays whose scores are q_i . R(relative) k_j.

    `multiplier` is that of cosines and sines (rotary channels of both sides), `sinks` one extra logit a head without
    a value, `trained` turns log-n on, `softcap` caps scores by tanh. Key heads are shared by consecutive query heads.
    """
    query, key, value = (np.asarray(x, dtype=np.float64) for x in (query, key, value))
    groups = query.shape[1] // key.shape[1]
    key, value = np.repeat(key, groups, axis=1), np.repeat(value, groups, axis=1)
    length, rotary = query.shape[2], slice(first, first + 2 * len(inv_freq))
    scores = np.full((*query.shape[:3], length), -np.inf)
    for i in range(length):
        for j in range(i + 1):
            distance = relative(i, j)
            if distance is None:
                continue
            rotated = rotate(query[:, :, i], distance * np.asarray(inv_freq), first, interleaved)
            product = rotated * key[:, :, j]
            product[..., rotary] *= multiplier**2
            grown = 1.0 if trained is None else log_n(i, trained)
            scores[:, :, i, j] = product.sum(-1) * scale * grown
    if softcap is not None:
        scores = np.where(scores == -np.inf, scores, softcap * np.tanh(scores / softcap))
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    total = weights.sum(-1, keepdims=True)
    if sinks is not None:
        total = total + np.exp(np.asarray(sinks)[None, :, None, None] - scores.max(-1, keepdims=True))
    return (weights / total) @ value
