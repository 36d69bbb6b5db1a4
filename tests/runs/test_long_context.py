"""One command runs long and short windows and ends with what says whether the context is used."""

import pytest

import harness
from tests.sweeps import Place, run

CELLS = ("method=dca,yarn", "ctx=64,96", "save_tokens=true", "short_windows={ctx: 32, stride: 8}")


def tables_of(place: Place) -> set[tuple[str, str, int, bool]]:
    rows = harness.load_results(place.results)
    kept = set(harness.load_results(place.results, "tokens")["cell_id"])
    cells = rows.drop_duplicates("cell_id").to_dict("records")
    return {(c["protocol"], c["method"], c["ctx"], c["cell_id"] in kept) for c in cells}


LONG = {("single_pass", method, ctx, True) for method in ("dca", "yarn") for ctx in (64, 96)}


def test_short_windows_are_run_once_beside_all_single_passes(place):
    end = place.start(*CELLS).end()
    assert "5 cells: 5 computed, 0 found finished" in end.stdout, end.stderr
    assert tables_of(place) == LONG | {("sliding", "none", 32, True)}
    assert "use of context: tiny, text, texts.jsonl, ctx 64" in end.stdout
    assert "gain of context: tokens behind 24 to 31 others in short windows: 160 at 64" in end.stdout  # 4 x 40
    same = place.start(*CELLS[:3], "short_windows={ctx: 32, stride: 8, method: same}").end()
    assert "6 cells: 2 computed, 4 found finished" in same.stdout
    short = {("sliding", method, 32, True) for method in ("none", "dca", "yarn")}
    assert tables_of(place) == LONG | short


def test_windows_that_are_too_long_are_refused_before_anything_runs(place):
    end = place.start(*CELLS[:3], "short_windows={ctx: 48, stride: 8}").end()
    assert end.returncode == 2
    assert (
        end.stderr.strip()
        .splitlines()[-1]
        .endswith("short_windows.ctx must be at most the 32 tokens that tiny was trained at, got 48.")
    )
    assert not list(place.results.rglob("*.parquet"))


@pytest.mark.slow
def test_another_launcher_runs_them_as_well(place):
    end = run(place.command(*CELLS, "hydra/launcher=basic"), place.folder, place.environment)
    assert "5 cells: 5 computed, 0 found finished" in end.stdout, end.stderr
    assert "use of context: tiny, text, texts.jsonl, ctx 64" in end.stdout
