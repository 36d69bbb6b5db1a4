"""Cells in one process: loaded once, computed once, gone on with where they stopped, failures kept apart."""

import json
import logging
import shutil

import pandas as pd
import pytest

from harness.data import documents
from harness.errors import UserError
from harness.results import store
from harness.runs import checkpoints, runner, share, sweep
from harness.runs.provenance import commit
from harness.storage import leases
from harness.storage.cache import digest
from harness.storage.files import StorageError
from tests.sweeps import CELLS_32, PLACES, Place


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The rows of all cells, computed without any disturbance."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("undisturbed")
        patch.setenv("HARNESS_CACHE", str(folder / "cache"))
        place = Place(folder)
        runner.run(place.prepared(*CELLS_32))
        return {table: rows(place, table) for table in ("windows", "positions")}


def rows(place, table="windows"):
    read = store.load_results(place.results, table).drop(columns=PLACES, errors="ignore")
    keys = [k for k in ("method", "ctx", "document_index", "window", "position_begin") if k in read]
    return read.sort_values(keys, ignore_index=True)


def assert_equal(place, undisturbed):
    for table, expected in undisturbed.items():
        pd.testing.assert_frame_equal(rows(place, table), expected, check_exact=True)


def statuses(outcomes):
    return [o.status for o in outcomes]


def test_a_sweep_loads_once_computes_once_and_leaves_its_tables_alone(place, undisturbed, caplog):
    caplog.set_level(logging.INFO)
    prepared = place.prepared(*CELLS_32)
    assert statuses(runner.run(prepared)) == ["computed"] * 9
    assert caplog.text.count("loaded model") == 1
    assert_equal(place, undisturbed)
    assert len(place.files()) == 18
    assert all(f.endswith(".parquet") for f in place.files())
    caplog.clear()
    assert statuses(runner.run(place.prepared(*CELLS_32, "method=none ctx=128"))) == ["finished"] * 9 + ["computed"]
    assert caplog.text.count("computed model=") == 1


def test_documents_are_loaded_once_a_process(place, monkeypatch):
    loaded = []
    load = documents.load_with
    monkeypatch.setattr(documents, "load_with", lambda *args: loaded.append(1) or load(*args))
    sweep.main(place.configs("method=none ctx=32", "method=yarn ctx=32", "method=yarn ctx=64"), sweep=True)
    assert len(loaded) == 1


def test_cells_that_are_asked_for_twice_are_computed_once(place, caplog):
    caplog.set_level(logging.INFO)
    outcomes = runner.run(place.prepared("method=none ctx=32", "method=none ctx=32"))
    assert statuses(outcomes) == ["computed"] * 2
    assert caplog.text.count("computed model=") == 1


class Killed(BaseException):
    """What a signal does to a process, in miniature: not an Exception, nothing catches it."""


def kill_after(monkeypatch, saves):
    """Let the process end behind its n-th saved document."""
    count = 0
    save = checkpoints.save

    def dying(folder, scored):
        nonlocal count
        save(folder, scored)
        count += 1
        if count == saves:
            raise Killed

    monkeypatch.setattr(checkpoints, "save", dying)


def spy_on_scores(monkeypatch):
    """The documents that every pass finds finished, in the order of passes."""
    found = []
    whole = share.evaluate

    def spy(*args, finished, **kwargs):
        found.append(sorted(finished))
        return whole(*args, finished=finished, **kwargs)

    monkeypatch.setattr(share, "evaluate", spy)
    return found


@pytest.mark.parametrize("saves", [1, 3, 4, 6])
def test_a_killed_pass_goes_on_with_the_next_document_bit_for_bit(place, undisturbed, monkeypatch, saves):
    with monkeypatch.context() as dying:
        kill_after(dying, saves)
        with pytest.raises(Killed):
            runner.run(place.prepared(*CELLS_32))
    scored = spy_on_scores(monkeypatch)
    runner.run(place.prepared(*CELLS_32))
    assert [len(f) for f in scored if f] == ([saves % 4] if saves % 4 else [4] if saves == 4 else [])
    assert_equal(place, undisturbed)
    assert all(f.endswith(".parquet") for f in place.files())


def test_a_pass_that_is_killed_between_its_cells_goes_on_with_the_next_cell(place, undisturbed, monkeypatch):
    write = store.write
    with monkeypatch.context() as dying:
        monkeypatch.setattr(store, "write", lambda *args: write(*args) and (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            runner.run(place.prepared(*CELLS_32))
        dying.undo()
    monkeypatch.setattr(store, "write", write)
    before = {f: (place.results / f).stat().st_mtime_ns for f in place.files() if f.endswith("parquet")}
    assert len(before) == 2
    scored = spy_on_scores(monkeypatch)
    runner.run(place.prepared(*CELLS_32))
    assert scored[0] == [0, 1, 2, 3]  # the whole pass was there, though one of its cells was finished
    assert_equal(place, undisturbed)
    assert before.items() <= {f: (place.results / f).stat().st_mtime_ns for f in place.files()}.items()


def test_a_finished_cell_that_lacks_a_table_is_computed_again(place):
    runner.run(place.prepared("method=none ctx=32"))
    outcomes = runner.run(place.prepared("method=none ctx=32", common=("save_tokens=true",)))
    assert statuses(outcomes) == ["computed"]
    assert len(store.load_results(place.results, "tokens")) == 4 * 31


def test_force_computes_again_once_a_run_however_often_it_is_interrupted(place, monkeypatch):
    cells = ["method=linear ctx=32", "method=linear ctx=64"]
    runner.run(place.prepared(*cells))
    forced = place.prepared(*cells, common=("force=true",), run_id="second")
    with monkeypatch.context() as dying:
        kill_after(dying, 6)
        with pytest.raises(Killed):
            runner.run(forced)
    assert sorted(statuses(runner.run(forced))) == ["computed", "finished"]
    assert statuses(runner.run(forced)) == ["finished"] * 2
    made = [store.provenance(f)["run_id"] for f in place.results.rglob("*.windows.parquet")]
    assert made == ["second"] * 2
    assert all(f.endswith(".parquet") for f in place.files())


def test_a_failing_cell_has_its_traceback_in_its_own_log_and_the_others_finish(tmp_path, own_cache):
    place = Place(tmp_path, poison_at=40)  # a NaN from token 40 on: only windows of 64 see it
    prepared = place.prepared(*CELLS_32)
    outcomes = runner.run(prepared)
    assert statuses(outcomes) == ["computed", "computed", "failed"] * 3
    failed = outcomes[2]
    log = failed.files.log.read_text()
    assert "NonFiniteLoss" in failed.message
    assert "Traceback (most recent call last)" in log
    assert "scores.py" in log
    assert f"command: {failed.files.command}" in log
    assert "method=none ctx=64" in failed.files.command
    again = runner.run(place.prepared(*CELLS_32, run_id="run"))
    assert statuses(again) == ["finished", "finished", "failed"] * 3  # not tried twice in one run
    healthy = Place(tmp_path)  # the same place, repaired: other weights, so other cells
    shutil.rmtree(place.results)
    assert statuses(runner.run(healthy.prepared(*CELLS_32, run_id="later"))) == ["computed"] * 9


def test_a_later_run_tries_a_failed_cell_again_and_removes_its_log(place, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr("harness.results.rows.tables", lambda *args: 1 / 0)
        (outcome,) = runner.run(place.prepared("method=none ctx=32", run_id="first"))
    assert outcome.status == "failed"
    assert outcome.files.log.exists()
    (outcome,) = runner.run(place.prepared("method=none ctx=32", run_id="second"))
    assert outcome.status == "computed"
    assert all(f.endswith(".parquet") for f in place.files())


def test_a_mistake_of_the_user_is_raised_for_a_cell_alone_and_kept_apart_in_a_sweep(place, monkeypatch):
    def refuse(*args):
        raise UserError("no such thing")

    monkeypatch.setattr("harness.cells.documents.plans", refuse)
    prepared = place.prepared("method=none ctx=32")
    with pytest.raises(UserError, match="no such thing"):
        runner.run(prepared, raise_mistakes=True)
    (outcome,) = runner.run(prepared)
    assert (outcome.status, outcome.message) == ("failed", "no such thing")


def test_results_that_cannot_be_written_end_the_run(place, monkeypatch):
    def full(*args):
        raise StorageError("results cannot be written to 'x': No space left on device")

    monkeypatch.setattr(store, "write", full)
    with pytest.raises(StorageError):
        runner.run(place.prepared(*CELLS_32))
    assert not any(f.endswith((".lease", ".log")) for f in place.files())


def test_a_lost_gpu_ends_the_process_and_the_rest_is_reported_as_not_run(place, monkeypatch):
    def lost(*args, **kwargs):
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(share, "evaluate", lost)
    outcomes = runner.run(place.prepared("method=linear ctx=32", "method=yarn ctx=32"))
    assert statuses(outcomes) == ["failed", "missing"]
    assert "GPU failed" in outcomes[1].message


def test_a_cell_that_another_process_holds_is_waited_for_and_taken_as_found(place, monkeypatch):
    prepared = place.prepared("method=linear ctx=32", "method=yarn ctx=32")
    other = leases.Leases()
    other.acquire([prepared[0].files.lease])
    sleeps = []

    def finish_elsewhere(_seconds):  # the other process finishes while this one waits
        sleeps.append(1)
        other.release([prepared[0].files.lease])
        runner.run(prepared[:1])

    monkeypatch.setattr(runner.time, "sleep", finish_elsewhere)
    assert statuses(runner.run(prepared)) == ["finished", "computed"]
    assert len(sleeps) == 1


def test_a_cell_that_was_finished_just_before_its_lease_was_taken_is_not_computed_again(place, monkeypatch):
    prepared = place.prepared("method=linear ctx=32")
    acquire = leases.Leases.acquire

    def late(self, files):  # another process finishes the cell between the look and the lease
        monkeypatch.setattr(leases.Leases, "acquire", acquire)
        runner.run(prepared)
        return acquire(self, files)

    monkeypatch.setattr(leases.Leases, "acquire", late)
    assert statuses(runner.run(prepared)) == ["finished"]


def test_what_a_kill_right_behind_the_last_write_left_is_removed(place):
    prepared = place.prepared("method=none ctx=32")
    runner.run(prepared)
    files = prepared[0].files
    files.checkpoint.mkdir()
    (files.checkpoint / "0.npz").touch()
    files.log.touch()
    files.lease.write_text(json.dumps({"machine": leases._machine(), "pid": 2**22 + 1, "started": "1"}))
    files.place.with_name(f".{files.place.name}.windows.parquet.x1").touch()
    assert statuses(runner.run(prepared)) == ["finished"]
    assert len(place.files()) == 2


def test_a_corrupt_result_is_set_aside_and_computed_again(place, caplog):
    prepared = place.prepared("method=none ctx=32")
    runner.run(prepared)
    file = prepared[0].files.windows
    whole = file.read_bytes()
    file.write_bytes(whole[:-50])
    sweep.main(place.configs("method=none ctx=32"), sweep=False)
    assert str(file) in caplog.text
    assert [aside.read_bytes() for aside in file.parent.glob("*.set-aside-*")] == [whole[:-50]]
    assert len(store.load_results(file)) == 4


def test_provenance_says_how_a_cell_was_made(place):
    (outcome,) = runner.run(place.prepared("method=yarn ctx=64"))
    made = store.provenance(outcome.files.windows)
    assert made["config"]["ctx"] == 64
    assert made["run_id"] == "run"
    assert made["tokens"] == 4 * 64
    assert made["seconds"] > 0
    assert made["versions"]["torch"]
    assert made["commit"] == commit()


def installed(outcome):
    return store.provenance(outcome.files.windows)["installed"]


def test_provenance_says_what_was_installed(place, monkeypatch):
    """Read back from the model, and the same of a pass that only had to be written."""
    (prepared,) = place.prepared("method=yarn ctx=64")
    kill_after(monkeypatch, saves=4)
    with pytest.raises(Killed):
        runner.run([prepared])
    (yarn,) = runner.run([prepared])
    asked = prepared.cell.method(prepared.header.geometry, 64)
    assert installed(yarn) == [
        {
            "path": "model.rotary_emb",
            "layer_type": None,
            "inv_freq": digest(asked.inv_freq.tolist()),
            "attention_scaling": asked.attention_scaling,
            "unscaled_prefix": 0,
        }
    ]
    assert asked.attention_scaling > 1
    (none,) = runner.run(place.prepared("method=none ctx=32"))
    assert installed(none) == []  # the model's own rotations
