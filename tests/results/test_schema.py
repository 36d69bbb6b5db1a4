"""Results that grow: files of before stay readable and finished, whatever column or table is added.

`version_1` holds a cell as the harness wrote it before its schema knew versions (windows of 16 tokens, two documents of
40), and in `expected.json` what it read back from it.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from harness import load_results, summarize
from harness.data.documents import Document
from harness.data.scores import Scores
from harness.data.windows import Window
from harness.results import rows, schema, store
from harness.results.schema import REAL, SUMS, TEXT, WINDOWS, Column, Table
from harness.runs import runner
from harness.statistics.before_after import EXACT
from harness.statistics.lines import PANEL
from harness.statistics.summary import DOCUMENT, loss_by_position
from harness.statistics.windows_differ import WINDOW

OLD = Path(__file__).parent / "version_1"
EXPECTED = json.loads((OLD / "expected.json").read_text())
YOUNGER = [column.name for column in schema.COLUMNS if column.since > 1]
COLUMNS = dict.fromkeys(name for name in YOUNGER if name in schema.cell_columns()) | json.loads(
    (OLD / "columns.json").read_text()
)
NEXT = schema.version() + 1
TABLES = ["windows", "positions", "tokens"]
LARGEST = Column("nll_max", REAL, WINDOWS, "the largest loss, nats", lambda u: float(u.nll.max()), since=NEXT)
SEED = Column("seed", TEXT, SUMS, "of the sample", lambda c: f"seed {c.config.seed}", of_cell=True, since=NEXT)


@pytest.fixture
def old(tmp_path):
    """A folder of results with the cell of before."""
    return Path(shutil.copytree(OLD, tmp_path / "old"))


def cell(results):
    return store.place(results, COLUMNS)


def add(monkeypatch, *added):
    """The schema as it is after these entries."""
    columns = [one for one in added if isinstance(one, Column)]
    tables = [one for one in added if isinstance(one, Table)]
    monkeypatch.setattr(schema, "COLUMNS", [*schema.COLUMNS, *columns])
    monkeypatch.setattr(schema, "TABLES", [*schema.TABLES, *tables])


def scored(results):
    """The losses and documents that the cell of before was made from."""
    windows, tokens = load_results(results), load_results(results, "tokens")
    found, documents = [], []
    for index, own in windows.groupby("document_index"):
        spans = [Window(w.begin, w.end, w.score_from, bos=w.bos, weight=w.weight) for w in own.itertuples(index=False)]
        losses = tokens[tokens["document_index"] == index].groupby("window")["nll"]
        found.append(Scores(int(index), spans, [nll.to_numpy() for _, nll in losses]))
        ends = np.full(41, -1)
        ends[own["score_from"].iloc[0]] = 0
        ends[own["end"]] = own["num_bytes"].cumsum()
        documents.append(Document(own["document"].iloc[0], np.zeros(40, np.int64), ends))
    return found, documents


def same(read, expected):
    """Whether rows are those of `expected.json` to the last bit, and know nothing of what is younger."""
    younger = [name for name in YOUNGER if name in read]
    assert read[younger].isna().all(axis=None)
    read = read.drop(columns=younger)
    assert {name: str(dtype) for name, dtype in read.dtypes.items()} == expected["dtypes"]
    values = [[None if v != v else v for v in row] for row in read.astype(object).to_numpy().tolist()]
    return values == expected["rows"]


@pytest.mark.parametrize("table", TABLES)
def test_a_file_of_before_reads_as_it_did(old, table, caplog):
    assert same(load_results(old, table), EXPECTED[table])
    assert same(load_results(store.table_file(cell(old), table), table), EXPECTED[table])
    assert not caplog.records


def test_a_cell_of_before_is_finished(old, caplog):
    assert store.is_finished(cell(old), TABLES)
    assert store.is_finished(cell(old), TABLES, run_id="run")
    assert not store.is_finished(cell(old), TABLES, run_id="another")
    store.set_damaged_aside((cell(old), table) for table in TABLES)
    assert not caplog.records


@pytest.mark.parametrize("table", TABLES)
def test_rows_of_the_same_losses_are_those_of_before(old, table):
    made = rows.tables([table], *scored(old), 16)[table].drop(columns=YOUNGER, errors="ignore")
    read = load_results(old, table).drop(columns=YOUNGER, errors="ignore")
    constant = [name for name in schema.cell_columns() if name in read]
    assert list(made) == [name for name in read if name not in constant]
    pd.testing.assert_frame_equal(made, read.drop(columns=constant), check_exact=True)


@pytest.mark.parametrize("stamp", [None, b"1"])
def test_a_file_that_does_not_say_its_version_is_of_the_first(old, monkeypatch, stamp):
    file = store.table_file(cell(old))
    content = pq.read_table(file)
    metadata = {k: v for k, v in content.schema.metadata.items() if k != b"schema_version"}
    pq.write_table(content.replace_schema_metadata(metadata | ({b"schema_version": stamp} if stamp else {})), file)
    add(monkeypatch, LARGEST)
    assert same(load_results(old).drop(columns="nll_max"), EXPECTED["windows"])
    assert store.is_finished(cell(old), TABLES)


def test_a_new_column_is_one_entry(old, monkeypatch, caplog):
    before = schema.version()
    add(monkeypatch, LARGEST)
    assert schema.version() == before + 1
    assert store.is_finished(cell(old), TABLES)
    read = load_results(old)
    assert read["nll_max"].isna().all()
    assert same(read.drop(columns="nll_max"), EXPECTED["windows"])
    found, documents = scored(old)
    made = rows.tables(TABLES, found, documents, 16)
    store.write(old, COLUMNS | {"cell_id": "f" * 16}, made, {"run_id": "new"})
    both = load_results(old).groupby("cell_id")["nll_max"]
    assert both.get_group("f" * 16).tolist() == [float(nll.max()) for s in found for nll in s.nll]
    assert both.get_group(COLUMNS["cell_id"]).isna().all()
    assert len(summarize(load_results(old))) == 2
    assert not caplog.records


def test_a_new_column_of_cells_is_one_entry_from_configuration_to_summary(place, monkeypatch, caplog):
    (before,) = place.prepared("method=none ctx=32")
    runner.run([before])
    add(monkeypatch, SEED)
    (same_cell, other) = place.prepared("method=none ctx=32", "method=yarn ctx=64")
    assert same_cell.cell.cell_id == before.cell.cell_id
    assert [o.status for o in runner.run([same_cell, other])] == ["finished", "computed"]
    seeds = summarize(load_results(place.results)).set_index("method")["seed"]
    assert seeds["yarn"] == "seed 0"
    assert pd.isna(seeds["none"])
    assert set(loss_by_position(load_results(place.results, "positions"))["seed"].dropna()) == {"seed 0"}


def test_a_new_table_is_one_entry(place, monkeypatch):
    (before,) = place.prepared("method=none ctx=32")
    runner.run([before])
    add(
        monkeypatch,
        Table("documents", "a window again", lambda *of: schema.scored_windows(*of), ("nll_sum",), since=NEXT),
    )
    (same_cell, other) = place.prepared("method=none ctx=32", "method=yarn ctx=64")
    assert [o.status for o in runner.run([same_cell, other])] == ["finished", "computed"]
    read = load_results(place.results, "documents")
    assert list(read) == ["cell_id", "document", "document_index", "nll_sum"]
    assert set(read["cell_id"]) == {other.cell.cell_id}
    store.table_file(other.files.place, "documents").unlink()
    assert not other.files.is_finished()  # its files are of the version that has the table
    assert same_cell.files.is_finished()


def lack(file, column):
    pq.write_table(pq.read_table(file).drop_columns(column), file)


@pytest.mark.parametrize("table", TABLES)
def test_a_column_too_few_that_is_not_newer_is_refused_by_all(old, table, caplog):
    for column in schema.arrow(table).names:
        shutil.rmtree(old)
        shutil.copytree(OLD, old)
        file = store.table_file(cell(old), table)
        lack(file, [name for name in (column,) if name not in YOUNGER])
        if column in YOUNGER:
            assert store.is_finished(cell(old), TABLES)
            continue
        assert not store.is_finished(cell(old), TABLES)
        with pytest.raises(ValueError, match="no finished cells"):
            load_results(old, table)
        reason = f"it lacks the column {column}, which files of schema version 1 have"
        assert f"{file} is not a results file ({reason}); left out" in caplog.messages
        store.set_damaged_aside((cell(old), table) for table in TABLES)
        assert not file.exists()


def test_a_column_that_the_version_of_the_file_has_must_be_there(old, monkeypatch):
    add(monkeypatch, LARGEST)
    store.write(old, COLUMNS, rows.tables(TABLES, *scored(old), 16), {"run_id": "new"})
    assert store.is_finished(cell(old), TABLES)
    lack(store.table_file(cell(old)), "nll_max")
    assert not store.is_finished(cell(old), TABLES)
    with pytest.raises(ValueError, match="no finished cells"):
        load_results(old)


def test_a_newer_file_is_read_as_far_as_it_is_known_and_said(old, monkeypatch, caplog):
    with monkeypatch.context() as later:
        add(later, LARGEST)
        store.write(old, COLUMNS, rows.tables(TABLES, *scored(old), 16), {"run_id": "new"})
    assert store.is_finished(cell(old), TABLES)
    assert same(load_results(old), EXPECTED["windows"])
    assert caplog.messages == [
        f"1 of 1 files are of a newer harness (schema version {NEXT}, this one knows {NEXT - 1}); left out: nll_max"
    ]


@pytest.mark.parametrize("stamp", [b"two", b""])
def test_a_version_that_is_no_number_is_refused_by_all(old, stamp):
    file = store.table_file(cell(old))
    content = pq.read_table(file)
    pq.write_table(content.replace_schema_metadata(content.schema.metadata | {b"schema_version": stamp}), file)
    assert not store.is_finished(cell(old), TABLES)
    with pytest.raises(ValueError, match="no finished cells"):
        load_results(old)


def test_a_column_of_another_type_is_refused_by_all(old, caplog):
    file = store.table_file(cell(old))
    content = pq.read_table(file)
    changed = content.set_column(content.column_names.index("nll_sum"), "nll_sum", content["nll_sum"].cast(TEXT))
    pq.write_table(changed, file)
    assert not store.is_finished(cell(old), TABLES)
    with pytest.raises(ValueError, match="no finished cells"):
        load_results(old)
    assert "its column nll_sum is of type string, not double" in caplog.text


def test_every_column_is_declared_once_and_in_a_table_that_exists():
    names = [column.name for column in schema.COLUMNS]
    assert len(set(names)) == len(names)
    assert {table for column in schema.COLUMNS for table in column.tables} <= set(schema.table_names())
    assert schema.writing_order(schema.table_names())[-1] == "windows"


def test_what_statistics_groups_by_are_columns():
    assert {*PANEL, *EXACT} <= set(schema.cell_columns())
    assert {*WINDOW, *DOCUMENT} <= set(schema.arrow("windows").names)
