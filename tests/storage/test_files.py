"""Files that are whole or not there. A full, read-only or forbidden disk: tests/results/test_store.py."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.storage.files import StorageError, write_atomically, write_bytes, write_text


@pytest.mark.parametrize("sync", [True, False])
def test_content_is_kept_byte_for_byte(tmp_path: Path, sync: bool) -> None:
    write_bytes(tmp_path / "new" / "b", b"\0\r\n\xff", sync=sync)
    assert (tmp_path / "new" / "b").read_bytes() == b"\0\r\n\xff"
    write_text(tmp_path / "t", "naïve\r\n\n", sync=sync)
    assert (tmp_path / "t").read_bytes() == "naïve\r\n\n".encode()


def test_a_writer_that_fails_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "old")

    def half(stream):
        stream.write(b"new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file", half)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_nothing_is_seen_before_it_is_whole(tmp_path: Path) -> None:
    def looking(stream):
        stream.write(b"x")
        assert not (tmp_path / "file").exists()

    write_atomically(tmp_path / "file", looking)
    assert (tmp_path / "file").read_bytes() == b"x"


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="the report cannot be written to"):
        write_text(tmp_path / "file" / "below", "", what="the report")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_not_replaced(make: Callable[[Path], None], tmp_path: Path) -> None:
    """As root a rename would put a file in place of a device, /dev/null among them."""
    make(tmp_path / "place")
    with pytest.raises(StorageError, match="the report cannot be written to .*: place is no regular file"):
        write_text(tmp_path / "place", "text", what="the report")
    assert [path.name for path in tmp_path.iterdir()] == ["place"]
    assert not (tmp_path / "place").is_file()


def test_a_link_to_nothing_may_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "place").symlink_to(tmp_path / "gone")
    write_text(tmp_path / "place", "text")
    assert (tmp_path / "place").read_text() == "text"
