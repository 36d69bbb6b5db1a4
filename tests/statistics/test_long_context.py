"""The table of long contexts: each column is its metric's, values that are not there are NaN, and how it is printed."""

from math import exp, isnan, log, nan

import numpy as np
import pandas as pd
import pytest

import harness
from harness.errors import UserError
from harness.statistics.in_context import in_context_score
from harness.statistics.long_context import is_evaluator
from harness.statistics.long_context_text import long_context_text
from harness.statistics.metric import Choice
from tests import synthetic
from tests.statistics.token_cells import cell, load, short

IDS = [1, 2, 3, 0, 0, 0, 0, 1, 2, 3]  # the last 3 is a far copy, seven tokens back
WIDE = [nan, *[5.0] * 9]
DCA = [nan, 1.0, 1.0, 1.0, 1.0, 3.5, 4.5, 4.5, 4.5, 1.0]  # so that 4 and 9 are key tokens
YARN = [nan, 1.0, 1.0, 1.0, 2.0, 4.0, 4.0, 4.0, 4.0, 3.0]
DOCUMENTS = 6
CHOICE = Choice(evaluators=("dca",))


def tables(*methods: tuple[str, list[float]]) -> dict[str, pd.DataFrame]:
    cells = [cell([own] * DOCUMENTS, ids=[IDS] * DOCUMENTS, method=name) for name, own in methods]
    one = load(*cells, short([WIDE] * DOCUMENTS, ids=[IDS] * DOCUMENTS))
    return {"rows": one("windows"), "tokens": one("tokens")}


def test_every_metric_by_hand() -> None:
    """Tokens from 4 on have a short window of 5 nats each."""
    table = harness.long_context(**tables(("dca", DCA), ("yarn", YARN)), choice=CHOICE).set_index("method")
    yarn = table.loc["yarn"]
    assert yarn["perplexity"] == pytest.approx(exp((2 + 4 * 4 + 3) / 6))
    assert yarn["longppl"] == pytest.approx(exp((2 + 3) / 2))
    assert yarn["far_copies"] == pytest.approx(exp(3))
    assert yarn["gain"] == pytest.approx(exp(5 - 21 / 6))
    assert yarn["gain"] == pytest.approx(yarn["perplexity_short_windows"] / yarn["perplexity"])
    for name, count in (("perplexity", 6), ("longppl", 2), ("far_copies", 1), ("gain", 6)):
        assert yarn[f"{name}_num_scored"] == DOCUMENTS * count
        assert yarn[f"{name}_num_documents"] == DOCUMENTS
        assert yarn[f"{name}_low"] == yarn[f"{name}_high"] == pytest.approx(yarn[name])  # all documents alike
    for name in ("perplexity", "longppl", "far_copies"):
        assert yarn[f"{name}_short_windows"] == pytest.approx(exp(5))
    assert yarn["longppl_note"] == "key tokens by dca"
    assert is_evaluator(table.reset_index(), CHOICE).tolist() == [True, False]


def test_what_no_cell_has_is_nan_and_said(caplog: pytest.LogCaptureFixture) -> None:
    table = harness.long_context(**tables(("dca", YARN)), choice=Choice(evaluators=("dca",), max_nll=0.5, near=9))
    assert isnan(table["longppl"].item())
    assert isnan(table["far_copies"].item())
    assert table["perplexity"].item() > 0
    assert "no LongPPL: There are no key tokens by dca in tiny dca" in caplog.text
    assert "no perplexity of far copies: There are no far copies of order 2 in tiny dca" in caplog.text
    text = long_context_text(table, CHOICE)
    assert "LongPPL: none of these cells has any" in text
    (line,) = (line.split() for line in text.splitlines() if line.startswith("dca"))
    assert line[5:7] == ["-", "-"]


def test_mistakes_are_errors() -> None:
    with pytest.raises(UserError, match="Unknown evaluator 'dac'"):
        harness.long_context(**tables(("dca", DCA)), choice=Choice(evaluators=("dac",)))
    with pytest.raises(UserError, match="There are no short windows to compare with"):
        harness.long_context(*map(load(cell([DCA])), ("windows", "tokens")), choice=CHOICE)


def test_printed_with_control_counts_and_who_is_favoured() -> None:
    text = long_context_text(harness.long_context(**tables(("dca", DCA), ("yarn", YARN)), choice=CHOICE), CHOICE)
    assert text.splitlines() == [
        "use of context: tiny, books, ctx 10",
        "                         perplexity               LongPPL            far copies                  gain",
        "short windows                 148.4                 148.4                 148.4                      ",
        "dca *          23.73 [23.73, 23.73]  2.718 [2.718, 2.718]  2.718 [2.718, 2.718]  6.255 [6.255, 6.255]",
        "yarn           33.12 [33.12, 33.12]  12.18 [12.18, 12.18]  20.09 [20.09, 20.09]  4.482 [4.482, 4.482]",
        "LongPPL: key tokens by dca: 12 at 10, in 6 documents",
        "perplexity of far copies: far copies of order 2, none within 6 tokens: 6 at 10, in 6 documents",
        "gain of context: tokens behind 4 to 5 others in short windows: 36 at 10, in 6 documents",
        "* chose key tokens by its own losses, and is favoured by LongPPL",
    ]


def test_in_context_score_is_late_less_early() -> None:
    """Bins that hold positions 50 and 500, a mean over tokens within a document, paired over documents."""
    rows = synthetic.positions(synthetic.cell("yarn", 1024, num_windows=1))
    table = in_context_score(rows)
    early, late = (rows[(rows["position_begin"] <= at) & (rows["position_end"] > at)] for at in (50, 500))
    means = [one["nll_sum"].sum() / one["num_scored"].sum() for one in (early, late)]
    assert table["in_context_score"].item() == pytest.approx(means[1] - means[0])
    assert table["low"].item() == pytest.approx(table["high"].item())  # a document's difficulty falls out
    assert table["num_scored"].item() == early["num_scored"].sum() + late["num_scored"].sum()


def test_in_context_score_by_hand() -> None:
    """Two documents: 3 - 1 = 2 and 4 - 5 = -1 nats; a third without a late bin does not count."""
    whole = synthetic.positions(synthetic.cell("yarn", 1024, num_windows=1))
    rows = whole[whole["document_index"] < 3].copy()
    early, late = ((rows["position_begin"] <= at) & (rows["position_end"] > at) for at in (50, 500))
    for document, before, after in ((0, 1.0, 3.0), (1, 5.0, 4.0), (2, 9.0, 9.0)):
        own = rows["document_index"] == document
        rows.loc[own & early, "nll_sum"] = before * rows.loc[own & early, "num_scored"]
        rows.loc[own & late, "nll_sum"] = after * rows.loc[own & late, "num_scored"]
    table = in_context_score(rows[~(late & (rows["document_index"] == 2))])
    assert table["in_context_score"].item() == pytest.approx(0.5)
    assert table["num_documents"].item() == 2


def test_in_context_score_of_short_windows_is_said_to_be_none() -> None:
    rows = synthetic.positions(synthetic.cell("yarn", 256, num_windows=1))
    with pytest.raises(UserError, match="in_context_score needs windows of more than 500 tokens; the longest .* 2"):
        in_context_score(rows)


def test_in_context_score_stands_in_the_table() -> None:
    made = tables(("dca", DCA))
    positions = synthetic.positions(synthetic.cell("yarn", 1024, num_windows=1))
    positions["cell_id"] = made["rows"]["cell_id"].iloc[0]
    table = harness.long_context(**made, positions=positions, choice=CHOICE)
    expected = in_context_score(positions)["in_context_score"].item()
    assert table["in_context_score"].item() == pytest.approx(expected)
    assert np.isfinite(table[["in_context_score_low", "in_context_score_high"]].to_numpy()).all()
    assert log(table["gain"].item()) > 0
    text = long_context_text(table, CHOICE)
    assert "in context" in text.splitlines()[1]
    assert "in-context-learning score (nats): loss at position 500 less loss at 50" in text
