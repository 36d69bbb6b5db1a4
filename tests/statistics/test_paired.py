import numpy as np
import pandas as pd
import pytest

from harness.errors import UserError
from harness.statistics.paired import paired
from harness.statistics.summary import AGGREGATES, Aggregate, Averaging
from tests import synthetic
from tests.reference import statistics


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return synthetic.sweep()


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_ratios_are_those_of_the_perplexities(rows: pd.DataFrame, aggregate: Aggregate) -> None:
    table = paired(rows, "none", Averaging(aggregate))
    assert sorted(set(table["curve"])) == ["linear", "ntk", "yarn"]
    assert len(table) == 15
    by_cell = {key: cell.to_dict("records") for key, cell in rows.groupby(["method", "ctx"])}
    for line in table.to_dict("records"):
        ours, base = by_cell[line["method"], line["ctx"]], by_cell["none", line["ctx"]]
        expected = statistics.perplexity(ours, aggregate) / statistics.perplexity(base, aggregate)
        assert line["ratio"] == pytest.approx(expected, rel=1e-12)
        assert line["low"] <= line["ratio"] <= line["high"]


def test_wins_are_counted_by_document() -> None:
    base = synthetic.cell("none", 512)
    better = synthetic.cell("yarn", 512).assign(nll_sum=base["nll_sum"] + np.where(base["document_index"] < 3, -9, 9))
    line = paired(pd.concat([base, better])).iloc[0]
    assert (line["num_improved"], line["num_documents"]) == (3, 8)


def test_pairs_need_the_same_documents(rows: pd.DataFrame) -> None:
    lacking = rows[~((rows["method"] == "yarn") & (rows["document"] == "speech-3"))]
    with pytest.raises(UserError, match=r"1 are in one and not in the other.*'speech-3'"):
        paired(lacking)
    with pytest.raises(UserError, match=r"Unknown baseline 'nome'\. Did you mean 'none'"):
        paired(rows, "nome")
    with pytest.raises(UserError, match="No other line shares"):
        paired(pd.concat([synthetic.exact({512: 3.0}, "none"), synthetic.exact({1024: 3.0}, "yarn")]))
