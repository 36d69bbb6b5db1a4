import pytest

from harness.models.attention import tiles


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setitem(tiles.BLOCK_ROWS, "cpu", 16)
