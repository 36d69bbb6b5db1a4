"""Results on disk: whole or not there; what is no result is set aside by name; a full or read-only disk is one line."""

import os
import subprocess
import threading

import numpy as np
import pandas as pd
import pytest

from harness.errors import UserError
from harness.results import store
from harness.storage.files import StorageError, remove_temporary, write_atomically

COLUMNS = {
    "cell_id": "0123456789abcdef",
    "experiment": "",
    "model": "m",
    "model_revision": "",
    "method": "yarn",
    "method_params": "{}",
    "factor": 2.0,
    "original_max_position_embeddings": 32,
    "ctx": 64,
    "protocol": "single_pass",
    "protocol_params": "{}",
    "stride": None,
    "dataset": "d",
    "dataset_fingerprint": "f",
    "dtype": "float32",
}
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
    assert list(rows.columns) == store.SCHEMAS["windows"].names
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
              "token": 1, "nll": np.float32(1)})}  # fmt: skip
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


@pytest.mark.parametrize("damage", [truncated, one_byte_wrong, foreign, of_another_cell, empty, a_folder])
def test_what_is_no_result_is_named_and_set_aside(tmp_path, caplog, damage):
    results = tmp_path / "results"
    file = write(results)
    damage(file)
    assert not is_finished(results)
    assert str(file) in caplog.text
    assert "set aside" in caplog.text
    (aside,) = file.parent.glob("*set-aside*")
    assert not file.exists()
    assert not is_finished(results)
    write(results)
    assert is_finished(results)
    assert aside.exists()
    assert len(store.load_results(results)) == 3


def test_readers_name_and_leave_out_what_is_no_result(tmp_path, caplog):
    good = write(tmp_path)
    bad = good.with_name("notes.windows.parquet")
    bad.write_text("hello")
    assert len(store.load_results(tmp_path)) == 3
    assert str(bad) in caplog.text
    assert bad.exists()


def test_nothing_to_read_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no finished cells"):
        store.load_results(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        store.load_results(tmp_path / "absent")


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
