"""Under torchrun: documents on several ranks give the rows of one process; a failure has its rank's name."""

import os
import signal
import sys
import time

import pandas as pd
import pytest

from harness import cli, torchrun
from harness.cells.device import check_device
from harness.engine.batches import shares
from harness.engine.spec import EngineSpec
from harness.errors import UserError
from harness.results import store
from harness.runs import runner
from harness.runs.ranks import lead
from harness.runs.sweep import _cluster
from tests import sweeps
from tests.sweeps import PLACES, Place, ranks_environment

CELLS = ("ctx=16,32", "method=none,yarn")
IDENTITY = ("cell_id", "dataset_fingerprint", "dataset_params")  # of other documents
PREPARED = [f"method={m} ctx={c}" for m in ("none", "yarn") for c in (16, 32)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The rows of one process."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("alone")
        patch.setenv("HARNESS_CACHE", str(folder / "cache"))
        place = Place(folder)
        runner.run(place.prepared(*PREPARED))
        return rows(place)


def rows(place):
    keys = ["method", "ctx", "document_index", "window"]
    return store.load_results(place.results).drop(columns=PLACES).sort_values(keys, ignore_index=True)


def as_ranks(number, monkeypatch):
    for name, value in ranks_environment(number)[0].items():
        monkeypatch.setenv(name, value)


def test_documents_are_dealt_the_longest_first_to_whoever_has_least():
    assert shares([5, 9, 1, 7], 2) == [{1, 2}, {0, 3}]
    assert shares([5, 5, 5], 1) == [{0, 1, 2}]
    assert shares([4, 8], 3) == [{1}, {0}, set()]


@pytest.mark.parametrize("documents", [4, 2])  # an uneven split; more ranks than documents
def test_documents_on_several_ranks_give_the_rows_of_one_process(place, alone, documents):
    fewer = [] if documents == 4 else [f"data.num_documents={documents}"]
    started = place.start_ranks(3, *CELLS, *fewer)
    ends = [process.end(120) for process in started]
    assert [end.returncode for end in ends] == [0] * 3, ends
    assert "4 cells: 4 computed" in ends[0].stdout
    assert not any(end.stdout for end in ends[1:])  # rank 0 alone prints
    found = rows(place)
    expected = alone[alone["document_index"] < documents].reset_index(drop=True)
    same = [c for c in expected if c not in ("nll_sum", *(IDENTITY if fewer else ()))]
    pd.testing.assert_frame_equal(found[same], expected[same])
    pd.testing.assert_series_equal(found["nll_sum"], expected["nll_sum"], atol=1e-5, rtol=0)
    assert all(f.endswith(".parquet") for f in place.files())
    for file in place.results.rglob("*.windows.parquet"):
        assert len(pd.read_parquet(file)) == documents  # none was computed twice
        assert store.provenance(file)["ranks"] == 3


def test_windows_on_several_ranks_give_the_rows_of_one_process(place, alone):
    ends = [process.end(120) for process in place.start_ranks(2, *CELLS, "engine.parallel=context")]
    assert [end.returncode for end in ends] == [0, 0], ends
    found = rows(place)
    pd.testing.assert_frame_equal(found.drop(columns="nll_sum"), alone.drop(columns="nll_sum"))
    pd.testing.assert_series_equal(found["nll_sum"], alone["nll_sum"], atol=1e-5, rtol=0)
    assert all(f.endswith(".parquet") for f in place.files())


def test_a_mistake_is_reported_once_and_ends_rank_0_before_it_meets_the_others(place):
    first, other = place.start_ranks(2, "ctx=16", "method.factr=2", "method=yarn")
    end = first.end(60)
    assert (end.returncode, end.stderr.count("Unknown key")) == (2, 1)
    assert other.is_alive(), "it waits for rank 0"
    other.signal(signal.SIGTERM)  # as torchrun does when one rank has ended
    end = other.end(20)
    assert (end.returncode, end.stderr.count("Unknown key")) == (-signal.SIGTERM, 0)


def test_where_nothing_is_to_be_computed_all_ranks_end_in_order(place):
    for _ in range(2):
        assert [process.end(120).returncode for process in place.start_ranks(2, "ctx=16", "method=yarn")] == [0, 0]


def test_a_failure_on_another_rank_fails_its_cell_by_name_and_the_others_finish(tmp_path):
    place = Place(tmp_path, poison_at=40)  # the last of four equal documents: of rank 1
    ends = [process.end(60) for process in place.start_ranks(2, "ctx=32,64")]
    assert ends[0].returncode == 1
    assert "1 of 2 cells have no result" in ends[0].stdout
    assert "ctx=64: RankFailed: rank 1 of 2 on" in ends[0].stdout
    assert "NonFiniteLoss" in ends[0].stdout
    log = next(place.results.rglob("*.log"))
    assert "scores.py" in log.read_text()  # the traceback of where it happened
    assert len(list(log.with_suffix(".checkpoint").glob("*.npz"))) == 3  # the other documents are kept


@pytest.mark.parametrize("dead", [0, 1])
def test_a_rank_that_dies_fails_the_cell_by_name_and_its_documents_are_kept(tmp_path, dead):
    place = Place(tmp_path, documents=12, tokens=1200)
    started = place.start_ranks(3, "ctx=1024", "protocol=sliding", "protocol.stride=32", "protocol.max_windows=null")
    while not list(place.results.rglob("*.npz")):
        assert all(process.is_alive() for process in started)
        time.sleep(0.02)
    started[dead].signal(signal.SIGKILL)
    begun = time.monotonic()
    ends = [process.end(30) for process in started]
    assert time.monotonic() - begun < 20
    assert all(end.returncode != 0 for end in ends)
    reporter = min({0, 1, 2} - {dead})
    assert f"rank {dead} of 3 on" in ends[reporter].stderr
    assert [end.stderr.count("FAILED") for end in ends] == [int(i == reporter) for i in range(3)]
    log = next(place.results.rglob("*.log"))
    assert f"error: rank {dead} of 3 on" in log.read_text()
    assert list(place.results.rglob("*.npz"))


def test_a_rank_that_fails_alone_where_windows_are_shared_ends_the_run(place):
    prepared = place.prepared("ctx=32")[0]
    prepared.files.checkpoint.parent.mkdir(parents=True)
    prepared.files.checkpoint.touch()  # rank 0 cannot keep its first document; rank 1 waits for it in the second
    overrides = ["ctx=32", "engine.parallel=context", "engine.tokens_per_batch=32"]
    started = place.start_ranks(2, *overrides, start=impatient)
    ends = [process.end(60) for process in started]
    assert [end.returncode for end in ends] == [1, 1]
    assert "rank 0 of 2 on" in ends[0].stderr
    assert "results cannot be written" in prepared.files.log.read_text()


def impatient(*arguments):
    """A process that does not wait for the others as long as it should."""
    lead.CONTEXT_GRACE_S = 2.0
    sweeps.forked(*arguments)


def test_a_rank_killed_inside_a_window_and_the_window_goes_on_at_its_layer(place, alone):
    overrides = ["ctx=32", "method=yarn", "engine.parallel=context", "engine.keep_every=0"]
    ends = [process.end(60) for process in place.start_ranks(2, *overrides, start=dying)]
    assert all(end.returncode != 0 for end in ends)
    assert "rank 1 of 2 on" in ends[0].stderr
    assert len(list(place.results.rglob("*.checkpoint/windows/*.layer-1.*-of-2.stream"))) == 2
    ends = [process.end(60) for process in place.start_ranks(3, *overrides)]
    assert [end.returncode for end in ends] == [0] * 3, ends
    assert "a window goes on behind layer 1 of 2" in ends[0].stdout + ends[0].stderr
    expected = alone.query("ctx == 32 and method == 'yarn'")["nll_sum"].reset_index(drop=True)
    pd.testing.assert_series_equal(rows(place)["nll_sum"], expected, atol=1e-5, rtol=0)
    assert all(f.endswith(".parquet") for f in place.files())


def dying(*arguments):
    """A process that, as rank 1, is killed as soon as a window has been kept."""
    from harness.engine.kept import Kept

    write = Kept.write

    def last(self, layers, hidden):
        write(self, layers, hidden)
        if torchrun.rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    Kept.write = last
    sweeps.forked(*arguments)


@pytest.mark.slow
def test_torchrun_itself_runs_a_sweep(place, alone):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "harness"]
    done = sweeps.run([*command, "-m", *place.overrides, *CELLS], place.folder, place.environment)
    assert done.returncode == 0, done.stderr
    assert "4 cells: 4 computed" in done.stdout
    pd.testing.assert_series_equal(rows(place)["nll_sum"], alone["nll_sum"], atol=1e-5, rtol=0)


def test_commands_that_run_alone_say_so(monkeypatch, capsys):
    as_ranks(2, monkeypatch)
    with pytest.raises(SystemExit):
        cli.run_app(lambda composed: None, "plot")
    assert "python -m harness.plot runs in one process" in capsys.readouterr().err


def test_what_starts_processes_of_its_own_is_refused(place, monkeypatch):
    configs = place.configs("cluster=gpus ctx=32")
    as_ranks(2, monkeypatch)
    assert (torchrun.rank(), torchrun.size(), torchrun.local_size()) == (0, 2, 2)
    with pytest.raises(UserError, match="cluster=gpus starts its own processes: run it without torchrun"):
        _cluster(configs)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda:0", "must be auto, cuda or cpu under torchrun"),
        ("cuda", "at most one process a GPU, got 2 processes and 1 CUDA devices"),
    ],
)
def test_every_rank_needs_a_gpu_of_its_own(monkeypatch, device, message):
    as_ranks(2, monkeypatch)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(UserError, match=message):
        check_device(EngineSpec(device=device))
