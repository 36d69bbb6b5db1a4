"""Sums of all cells in one pass are those of each cell alone; windows of two runs, compared by cell."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from harness.errors import UserError
from harness.statistics.by_cell import by_cell, same_documents
from harness.statistics.metric import PERPLEXITY
from harness.statistics.summary import AGGREGATES, Averaging, document_ratios, together
from harness.statistics.windows_differ import Windows
from tests import synthetic


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    made = pd.concat([synthetic.sweep(lengths=(256, 1024)), synthetic.cell("yarn", 2048, num_documents=5)])
    return made.sample(frac=1, random_state=1).reset_index(drop=True)  # cells one in another


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_sums_are_those_of_each_cell_alone(rows: pd.DataFrame, aggregate) -> None:
    found = by_cell(rows, Averaging(aggregate))
    assert set(found) == set(rows["cell_id"])
    for cell_id, own in rows.groupby("cell_id"):
        alone, sums = document_ratios(own, aggregate), found[str(cell_id)]
        np.testing.assert_array_equal(sums.numerator, alone["numerator"])
        np.testing.assert_array_equal(sums.denominator, alone["denominator"])
        assert list(zip(sums.indices, sums.names, strict=True)) == list(alone.index)
        assert sums.log == (aggregate == "mean_of_perplexities")


@pytest.mark.parametrize(
    "metric", [PERPLEXITY, replace(PERPLEXITY, of_shares=True), replace(PERPLEXITY, scale="ratio")]
)
def test_cells_together_are_what_their_frames_are(rows: pd.DataFrame, metric) -> None:
    two = rows[rows["cell_id"].isin(rows["cell_id"].unique()[:2])]
    two = two[two["document_index"] < 5]
    sums = by_cell(two, Averaging(), metric)
    found = same_documents(list(sums.values()))
    wanted = together([document_ratios(two[two["cell_id"] == i], "token", metric) for i in sums], Averaging(), metric)
    np.testing.assert_array_equal(found.numerator, wanted.numerator)
    np.testing.assert_array_equal(found.denominator, wanted.denominator)
    assert (found.log, found.shares) == (wanted.log, wanted.shares)


def test_sampled_cells_say_so(rows: pd.DataFrame) -> None:
    one = rows["cell_id"].iloc[0]
    found = by_cell(rows.assign(weight=np.where(rows["cell_id"] == one, 2.0, 1.0)), Averaging())
    assert {cell_id for cell_id, sums in found.items() if sums.sampled} == {one}


@pytest.mark.parametrize("changed", ["document", "document_index"])
def test_other_documents_are_an_error_by_name(rows: pd.DataFrame, changed: str) -> None:
    two = rows[rows["ctx"] == 256]
    other = two["cell_id"] == two["cell_id"].iloc[0]
    value = two[changed].iloc[0]
    new = "another" if changed == "document" else 1000
    changes = two.assign(**{changed: two[changed].where(~(other & (two[changed] == value)), new)})
    first, *_, last = by_cell(changes, Averaging()).values()
    with pytest.raises(UserError, match="2 are in one and not in the other, the first of them"):
        same_documents([first, last])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda rows: rows, None),
        (lambda rows: rows.sample(frac=1, random_state=2), None),
        (lambda rows: rows.assign(bos=None), "the windows lie elsewhere or are weighted otherwise"),
        (lambda rows: rows.assign(weight=2.0), "the windows lie elsewhere or are weighted otherwise"),
        (lambda rows: rows.drop(columns="num_bytes"), None),
        (lambda rows: rows.assign(num_scored=rows["num_scored"] + (rows.index == 0)), "1 documents have other scored"),
        (lambda rows: rows[rows["document_index"] > 0], "1 documents have other scored tokens, 'speech-0' 767 before"),
    ],
)  # fmt: skip
def test_windows_that_differ_are_said(change, expected) -> None:
    before = synthetic.sweep(lengths=(256, 1024)).reset_index(drop=True)
    one = str(before["cell_id"].iloc[0])
    found = Windows(before, "num_scored").differ(one, Windows(change(before), "num_scored"), one)
    assert found is None if expected is None else found is not None and found.startswith(expected)


def test_values_that_are_missing_in_both_are_the_same() -> None:
    rows = synthetic.cell("yarn", 256).assign(bos=None, num_bytes=np.nan)
    one = str(rows["cell_id"].iloc[0])
    assert Windows(rows, "num_scored").differ(one, Windows(rows.copy(), "num_scored"), one) is None
