"""Gain of context, by hand and by its definition; over lengths and against short windows."""

import logging
from math import exp, nan

import numpy as np
import pandas as pd
import pytest

from harness.errors import UserError
from harness.statistics.gain import GAIN
from harness.statistics.metric import PLAIN, Load
from harness.statistics.paired import paired
from harness.statistics.summary import summarize
from tests import synthetic
from tests.reference import long_context as reference
from tests.statistics.token_cells import cell, load, short

TARGETS = {"protocol": "fixed_targets", "protocol_params": '{"bos": "none", "num_targets": 4}', "stride": None}


def fixed(means: dict[int, float], method: str = "yarn") -> pd.DataFrame:
    """Documents whose targets have exactly these mean losses at each length, and a difficulty of their own."""
    cells = []
    for ctx, mean in means.items():
        rows = synthetic.cell(method, ctx, num_windows=1, **TARGETS).assign(num_scored=4)
        cells.append(rows.assign(nll_sum=4 * (mean + rows["document_index"])))
    return pd.concat(cells, ignore_index=True)


def windows_alone(rows: pd.DataFrame) -> Load:
    """Results without token rows."""

    def tables(name: str) -> pd.DataFrame:
        if name != "windows":
            raise UserError("no finished cells (*.tokens.parquet) under 'results'.")
        return rows

    return tables


def test_over_lengths_by_hand() -> None:
    """From 256 tokens to 1024 the targets lose half a nat; what makes a document hard falls out of the interval."""
    rows = fixed({256: 3.0, 1024: 2.5, 2048: 3.25})
    table = summarize(GAIN.rows(windows_alone(rows), PLAIN), metric=GAIN).set_index("ctx")
    assert table.index.tolist() == [1024, 2048]
    for ctx, gain in ((1024, exp(0.5)), (2048, exp(-0.25))):
        assert table.loc[ctx, ["gain", "low", "high"]].tolist() == pytest.approx([gain] * 3)
    assert table["note"].unique().tolist() == ["last tokens of documents, against a context of 256"]
    assert table.loc[1024, "num_scored"] == 4 * 8


def test_more_is_better() -> None:
    rows = pd.concat([fixed({256: 3.0, 1024: 2.0}), fixed({256: 3.0, 1024: 2.5}, "none")], ignore_index=True)
    ratio = paired(GAIN.rows(windows_alone(rows), PLAIN), "none", metric=GAIN).iloc[0]
    assert ratio["ratio"] == pytest.approx(exp(0.5))
    assert ratio["num_improved"] == 8


def test_one_length_has_no_gain() -> None:
    with pytest.raises(UserError, match=r"needs at least two lengths of protocol=fixed_targets, got ctx 256 alone\."):
        GAIN.rows(windows_alone(fixed({256: 3.0})), PLAIN)


def test_single_passes_that_cannot_gain_are_said_beside_those_that_do(caplog: pytest.LogCaptureFixture) -> None:
    rows = pd.concat([fixed({256: 3.0, 1024: 2.5}), synthetic.cell("yarn", 512, protocol="single_pass")])
    with caplog.at_level(logging.WARNING):
        assert GAIN.rows(windows_alone(rows), PLAIN)["ctx"].unique().tolist() == [1024]
    assert "gain of single passes is left out: Metrics of long contexts need token rows" in caplog.text


def test_other_documents_at_another_length_are_refused() -> None:
    rows = fixed({256: 3.0, 1024: 2.5})
    rows = rows[(rows["ctx"] == 1024) | (rows["document_index"] != 3)]
    with pytest.raises(UserError, match="gain needs the same documents at every length; ctx 256 and 1k of yarn"):
        GAIN.rows(windows_alone(rows), PLAIN)


def test_against_short_windows_by_its_definition() -> None:
    draw = np.random.default_rng(2)
    long, wide = (draw.exponential(2.0, (6, 20)).astype(np.float32).astype(float) for _ in range(2))
    losses = [[[nan, *row[1:].tolist()] for row in one] for one in (long, wide)]
    rows = GAIN.rows(load(cell(losses[0]), short(losses[1])), PLAIN)
    table = summarize(rows, metric=GAIN)
    places = [[{i: v for i, v in enumerate(row) if i} for row in one] for one in losses]
    assert table["gain"].item() == pytest.approx(reference.gain(places[0], places[1], 4), rel=1e-12)
    assert table["low"].item() < table["gain"].item() < table["high"].item()
    assert table["num_scored"].item() == 6 * 16
    assert table["note"].item() == "tokens behind 4 to 5 others in short windows"
