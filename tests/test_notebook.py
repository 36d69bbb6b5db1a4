"""`harness.run` and `harness.figure`: the same cells and files as the command line."""

import pytest
from matplotlib.figure import Figure

import harness
from harness.errors import UserError
from tests.sweeps import Place


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def given(place, **settings):
    """The settings that every command of a place has, as keywords."""
    words = dict(word.split("=", 1) for word in place.overrides)
    return words | settings


def test_run_gives_the_table_and_the_cells_of_the_command(place, capsys):
    table = harness.run(**given(place), method=["none", "linear"], ctx=[16, 32])
    assert sorted(zip(table["method"], table["ctx"], strict=True)) == [
        ("linear", 16), ("linear", 32), ("none", 16), ("none", 32),
    ]  # fmt: skip
    assert "4 cells: 4 computed, 0 found finished" in capsys.readouterr().out
    assert place.sweep("method=none,linear", "ctx=16,32").stdout.count("0 computed, 4 found finished") == 1
    again = harness.run(**given(place), method="none", ctx=16)
    assert list(again["perplexity"]) == list(table.query("method == 'none' and ctx == 16")["perplexity"])


def test_a_mistake_is_an_error_and_leaves_room_for_the_next(place):
    for _ in range(2):
        with pytest.raises(UserError, match="Unknown method 'yran'. Did you mean 'yarn'?"):
            harness.run(**given(place), method="yran")
    with pytest.raises(UserError, match="ctx"):
        harness.run(**given(place), ctx=[0])


def test_dry_run_computes_nothing(place):
    assert harness.run(**given(place), ctx=16, dry_run=True).empty
    assert not list(place.results.rglob("*.parquet"))


def test_failed_cells_raise_after_the_others(tmp_path):
    place = Place(tmp_path, poison_at=24)
    with pytest.raises(UserError, match="not all cells have a result"):
        harness.run(**given(place), ctx=[16, 32])
    assert len(harness.load_results(place.results)["ctx"].unique()) == 1


def test_figures_are_matplotlib_objects(place):
    harness.run(**given(place), method=["none", "linear"], ctx=[16, 32])
    drawn = harness.figure(results=place.results, where={"method": "linear"})
    assert isinstance(drawn, Figure)
    assert {line.get_label() for line in drawn.axes[0].get_lines()} >= {"linear"}
    with pytest.raises(UserError, match="Unknown figure 'perplexty'"):
        harness.figure("perplexty", place.results)
