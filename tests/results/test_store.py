"""Results on disk: whole or not there; what is no result is set aside once; what the system refuses is one line."""

import errno
import io
import os
import subprocess
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from harness.errors import UserError
from harness.results import checked, parquet, schema, store
from harness.storage.files import StorageError, remove_temporary, write_atomically
from tests.synthetic import identifying

COLUMNS = identifying(cell_id="0123456789abcdef", model="m", method="yarn", factor=2.0, ctx=64)
PROVENANCE = {"run_id": "first", "device": "cpu"}


def windows(nll=1.5, count=3):
    return pd.DataFrame(
        {
            "document": [f"d{i}" for i in range(count)],
            "document_index": range(count),
            "window": 0,
            "begin": 0,
            "end": 64,
            "score_from": 1,
            "bos": False,
            "num_scored": 63,
            "nll_sum": nll + np.arange(count) / 3,
            "weight": 1.0,
            "num_bytes": 100,
            "num_words": 20,
            "num_top1": 7,
            "depth": 0.5,
            "repeat": 3,
            "right": True,
        }
    )


def write(results, **changes):
    return store.write(results, COLUMNS | changes, {"windows": windows()}, PROVENANCE)


def is_finished(results, **options):
    return store.is_finished(store.place(results, COLUMNS), ["windows"], **options)


def test_rows_read_back_as_written(tmp_path):
    write(tmp_path)
    rows = store.load_results(tmp_path)
    expected = windows().assign(**{k: v for k, v in COLUMNS.items() if v is not None})
    for column in expected:
        assert rows[column].tolist() == expected[column].tolist(), column
    assert list(rows.columns) == schema.arrow("windows").names
    assert store.provenance(store.table_file(store.place(tmp_path, COLUMNS))) == PROVENANCE


def test_a_cell_is_finished_when_every_table_is_there_and_by_the_run_that_is_asked_for(tmp_path):
    assert not is_finished(tmp_path)
    write(tmp_path)
    assert is_finished(tmp_path)
    assert not store.is_finished(store.place(tmp_path, COLUMNS), ["windows", "tokens"])
    assert is_finished(tmp_path, run_id="first")
    assert not is_finished(tmp_path, run_id="second")


def test_a_cell_that_is_killed_between_its_tables_is_not_finished(tmp_path, monkeypatch):
    tables = {"windows": windows(), "tokens": pd.DataFrame({"document": ["d"], "document_index": 0, "window": 0,
              "token": 1, "nll": np.float32(1), "top1": True, "token_id": 5, "previous_id": 4, "byte_begin": 3,
              "byte_end": 9, "base_nll": None, "kl": None, "same_top": None, "delta_p": None})}  # fmt: skip
    whole = store.write_atomically

    def dying(file, fill):
        whole(file, fill)
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "write_atomically", dying)
    with pytest.raises(KeyboardInterrupt):
        store.write(tmp_path, COLUMNS, tables, PROVENANCE)
    assert len(list(tmp_path.rglob("*.parquet"))) == 1
    assert not is_finished(tmp_path)


def truncated(file):
    file.write_bytes(file.read_bytes()[:-100])


def one_byte_wrong(file):
    content = bytearray(file.read_bytes())
    content[120] ^= 0xFF  # inside the first data page
    file.write_bytes(content)


def foreign(file):
    pd.DataFrame({"a": [1]}).to_parquet(file)


def of_another_cell(file):
    other = store.write(file.parents[3] / "other", COLUMNS | {"cell_id": "f" * 16}, {"windows": windows()}, PROVENANCE)
    other.rename(file)


def empty(file):
    file.write_bytes(b"")


def a_folder(file):
    file.unlink()
    file.mkdir()


def a_fifo(file):
    file.unlink()
    os.mkfifo(file)


def of_no_provenance(file):
    table = pq.read_table(file)
    pq.write_table(table.replace_schema_metadata({"cell_id": COLUMNS["cell_id"]}), file)


def without_rows(file):
    pq.write_table(pq.read_table(file).slice(0, 0), file)


def lacking_a_column(file):
    pq.write_table(pq.read_table(file).drop_columns("num_bytes"), file)


def renamed(file):
    """As one flipped bit in the footer leaves it."""
    content = file.read_bytes()
    assert content.count(b"num_scored") > 1
    at = content.index(b"num_scored")  # of the schema; places of its pages follow
    file.write_bytes(content[:at] + b"num_scorec" + content[at + 10 :])


def of_another_table(file):
    content = pq.read_table(file)
    only = [c.name for c in schema.columns("positions") if c.name in content.schema.names]
    pq.write_table(content.select(only), file)


SEEN_IN_THE_FOOTER = [
    (truncated, "Parquet magic bytes not found"),
    (foreign, "it is not of the cell"),
    (of_another_cell, "it is not of the cell"),
    (of_no_provenance, "it does not say how it was made"),
    (empty, "Parquet file size is 0 bytes"),
    (a_folder, "it is a directory"),
    (a_fifo, "it is a FIFO"),
    (without_rows, "it has no rows"),
    (of_another_table, "it lacks the column "),
    (renamed, "it lacks the column num_scored"),
    (lacking_a_column, f"it lacks the column num_bytes, which files of schema version {schema.version()} have"),
]
DAMAGES = [*SEEN_IN_THE_FOOTER, (one_byte_wrong, "CRC checksum verification failed")]


def set_aside(results, tables=("windows",)):
    store.set_damaged_aside((store.place(results, COLUMNS), table) for table in tables)


def everything(folder):
    """What lies in a folder: names, kinds, contents and times of change."""
    return {
        f: (f.lstat().st_mode, f.lstat().st_mtime_ns, f.read_bytes() if f.is_file() else None)
        for f in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize(("damage", "reason"), SEEN_IN_THE_FOOTER)
def test_what_is_no_result_is_not_finished_and_asking_changes_nothing(tmp_path, caplog, damage, reason):
    results = tmp_path / "results"
    damage(write(results))
    before = everything(results)
    assert not is_finished(results)
    assert not store.is_finished(store.place(results, COLUMNS), ["positions", "windows"])
    assert everything(results) == before
    assert not caplog.records


def test_a_whole_cell_is_not_changed_by_asking_or_by_the_start_of_a_run(tmp_path, caplog):
    write(tmp_path)
    before = everything(tmp_path)
    assert is_finished(tmp_path)
    set_aside(tmp_path, ["windows", "positions"])
    assert everything(tmp_path) == before
    assert not caplog.records


@pytest.mark.parametrize(("damage", "reason"), DAMAGES)
def test_what_is_no_result_is_set_aside_at_the_start_of_a_run_in_one_line(tmp_path, caplog, damage, reason):
    results = tmp_path / "results"
    file = write(results)
    damage(file)
    set_aside(results)
    (line,) = caplog.messages
    assert line.startswith(f"{file} is not a results file (")
    assert reason in line
    assert "\n" not in line
    (aside,) = file.parent.glob("*set-aside*")
    assert line.endswith(f"set aside as {aside.name}")
    assert not file.exists()
    set_aside(results)
    assert not is_finished(results)
    write(results)
    assert is_finished(results)
    assert aside.exists()
    assert len(store.load_results(results)) == 3


def test_whether_a_cell_is_finished_is_known_from_its_footer(tmp_path, monkeypatch):
    write(tmp_path)
    for name in ("read", "read_row_group", "read_row_groups", "iter_batches"):
        monkeypatch.setattr(pq.ParquetFile, name, lambda *a, **k: pytest.fail("rows were read"))
    assert is_finished(tmp_path)


def refusing(file, number):
    """What `Path.open` is while the system refuses one file."""
    usual = Path.open

    def opening(self, *args, **options):
        if self == file:
            raise OSError(number, os.strerror(number), str(self))
        return usual(self, *args, **options)

    return opening


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE, errno.ESTALE])
def test_what_the_system_does_not_let_us_read_is_one_line_and_no_damage(tmp_path, monkeypatch, caplog, number):
    file = write(tmp_path)
    monkeypatch.setattr(Path, "open", refusing(file, number))
    for asking in (is_finished, set_aside, store.load_results, lambda results: store.provenance(file)):
        with pytest.raises(StorageError) as raised:
            asking(tmp_path)
        assert str(raised.value) == f"results cannot be read from {str(file)!r}: {os.strerror(number)}"
    assert [f.name for f in file.parent.iterdir()] == [file.name]
    assert not caplog.records


def test_a_disk_that_fails_in_the_middle_of_a_file_is_no_damage(tmp_path, monkeypatch):
    file = write(tmp_path)

    class Failing(io.FileIO):
        def read(self, *args):
            if self.tell() < 1000:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().read(*args)

    monkeypatch.setattr(Path, "open", lambda self, *args: Failing(self))
    for asking in (set_aside, store.load_results):
        with pytest.raises(StorageError, match="Input/output error"):
            asking(tmp_path)
    assert [f.name for f in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize(("damage", "reason"), [d for d in DAMAGES if d[0] not in (of_another_cell, of_no_provenance)])
def test_readers_name_and_leave_out_what_is_no_result(tmp_path, caplog, damage, reason):
    good = write(tmp_path)
    bad = good.with_name("notes.windows.parquet")
    bad.write_bytes(good.read_bytes())
    damage(bad)
    assert len(store.load_results(tmp_path)) == 3
    (line,) = caplog.messages
    assert line.startswith(f"{bad} is not a results file (")
    assert line.endswith("); left out")
    assert damage is foreign or reason in line
    assert bad.exists()


def test_nothing_to_read_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no finished cells"):
        store.load_results(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        store.load_results(tmp_path / "absent")
    with pytest.raises(UserError, match="Unknown table 'window'. Did you mean 'windows'?"):
        store.load_results(tmp_path, "window")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="must be a directory or a file, got .*pipe', which is a FIFO"):
        store.load_results(tmp_path / "pipe")


@pytest.mark.parametrize("name", ["../../outside", "/etc/passwd", ".hidden", "a b;rm -rf", "x" * 300, ""])
def test_names_never_leave_the_results(tmp_path, name):
    results = tmp_path / "results"
    file = write(results, model=name, method=name)
    assert file.resolve().is_relative_to(results.resolve())
    assert len(file.relative_to(results).parts) == 3
    assert not any(part.startswith(".") for part in file.relative_to(results).parts)


def test_writers_of_one_cell_leave_one_whole_file_and_readers_see_no_half(tmp_path):
    file = write(tmp_path)
    stop = threading.Event()
    seen = []

    def read():
        while not stop.is_set():
            seen.append(len(store.load_results(file)))

    reader = threading.Thread(target=read)
    reader.start()
    writers = [threading.Thread(target=lambda: [write(tmp_path) for _ in range(10)]) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    stop.set()
    reader.join()
    assert set(seen) == {3}
    assert [f.name for f in file.parent.iterdir()] == [file.name]


def test_a_writer_that_breaks_leaves_what_was_there(tmp_path):
    file = tmp_path / "a"
    file.write_text("old")

    def half(stream):
        stream.write(b"ne")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_atomically(file, half)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_leftovers_of_killed_writers_are_found_by_name(tmp_path):
    for name in (".cell1.windows.parquet.x7", ".cell1.log.yy", ".cell2.log.yy", "cell1.log"):
        (tmp_path / name).touch()
    remove_temporary(tmp_path, "cell1")
    assert sorted(f.name for f in tmp_path.iterdir()) == [".cell2.log.yy", "cell1.log"]


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_one_line_and_harms_nothing(small_disk):
    file = write(small_disk)
    with (small_disk / "filler").open("wb", buffering=0) as filler:
        while True:
            try:
                filler.write(b"x" * 4096)
            except OSError:
                break
    with pytest.raises(StorageError, match="cannot be written to .*No space left on device") as raised:
        store.write(small_disk, COLUMNS, {"windows": windows(2.5, 3000)}, PROVENANCE)
    assert "\n" not in str(raised.value)
    assert [f.name for f in file.parent.iterdir()] == [file.name]
    assert store.load_results(small_disk)["nll_sum"].tolist() == windows()["nll_sum"].tolist()


def test_a_read_only_disk_is_one_line(small_disk):
    write(small_disk)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(StorageError, match="Read-only file system"):
        store.check_writable(small_disk)
    with pytest.raises(StorageError, match="Read-only file system"):
        write(small_disk)
    assert is_finished(small_disk)


def test_a_folder_without_permission_is_one_line(tmp_path):
    file = tmp_path / "results"
    file.write_text("a file, not a folder")
    with pytest.raises(StorageError, match="cannot be written to"):
        store.check_writable(file)


def test_files_get_the_permissions_of_ordinary_files(tmp_path):
    old = os.umask(0o027)
    try:
        assert write(tmp_path).stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(old)


def test_windows_that_were_checked_are_not_read_again_and_changed_ones_are(tmp_path, monkeypatch):
    file = write(tmp_path)
    set_aside(tmp_path)
    read, before = [], parquet.read
    monkeypatch.setattr(parquet, "read", lambda path, table: read.append(path) or before(path, table))
    kept = store.load_results(tmp_path)
    assert read == []
    pd.testing.assert_frame_equal(store.load_results(tmp_path), kept)
    assert read == [file], "what was taken is forgotten"
    set_aside(tmp_path)
    content = pq.read_table(file)
    doubled = content.set_column(
        content.schema.get_field_index("nll_sum"), "nll_sum", pc.multiply(content["nll_sum"], 2.0)
    )
    pq.write_table(doubled.replace_schema_metadata(content.schema.metadata), file)
    assert store.load_results(tmp_path)["nll_sum"].tolist() == (2 * kept["nll_sum"]).tolist()


def test_what_is_remembered_of_a_check_is_bounded():
    kept, table = checked.Checked(most=100), pa.table({"x": list(range(10))})
    for name in ("a", "b"):
        kept.keep(Path(name), (1,), (None, table))  # 80 bytes each
    assert kept.free == 20
    assert [place.name for place, _ in kept._read] == ["a"]
