import numpy as np
import pandas as pd
import pytest

from harness.statistics.summary import summarize
from harness.statistics.text import averaging_phrase, number
from tests import synthetic


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return synthetic.sweep(lengths=(512, 1024), num_documents=6)


def test_averaging_is_named_as_far_as_all_cells_agree(rows: pd.DataFrame) -> None:
    summary = summarize(rows)
    assert averaging_phrase(summary) == "token aggregate, 95 % intervals over 6 documents"
    assert averaging_phrase(summary, intervals=False) == "token aggregate, 6 documents"
    assert averaging_phrase(summary.assign(sampled=True)).endswith("6 documents, sampled windows")
    mixed = summary.assign(num_documents=range(3, 3 + len(summary)), low=np.nan)
    assert averaging_phrase(mixed) == "token aggregate, 3 to 10 documents, too few for intervals"


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.14159, "3.142"), (29.871, "29.87"), (358.21, "358.2"), (12345.6, "12346"), (2.5e7, "2.5e+07"),
     (float("nan"), "-")],
)  # fmt: skip
def test_number(value: float, text: str) -> None:
    assert number(value) == text
