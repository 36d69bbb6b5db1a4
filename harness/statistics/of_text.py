"""What is said of a cell beside its metric: losses a byte and a word, and what short windows cost."""

import numpy as np

from harness.statistics.apart import Apart
from harness.statistics.metric import SHORT


def in_short_windows(apart: Apart, place: int) -> float:
    """Perplexity of the counted tokens in windows that cannot reach back; NaN where not all have one."""
    return float(np.exp(apart.of(place, SHORT).sum() / apart.of(place, "num_scored").sum()))


def of_text(apart: Apart, place: int) -> dict[str, float]:
    """What does not depend on the tokenizer, from sums over the whole cell; NaN where the text was not counted."""
    known = apart.rows.columns
    weight = apart.of(place, "weight")
    nll, num_bytes, num_words = (
        float((weight * apart.of(place, name)).sum()) if name in known else np.nan
        for name in ("nll_sum", "num_bytes", "num_words")
    )
    a_byte, a_word = (nll / count if count > 0 else np.nan for count in (num_bytes, num_words))
    with np.errstate(over="ignore"):  # of words that are no words
        return {
            "bits_per_byte": float(a_byte / np.log(2)),
            "byte_perplexity": float(np.exp(a_byte)),
            "word_perplexity": float(np.exp(a_word)),
        }
