"""Cells with a base killed by SIGKILL in both stages: as a process of its own, with files as they then lie on disk."""

import contextlib
import signal
import time

import pytest

from harness.results import store
from harness.runs import runner
from tests.runs.test_against import assert_same, perturbed, with_base
from tests.sweeps import Place

CELL = "method=none ctx=32 protocol=sliding protocol.stride=8 engine.tokens_per_batch=64"


class Stored(Place):
    """A cell whose base's states go to disk first, as a command."""

    def __init__(self, folder):
        super().__init__(folder, documents=12)
        self.base = with_base(perturbed(self))

    def start_it(self):
        return self.start(*self.base, "base.at_once=false", *CELL.split())

    def found(self, ending):
        times = {}
        for file in self.results.rglob(f"*{ending}"):
            with contextlib.suppress(FileNotFoundError):  # the process removes them while we look
                times[file] = file.stat().st_mtime_ns
        return times

    def kill_at(self, ending, count):
        """Start, and kill once so many files of an ending are there; what is there then."""
        process = self.start_it()
        until = time.monotonic() + 120
        while len(self.found(ending)) < count and process.is_alive() and time.monotonic() < until:
            time.sleep(0.001)
        assert process.is_alive(), "it ended before it could be killed"
        process.signal(signal.SIGKILL)
        assert process.end().returncode == -signal.SIGKILL
        return self.found(".states"), self.found(".npz")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The same cell, both models at once, killed by nothing."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("undisturbed")
        patch.setenv("HARNESS_CACHE", str(folder / "cache"))
        place = Stored(folder)
        (outcome,) = runner.run(place.prepared(CELL, common=place.base))
        assert outcome.status == "computed", outcome.message
        return place


@pytest.fixture
def place(undisturbed, tmp_path):
    """The same model, texts and caches, with results of its own."""
    again = Stored.__new__(Stored)
    again.__dict__ |= undisturbed.__dict__
    again.results = tmp_path / "results"
    return again


def assert_ends_the_same(place, undisturbed, states):
    """Run to the end: the tables of an undisturbed run, no `states` that were there written anew, no stray file."""
    process, again = place.start_it(), set()
    while process.is_alive():
        now = place.found(".states")
        again |= {file for file in states.keys() & now.keys() if now[file] != states[file]}
        time.sleep(0.005)
    ended = process.end()
    assert ended.returncode == 0, ended.stderr
    assert not again
    assert_same(place, undisturbed)
    assert place.files() == undisturbed.files()
    return ended.stderr


def test_killed_while_states_are_stored(place, undisturbed):
    states, documents = place.kill_at(".states", 20)
    windows = len(store.load_results(undisturbed.results, "windows"))
    assert 20 <= len(states) < windows
    assert not documents
    assert_ends_the_same(place, undisturbed, states)


def test_killed_while_tokens_are_compared(place, undisturbed):
    states, documents = place.kill_at(".npz", 2)
    assert len(states) == len(store.load_results(undisturbed.results, "windows"))
    assert 2 <= len(documents) < 12
    said = assert_ends_the_same(place, undisturbed, states)
    assert f"({len(documents)} of 12 documents were there)" in said


@pytest.mark.slow
def test_killed_in_both_stages_and_once_more_at_the_start(place, undisturbed):
    first, _ = place.kill_at(".states", 5)
    second, _ = place.kill_at(".states", len(first) + 20)
    assert first.items() <= second.items()
    states, _ = place.kill_at(".npz", 1)
    assert second.items() <= states.items()
    place.kill_at(".npz", 1)
    assert_ends_the_same(place, undisturbed, states)
