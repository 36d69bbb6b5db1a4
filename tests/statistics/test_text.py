import numpy as np
import pandas as pd
import pytest

from harness.statistics.summary import summarize
from harness.statistics.text import averaging_phrase, effective_table, number, summary_table
from tests import synthetic


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return synthetic.sweep(lengths=(512, 1024), num_documents=6)


def test_table_shows_method_by_length_with_documents(rows: pd.DataFrame) -> None:
    text = summary_table(summarize(rows))
    assert "reference, sotu, sliding, stride 256" in text
    assert "6 documents" in text
    assert [line.split()[0] for line in text.splitlines()[-4:]] == ["none", "linear", "ntk", "yarn"]
    assert "512" in text
    assert "1k" in text
    few = summary_table(summarize(rows[rows["document_index"] < 3]))
    assert "3 documents" in few
    assert "[" not in few


def test_effective_lengths_are_printed_with_what_is_known_of_them() -> None:
    lengths = pd.DataFrame(
        {
            "model": "reference", "curve": ["none", "linear", "yarn"], "effective_ctx": [512.0, 1024.0, 4096.0],
            "low": [256.0, np.nan, 4096.0], "high": [512.0, np.nan, 4096.0], "beyond": [False, False, True],
            "tolerance": 0.05,
        }
    )  # fmt: skip
    title, *lines = effective_table(lengths).splitlines()
    assert title == "effective context length (perplexity within 5 % of the best before):"
    assert [" ".join(line.split()) for line in lines] == [
        "reference none 512 [256, 512]", "reference linear 1k", "reference yarn at least 4k [4k, 4k]",
    ]  # fmt: skip


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
