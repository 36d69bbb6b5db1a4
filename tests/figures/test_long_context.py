"""The sheet: three metrics beside each other, each with what the same tokens cost in short windows."""

import numpy as np
import pandas as pd
import pytest

import harness
from harness.figures.long_context import CONTROL, sheet
from tests.statistics.test_long_context import CHOICE, DCA, YARN, tables


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return harness.long_context(**tables(("dca", DCA), ("yarn", YARN)), choice=CHOICE)


def test_a_panel_a_metric_with_the_values_of_the_table(table: pd.DataFrame) -> None:
    figure = sheet(table)
    assert [ax.get_title() for ax in figure.axes] == ["perplexity", "LongPPL", "perplexity of far copies"]
    for ax, name in zip(figure.axes, ("perplexity", "longppl", "far_copies"), strict=True):
        drawn = {line.get_label(): line.get_ydata() for line in ax.get_lines()}
        for row in table.to_dict("records"):
            assert drawn[row["method"]].tolist() == [row[name]]
        assert drawn[CONTROL].tolist() == [table[f"{name}_short_windows"].iloc[0]]
    assert "key tokens by dca: 12 at 10, in 6 documents" in figure.get_suptitle()


def test_a_metric_that_no_cell_has_is_an_empty_panel(table: pd.DataFrame) -> None:
    figure = sheet(table.assign(longppl=np.nan))
    assert figure.axes[1].texts[0].get_text() == "none of these cells has any"
    assert not figure.axes[1].get_lines()
    assert "LongPPL: none of these cells has any" in figure.get_suptitle()


def test_a_row_a_model(table: pd.DataFrame) -> None:
    other = table.assign(model="small", cell_id=table["cell_id"] + "-small")
    titles = [ax.get_title() for ax in sheet(pd.concat([table, other], ignore_index=True)).axes]
    assert titles == [f"{model}, books: {what}" for model in ("small", "tiny") for what in (
        "perplexity", "LongPPL", "perplexity of far copies",
    )]  # fmt: skip
