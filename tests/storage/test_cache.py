"""The cache only saves time: whatever lies in place of an entry, the same comes out, and nothing is waited for."""

import os
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.data import documents
from harness.data.sources import DataSpec
from harness.models.checkpoint.header import header
from harness.models.checkpoint.load import load_tokenizer
from harness.models.checkpoint.spec import ModelSpec
from harness.storage import cache
from harness.training import stream

BOOK = "One of many lines that a book may have.\n" * 20
KINDS = {"documents", "hashes", "headers", "streams"}
LONGEST_S = 20

OTHERS = {
    "fifo": os.mkfifo,
    "directory": os.mkdir,
    "endless": lambda file: os.symlink("/dev/zero", file),
    "dangling": lambda file: os.symlink("/nonexistent/file", file),
    "empty": Path.touch,
    "bytes": lambda file: file.write_bytes(b"\xff\xfe\0 no entry"),
    "json_of_a_list": lambda file: file.write_bytes(b"[1]"),
}


@pytest.fixture
def read(own_cache, tmp_path, monkeypatch):
    """Everything that is kept in the cache, read: hash, header, documents, stream of tokens."""
    monkeypatch.setattr(cache, "SETTLED_NS", 0)  # hashes of files just written are kept, too
    (tmp_path / "book.txt").write_text(BOOK)
    spec = ModelSpec(name="reference", package="harness.models.reference")
    tokenizer = load_tokenizer(spec)
    data = DataSpec(name="text", path=str(tmp_path / "book.txt"), num_documents=1)

    def read():
        found = documents.load(data, tokenizer, "t")
        tokens = stream.joined({"book": BOOK}, tokenizer)
        return cache.file_hash(tmp_path / "book.txt"), header(spec).fingerprint, found.fingerprint, tokens.tolist()

    return read


@pytest.mark.parametrize("other", OTHERS)
def test_what_is_no_entry_changes_nothing(read, other):
    expected = read()
    entries = [file for file in cache.root().rglob("*") if file.is_file()]
    assert {file.parent.name for file in entries} == KINDS
    for file in entries:
        file.unlink()
        OTHERS[other](file)
    with no_longer_than(LONGEST_S):
        assert read() == expected


def test_a_shortened_entry_is_made_anew(read):
    expected = read()
    for file in cache.root().rglob("*"):
        if file.is_file():
            os.truncate(file, file.stat().st_size // 2)
    assert read() == expected


@contextmanager
def no_longer_than(seconds):
    def late(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
