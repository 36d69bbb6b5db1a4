"""`harness.run` and `harness.figure`: the same cells and files as the command line."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import harness
from harness.errors import UserError, one_line
from tests import synthetic
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


CIRCLE: list[object] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    ("overrides", "settings", "words"),
    [
        ((5,), {}, "takes overrides as text"),
        ((["ctx=16"],), {}, "takes overrides as text"),
        (("ctx",), {}, "not of the form key=value"),
        (("-m",), {}, "not of the form key=value"),
        ((), {"metod": "yarn"}, "Unknown key 'metod'. Did you mean 'method'"),
        ((), {"ctx": "long"}, "ctx must be an integer"),
        ((), {"ctx": None}, "ctx must be an integer"),
        ((), {"ctx": []}, "ctx needs at least one value"),
        ((), {"ctx": range(0)}, "ctx needs at least one value"),
        ((), {"ctx": [[16, 32]]}, "ctx must be an integer"),
        ((), {"ctx": {"a": 1}}, "ctx"),
        ((), {"ctx": float("nan")}, "ctx must be an integer"),
        ((), {"ctx": 10**30}, "ctx must be below"),
        ((), {"ctx": object()}, "ctx must be text, numbers"),
        ((), {"ctx": CIRCLE}, "ctx must be text, numbers"),
        ((), {"method": ["none", print]}, "method must be text, numbers"),
        ((), {"method": "yarn\nlinear"}, "method"),
        ((), {"results_dir": ["a", "b"]}, "results_dir must be one directory"),
        ((), {"data.num_documents": "many"}, "data.num_documents must be an integer"),
    ],
)
def test_settings_that_nobody_means_are_mistakes(place, overrides, settings, words):
    with pytest.raises(UserError) as wrong:
        harness.run(*overrides, **given(place, **{"ctx": 16, "dry_run": True} | settings))
    assert words in str(wrong.value)
    assert "\n" not in one_line(wrong.value)


def test_arrays_ranges_and_paths_are_settings_like_lists_and_text(place):
    common = given(place, results_dir=place.results, dry_run=True)
    for ctx in (np.array([16, 32]), range(16, 33, 16), (np.int64(16), 32), pd.Series([16, 32])):
        assert harness.run(**common | {"ctx": ctx}).empty


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": 5}, "Unknown figure '5'"),
        ({"results": 5}, "results must be a directory or a file"),
        ({"results": "/nope"}, "does not exist"),
        ({"where": 5}, "where must have columns"),
        ({"where": {5: 5}}, "Unknown column (where) '5'"),
        ({"where": {"method": {"a": 1}}}, "where.method must be a value or a list of values"),
        ({"where": {"method": object()}}, "where.method must be a value or a list of values"),
        ({"metric": 5}, "Unknown metric '5'"),
        ({"baseline": ["none"], "name": "ratio"}, "Unknown baseline"),
        ({"nope": 1}, "Unknown choice 'nope'"),
        ({"evaluators": 5}, "evaluators must be names"),
        ({"min_gain": "x"}, "min_gain must be a number"),
        ({"order": "x"}, "order of far copies"),
    ],
)
def test_figures_of_what_is_not_there_are_mistakes(tmp_path, settings, words):
    synthetic.write(synthetic.sweep(("none", "yarn"), (512, 1024), 5), tmp_path)
    with pytest.raises(UserError) as wrong:
        harness.figure(**{"results": tmp_path} | settings)
    assert words in str(wrong.value)
