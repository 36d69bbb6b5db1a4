"""What several test files share."""

import pytest

from tests.sweeps import Place


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """Derived files of this test stay in its own folder."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def place(tmp_path, own_cache):
    """A tiny model and four documents of 160 tokens, with results of their own."""
    return Place(tmp_path)
