"""Sweeps that are killed, again and again, and sweeps that run at the same time: the rows of an undisturbed one."""

import random
import signal
import time

import pandas as pd
import pytest

from harness.results import store
from tests.sweeps import Place

SWEEP = ("method=none,linear,dynamic_ntk", "ctx=16,64,128")
CELLS = 9
TABLES = ("windows", "positions")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A sweep of nine cells over 60 documents that nothing disturbs."""
    place = Place(tmp_path_factory.mktemp("undisturbed"), documents=40)
    ended = place.start(*SWEEP).end()
    assert ended.returncode == 0, ended.stderr
    assert "9 cells: 9 computed" in ended.stdout
    return place


@pytest.fixture
def place(undisturbed, tmp_path):
    """The same model, documents and caches, with results of its own."""
    again = Place.__new__(Place)
    again.__dict__ |= undisturbed.__dict__
    again.results = tmp_path / "results"
    return again


def rows(place, table):
    read = store.load_results(place.results, table)
    return read.sort_values(
        [k for k in ("cell_id", "document_index", "window", "position_begin") if k in read], ignore_index=True
    )


def assert_same_end(place, undisturbed):
    assert place.files() == undisturbed.files()  # every table, and no stray file
    for table in TABLES:
        pd.testing.assert_frame_equal(rows(place, table), rows(undisturbed, table), check_exact=True)


def finished(place):
    return {f: f.stat().st_mtime_ns for f in place.results.rglob("*.windows.parquet")}


def progress(place):
    """Files that show work done."""
    return sum(1 for f in place.results.rglob("*") if f.suffix in (".npz", ".parquet")) if place.results.exists() else 0


def kill_at_a_random_moment(place, process, draw):
    """SIGKILL, mostly some time into the computing, sometimes before it; returns whether it came in time."""
    before = progress(place)
    if draw.random() < 0.8:
        while progress(place) == before and process.is_alive():
            time.sleep(0.002)
        delay = draw.uniform(0, 0.2)
    else:
        delay = draw.uniform(0, 2)
    time.sleep(delay)
    in_time = process.is_alive()
    process.signal(signal.SIGKILL)
    process.end()
    return in_time


def torture(place, undisturbed, kills, seed):
    """Kill and restart; every cell that was finished stays as it was. Returns how many kills came in time."""
    draw = random.Random(seed)
    done, killed = {}, 0
    for _ in range(kills):
        killed += kill_at_a_random_moment(place, place.start(*SWEEP), draw)
        after = finished(place)
        assert done.items() <= after.items()  # nothing finished was computed again
        done = after
    ended = place.start(*SWEEP).end()
    assert ended.returncode == 0, ended.stderr
    assert f"9 cells: {CELLS - len(done)} computed, {len(done)} found finished" in ended.stdout
    assert ended.stderr.count("computed model=") == CELLS - len(done)
    assert done.items() <= finished(place).items()
    assert_same_end(place, undisturbed)
    return killed


def test_five_kills(place, undisturbed):
    assert torture(place, undisturbed, kills=5, seed=1) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_fifty_kills(place, undisturbed, seed):
    torture(place, undisturbed, kills=5, seed=100 + seed)


def at_once(place, count):
    """Start the same sweep several times; the ends of all."""
    started = [place.start(*SWEEP) for _ in range(count)]
    ends = [process.end() for process in started]
    assert [end.returncode for end in ends] == [0] * count, ends
    return ends


def test_three_sweeps_at_once_compute_every_cell_once(place, undisturbed):
    ends = at_once(place, 3)
    assert sum(end.stderr.count("computed model=") for end in ends) == CELLS
    assert all("9 cells: " in end.stdout for end in ends)
    assert_same_end(place, undisturbed)


@pytest.mark.slow
def test_eight_sweeps_at_once_of_which_two_are_killed(place, undisturbed):
    doomed = [place.start(*SWEEP) for _ in range(2)]
    draw = random.Random(0)
    others = [place.start(*SWEEP) for _ in range(6)]
    for process in doomed:
        kill_at_a_random_moment(place, process, draw)
    ends = [process.end(600) for process in others]
    assert [end.returncode for end in ends] == [0] * 6, ends
    assert_same_end(place, undisturbed)


@pytest.mark.slow
def test_a_sweep_that_is_frozen_for_a_while_goes_on(place, undisturbed):
    process = place.start(*SWEEP)
    while not progress(place):
        time.sleep(0.01)
    process.signal(signal.SIGSTOP)
    time.sleep(0.3)
    process.signal(signal.SIGCONT)
    assert process.end().returncode == 0
    assert_same_end(place, undisturbed)
