"""The table to decide by: paired ratios, the best where intervals support it, effective lengths; and its formats."""

import io
import json

import numpy as np
import pandas as pd
import pytest

from harness.errors import UserError
from harness.statistics.context_length import effective_context_length
from harness.statistics.decision import Terms, decide
from harness.statistics.format_names import FORMATS, check_format
from harness.statistics.formats import formatted
from harness.statistics.paired import pair
from tests import synthetic


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return synthetic.sweep(lengths=(256, 1024), num_documents=6)


@pytest.fixture(scope="module")
def table(rows: pd.DataFrame) -> pd.DataFrame:
    return decide(rows)


def cell(table: pd.DataFrame, curve: str, ctx: int) -> pd.Series:
    return table[(table["curve"] == curve) & (table["ctx"] == ctx)].iloc[0]


def of(rows: pd.DataFrame, method: str, ctx: int) -> pd.DataFrame:
    return rows[(rows["method"] == method) & (rows["ctx"] == ctx)]


def test_ratios_are_those_of_pairs(rows: pd.DataFrame, table: pd.DataFrame) -> None:
    expected = pair(of(rows, "none", 1024), of(rows, "yarn", 1024))
    found = cell(table, "yarn", 1024)
    assert (found["ratio"], found["ratio_low"], found["ratio_high"]) == expected[:3]
    assert np.isnan(cell(table, "none", 1024)["ratio"])


def test_best_is_marked_where_every_interval_says_so(table: pd.DataFrame) -> None:
    assert list(table.loc[table["is_best"], "cell_id"]) == ["yarn-2.0-1024-6"]


def test_equal_lines_have_no_best(rows: pd.DataFrame) -> None:
    twin = of(rows, "yarn", 1024).assign(cell_id="twin", method="linear", method_params='{"factor": 2.0}')
    both = pd.concat([of(rows, "none", 1024), of(rows, "yarn", 1024), twin])
    assert not decide(both)["is_best"].any()


def test_few_documents_support_no_best(rows: pd.DataFrame) -> None:
    assert not decide(rows[rows["document_index"] < 4])["is_best"].any()


def test_cells_of_other_documents_have_no_ratio_and_spoil_no_table(rows: pd.DataFrame) -> None:
    mixed = pd.concat([rows, of(rows, "yarn", 1024).assign(cell_id="short", factor=4.0)])
    mixed = mixed[(mixed["cell_id"] != "short") | (mixed["document_index"] > 0)]
    found = decide(mixed).set_index("cell_id")
    assert np.isnan(found.loc["short", "ratio"])
    assert not found["is_best"].any()  # yarn cannot be compared with all others


def test_effective_lengths_are_those_of_lines(rows: pd.DataFrame, table: pd.DataFrame) -> None:
    expected = effective_context_length(rows).set_index("curve")
    for curve, line in table.groupby("curve"):
        assert set(line["effective_ctx"]) == {expected.loc[curve, "effective_ctx"]}
        assert set(line["effective_low"]) == {expected.loc[curve, "low"]}


def test_without_a_baseline_there_are_no_ratios(rows: pd.DataFrame) -> None:
    assert decide(rows, Terms(baseline="dca"))["ratio"].isna().all()
    assert "ratio" not in formatted(decide(rows, Terms(baseline="dca")), "text")


def test_text(table: pd.DataFrame) -> None:
    text = formatted(table, "text")
    assert text.startswith("perplexity: reference, sotu, sliding, stride 256\n(token aggregate, 95 % intervals over")
    lines = [line.split() for line in text.splitlines()]
    assert [line[0] for line in lines[4:8]] == ["none", "linear", "ntk", "yarn"]
    assert lines[2] == ["256", "1k", "effective"]
    assert text.count("*") == 2  # at the best, and what it means
    assert "at least 1k [1k, 1k]" in text
    assert "ratio to none, paired on the same documents:" in text


def test_few_documents_are_said_without_intervals(rows: pd.DataFrame) -> None:
    text = formatted(decide(rows[rows["document_index"] < 3]), "text")
    assert "3 documents" in text
    assert "[" not in text


def test_markdown_is_tables(table: pd.DataFrame) -> None:
    lines = formatted(table, "markdown").splitlines()
    assert lines[0].startswith("**perplexity: reference")
    assert lines[3] == "| method | 256 | 1k | effective |"
    assert lines[4] == "| --- | --- | --- | --- |"
    assert all(line.count("|") == 5 for line in lines[3:9])


def test_programs_get_every_number(table: pd.DataFrame) -> None:
    records = json.loads(formatted(table, "json"))
    assert [record["perplexity"] for record in records] == pytest.approx(list(table["perplexity"]), rel=1e-14)
    assert records[0]["ratio"] is None or isinstance(records[0]["ratio"], float)
    read = pd.read_csv(io.StringIO(formatted(table, "csv")))
    assert list(read["perplexity"]) == pytest.approx(list(table["perplexity"]))
    assert list(read.columns) == list(table.columns)


def test_formats_are_a_closed_list() -> None:
    assert [check_format(name) for name in FORMATS] == ["text", "markdown", "csv", "json"]
    with pytest.raises(UserError, match="Unknown format 'markdwon'. Did you mean 'markdown'?"):
        check_format("markdwon")
