"""Where a file lies, in as many words as tell it from its namesakes."""

import pytest

from harness.storage.places import folders_above


@pytest.mark.parametrize(
    ("path", "shown", "expected"),
    [
        ("/data/a/book.txt", 1, "data/a"),
        ("/a/b/c/d/e/book.txt", 1, "b/c/d/e"),
        ("/a/b/c/d/e/run/last", 2, "b/c/d/e"),
        ("/home/someone/texts/book.txt", 1, "texts"),
        ("/home/someone/book.txt", 1, ""),
        ("/home/someoneelse/book.txt", 1, "home/someoneelse"),
        ("/book.txt", 1, ""),
        ("/", 1, ""),
        ("book.txt", 1, ""),
        ("../a/./book.txt", 1, "a"),
        ("/data//a/../b/books/", 1, "data/b"),
    ],
)
def test_folders_above(monkeypatch, path, shown, expected):
    monkeypatch.setenv("HOME", "/home/someone")
    assert folders_above(path, shown) == expected
