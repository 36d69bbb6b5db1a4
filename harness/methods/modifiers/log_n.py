"""The log-n modifier: queries that grow with the logarithm of the number of keys they see."""

import numpy as np
from numpy.typing import NDArray


def log_n(length: int, trained: int) -> NDArray[np.float64]:
    """Multiplier of the query at each position of a window, (length,): max(1, ln(position + 1) / ln(trained)).

    `trained` is the trained length in tokens. It keeps the entropy of attention what it was in training. Su 2021,
    kexue.fm/archives/8823; used with ReRoPE and NTK-mixed in github.com/bojone/rerope.
    """
    return np.maximum(1.0, np.log(np.arange(1, length + 1)) / np.log(trained))
