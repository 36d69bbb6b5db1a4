"""Which tokens lie in parts of the text that tokens of another tokenizer cover; in bytes of UTF-8, at whole characters.

Byte counts of token rows go by characters: of several tokens that share one, the first has all its bytes, and the
others begin and end where it ends.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Bytes = NDArray[np.int64]


def spans(tokens: pd.DataFrame) -> tuple[Bytes, Bytes]:
    """Begin and end of each token's text, both (num_tokens,); tokens that share a character have all of it.

    tokens: rows of one document, every one from its first on, in their order.
    """
    begins, ends = (tokens[name].to_numpy(np.int64) for name in ("byte_begin", "byte_end"))
    places = np.maximum.accumulate(np.where(begins < ends, np.arange(len(tokens)), 0))
    return begins[places], ends


def merged(begins: Bytes, ends: Bytes) -> tuple[Bytes, Bytes]:
    """Runs of text that adjacent or overlapping spans cover together, both (runs,); the spans in their order."""
    if not len(begins):
        return begins, ends
    reach = np.maximum.accumulate(ends)
    starts = np.append(True, begins[1:] > reach[:-1])
    return begins[starts], reach[np.append(starts[1:], True)]


def inside(tokens: tuple[Bytes, Bytes], runs: tuple[Bytes, Bytes]) -> NDArray[np.bool_]:
    """Which of the spans of `tokens` lie wholly in one of the `runs`, (num_spans,)."""
    (begins, ends), (run_begins, run_ends) = tokens, runs
    if not len(run_begins):
        return np.zeros(len(begins), bool)
    place = np.searchsorted(run_begins, begins, side="right") - 1
    return (place >= 0) & (ends <= run_ends[place])
