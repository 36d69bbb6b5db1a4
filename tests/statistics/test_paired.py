import math

import numpy as np
import pandas as pd
import pytest

from harness.errors import UserError
from harness.statistics import paired as contrasts
from harness.statistics import summary as statistics
from tests import synthetic
from tests.reference import statistics as reference


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return synthetic.sweep()


def exact(means: dict[int, float], method: str = "yarn") -> pd.DataFrame:
    """Cells whose every document has exactly the given mean loss at each length."""
    cells = []
    for ctx, mean in means.items():
        cell = synthetic.cell(method, ctx)
        cells.append(cell.assign(nll_sum=mean * cell["num_scored"]))
    return pd.concat(cells, ignore_index=True)


@pytest.mark.parametrize("aggregate", statistics.AGGREGATES)
def test_ratios_are_those_of_the_perplexities(rows: pd.DataFrame, aggregate: str) -> None:
    table = contrasts.paired(rows, "none", aggregate)
    assert sorted(set(table["curve"])) == ["linear", "ntk", "yarn"]
    assert len(table) == 15
    by_cell = {key: cell.to_dict("records") for key, cell in rows.groupby(["method", "ctx"])}
    for line in table.to_dict("records"):
        ours, base = by_cell[line["method"], line["ctx"]], by_cell["none", line["ctx"]]
        expected = reference.perplexity(ours, aggregate) / reference.perplexity(base, aggregate)
        assert line["ratio"] == pytest.approx(expected, rel=1e-12)
        assert line["low"] <= line["ratio"] <= line["high"]


def test_wins_are_counted_by_document() -> None:
    base = synthetic.cell("none", 512)
    better = synthetic.cell("yarn", 512).assign(nll_sum=base["nll_sum"] + np.where(base["document_index"] < 3, -9, 9))
    line = contrasts.paired(pd.concat([base, better])).iloc[0]
    assert (line["num_improved"], line["num_documents"]) == (3, 8)


def test_pairs_need_the_same_documents(rows: pd.DataFrame) -> None:
    lacking = rows[~((rows["method"] == "yarn") & (rows["document"] == "speech-3"))]
    with pytest.raises(UserError, match=r"1 are in one and not in the other.*'speech-3'"):
        contrasts.paired(lacking)
    with pytest.raises(UserError, match=r"Unknown baseline 'nome'\. Did you mean 'none'"):
        contrasts.paired(rows, "nome")
    with pytest.raises(UserError, match="No other line shares"):
        contrasts.paired(pd.concat([exact({512: 3.0}, "none"), exact({1024: 3.0})]))


def test_effective_length_is_the_last_before_the_first_failure() -> None:
    recovering = exact({256: 3.2, 512: 3.0, 1024: 3.04, 2048: 3.2, 4096: 2.9})
    line = contrasts.effective_context_length(recovering, tolerance=0.05).iloc[0]
    assert (line["effective_ctx"], line["beyond"]) == (1024, False)
    assert (line["low"], line["high"]) == (1024, 1024)
    assert contrasts.effective_context_length(recovering, 0.03).iloc[0]["effective_ctx"] == 512
    kept = contrasts.effective_context_length(recovering, 0.3).iloc[0]
    assert (kept["effective_ctx"], kept["beyond"]) == (4096, True)


def test_effective_length_compares_with_the_best_of_all_shorter_lengths() -> None:
    """Each step is within 5 %, their sum is not."""
    creeping = exact({256: 3.0, 512: 3.04, 1024: 3.08, 2048: 3.12})
    assert contrasts.effective_context_length(creeping, 0.05).iloc[0]["effective_ctx"] == 512


def test_effective_length_interval_is_as_wide_as_the_doubt() -> None:
    doubtful = exact({512: 3.0, 1024: 3.045, 2048: 3.5})
    noise = np.where(doubtful["document_index"] % 2, 0.03, -0.03) * (doubtful["ctx"] == 1024)
    doubtful["nll_sum"] += noise * doubtful["num_scored"]
    line = contrasts.effective_context_length(doubtful, 0.05).iloc[0]
    assert (line["low"], line["effective_ctx"], line["high"]) == (512, 1024, 1024)
    few = contrasts.effective_context_length(doubtful[doubtful["document_index"] < 4], 0.05).iloc[0]
    assert few["effective_ctx"] == 1024
    assert math.isnan(few["low"])
    with pytest.raises(UserError, match="tolerance must be >= 0"):
        contrasts.effective_context_length(doubtful, -0.1)


def test_slope_is_the_least_squares_line() -> None:
    means = {256: 3.3, 512: 3.0, 2048: 3.1, 4096: 3.9}
    line = contrasts.slope(exact(means)).iloc[0]
    expected = np.polyfit(np.log2(list(means)), list(means.values()), 1)[0]
    assert line["slope"] == pytest.approx(expected, rel=1e-12)
    assert contrasts.slope(exact(means), shortest=512).iloc[0]["slope"] == pytest.approx(
        np.polyfit([9, 11, 12], [3.0, 3.1, 3.9], 1)[0], rel=1e-12
    )
    assert contrasts.slope(exact({256: 3.3})).empty


def test_slope_interval_covers_the_truth_and_is_paired(rows: pd.DataFrame) -> None:
    table = contrasts.slope(rows, shortest=512).set_index("curve")
    truth = {"none": 1.06, "linear": 0.41, "ntk": 0.28, "yarn": 0.01}
    for curve, expected in truth.items():
        assert table.loc[curve, "low"] - 0.005 < expected < table.loc[curve, "high"] + 0.005
        assert table.loc[curve, "high"] - table.loc[curve, "low"] < 0.03
