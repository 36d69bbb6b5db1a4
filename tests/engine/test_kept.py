"""A window that is killed goes on at its layer: on one process bit for bit, on others than those that kept it, too."""

import math
import multiprocessing
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers

from harness.engine import kept, ring
from harness.engine.budget import Budget
from harness.engine.engine import Engine
from harness.engine.exchange import Ranks
from harness.engine.kept import Keep, Kept
from harness.engine.spec import EngineSpec
from harness.engine.streams import Found, Streams
from tests.engine.small import FAMILIES, SHAPE, tokens
from tests.sweeps import PRELOADED, ranks_environment

LENGTH, SCORE_FROM, LAYERS = 67, 30, 3


class Killed(Exception):
    """In place of a signal."""


@pytest.fixture(autouse=True)
def _behind_every_layer(monkeypatch):
    """These windows are over before writing one would pay."""
    monkeypatch.setattr(kept, "SHARE", math.inf)


@pytest.fixture
def engine(model):
    return Engine(model, EngineSpec(mode="layered"))


def keep(folder, **changed):
    return replace(Keep(folder / "windows", 0.0, "cell"), **changed)


def killed_behind(monkeypatch, layers):
    """A window ends once its stream has been kept behind so many layers."""
    write = Kept.write

    def last(self, now, hidden):
        write(self, now, hidden)
        if now == layers:
            raise Killed

    monkeypatch.setattr(Kept, "write", last)


def files(folder):
    return sorted(f.name.split(".", 1)[1] for f in (folder / "windows").glob("*")) if folder.exists() else []


@pytest.mark.parametrize("layers", [1, 2])
def test_a_killed_window_goes_on_at_its_layer_bit_for_bit(engine, tmp_path, monkeypatch, layers):
    ids = tokens(2, LENGTH)
    whole = engine.token_nll(ids, SCORE_FROM)
    engine.keep = keep(tmp_path)
    killed(engine, ids, layers)
    assert files(tmp_path) == [f"layer-{layers}.0-of-1.stream"]  # an earlier one is gone
    ran = []
    run = Kept.run

    def saying(self, number, forward, *states, **more):
        return run(self, number, said(ran, number, forward), *states, **more)

    monkeypatch.setattr(Kept, "run", saying)
    assert torch.equal(engine.token_nll(ids, SCORE_FROM), whole)
    assert ran == list(range(layers, LAYERS))  # the others were not computed again
    assert files(tmp_path) == [f"from-{SCORE_FROM}.losses.npy"]


def killed(engine, ids, layers):
    """The window begins, and ends behind so many layers."""
    with pytest.MonkeyPatch.context() as patch:
        killed_behind(patch, layers)
        with pytest.raises(Killed):
            engine.token_nll(ids, SCORE_FROM)


def said(ran, number, forward):
    """The forward, which says that it ran."""

    def run(*states, **more):
        ran.append(number)
        return forward(*states, **more)

    return run


def test_a_finished_window_is_not_computed_again(engine, tmp_path, monkeypatch):
    ids = tokens(2, LENGTH)
    engine.keep = keep(tmp_path)
    whole = engine.token_nll(ids, SCORE_FROM)
    monkeypatch.setattr(Kept, "run", None)
    assert torch.equal(engine.token_nll(ids, SCORE_FROM), whole)
    with pytest.raises(TypeError):
        engine.token_nll(ids, SCORE_FROM - 1)


@pytest.fixture
def small():
    torch.manual_seed(0)
    return Engine(transformers.AutoModelForCausalLM.from_config(FAMILIES["llama"]()).eval(), EngineSpec(mode="layered"))


@pytest.mark.parametrize("changed", ["tokens", "cell", "rows"])
def test_what_was_kept_of_another_window_is_passed_over(small, tmp_path, changed):
    ids = tokens(1, 68)
    small.keep = keep(tmp_path)
    killed(small, ids, 2)
    other = {"tokens": tokens(1, 68, seed=2), "rows": ids.reshape(2, 34)}.get(changed, ids)
    small.keep = None
    whole = small.token_nll(other, SCORE_FROM)
    small.keep = keep(tmp_path, cell="another" if changed == "cell" else "cell")
    assert torch.equal(small.token_nll(other, SCORE_FROM), whole)
    assert "layer-2.0-of-1.stream" in files(tmp_path)  # of the first, still there


def test_a_torn_file_is_passed_over(small, tmp_path):
    ids = tokens(1, LENGTH)
    whole = small.token_nll(ids, SCORE_FROM)
    small.keep = keep(tmp_path)
    killed(small, ids, 2)
    (file,) = (tmp_path / "windows").glob("*.stream")
    file.write_bytes(file.read_bytes()[:-1])
    assert Streams(file.parent, file.name.split(".")[0]).furthest() == Found(0, 1)
    assert torch.equal(small.token_nll(ids, SCORE_FROM), whole)


def test_a_disk_that_takes_nothing_does_not_stop_the_window(small, tmp_path, caplog):
    ids = tokens(1, LENGTH)
    whole = small.token_nll(ids, SCORE_FROM)
    (tmp_path / "windows").touch()
    small.keep = keep(tmp_path)
    assert torch.equal(small.token_nll(ids, SCORE_FROM), whole)
    assert "the stream of a long window cannot be written to" in caplog.text


def test_a_window_is_kept_by_time_and_by_what_writing_costs(small, tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(kept.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(kept, "SHARE", 0.05)
    window = keep(tmp_path, every=100.0).window(small.model, tokens(1, LENGTH), None, [(0, LENGTH)], None)
    states = torch.zeros(1, LENGTH, 8)
    now[0] = 99.0
    assert not window.is_due(1, states)
    now[0] = 100.0
    assert window.is_due(1, states)
    monkeypatch.setattr(kept, "BYTES_PER_SECOND", states.nbytes / 6)  # 6 s: every 120 s, a twentieth of the time
    assert not window.is_due(1, states)
    now[0] = 120.0
    assert window.is_due(1, states)
    window.write_s = 7.0  # as measured
    assert not window.is_due(1, states)


def test_short_windows_on_a_gpu_are_not_kept(small, tmp_path, monkeypatch):
    monkeypatch.setitem(kept.LEAST_TOKENS, "cpu", LENGTH + 1)
    assert keep(tmp_path).window(small.model, tokens(1, LENGTH), None, [(0, LENGTH)], None) is None
    assert keep(tmp_path).window(small.model, tokens(1, LENGTH + 1), None, [(0, LENGTH + 1)], None) is not None


class Striped(Budget):
    """Little memory."""

    def shared_chunk(self, rows, length, ranks):
        return 6


def compute(rank, environment, folder, layers, answers):
    """What every rank does: a window, ended behind so many layers."""
    os.environ |= environment
    torch.set_num_threads(1)
    from torch import distributed

    distributed.init_process_group("gloo")
    ring.BLOCK["cpu"], kept.SHARE = 5, math.inf
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(transformers.LlamaConfig(**SHAPE)).eval()
    size = distributed.get_world_size()
    over = Ranks(rank, size, distributed.group.WORLD) if size > 1 else None
    engine = Engine(model, EngineSpec(mode="layered"), over)
    engine.budget, engine.keep = Striped(None, 0, 0), keep(folder)
    with pytest.MonkeyPatch.context() as patch:
        killed_behind(patch, layers)
        restore, behind = Streams.restore, []
        patch.setattr(Streams, "restore", lambda self, *given: behind.append(given[0]) or restore(self, *given))
        try:
            answers.put((engine.token_nll(tokens(2, LENGTH), SCORE_FROM).numpy(), behind))
        except Killed:
            answers.put(None)
    distributed.barrier()


def over_ranks(number, folder, layers=0):
    """What every one of so many ranks answers."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(PRELOADED)
    answers = server.Queue()
    environments = ranks_environment(number)
    started = [server.Process(target=compute, args=(i, e, folder, layers, answers)) for i, e in enumerate(environments)]
    for process in started:
        process.start()
    found = [answers.get(timeout=60) for _ in started]
    for process in started:
        process.join(30)
    assert [process.exitcode for process in started] == [0] * number
    return found


@pytest.mark.parametrize(("kept_by", "resumed_by"), [(2, 3), (3, 1), (1, 4), (3, 3)])
def test_a_window_kept_by_some_ranks_goes_on_on_others(small, tmp_path, kept_by, resumed_by):
    whole = small.token_nll(tokens(2, LENGTH), SCORE_FROM).numpy()
    assert over_ranks(kept_by, tmp_path, layers=2) == [None] * kept_by
    assert files(tmp_path) == [f"layer-2.{i}-of-{kept_by}.stream" for i in range(kept_by)]
    resumed = over_ranks(resumed_by, tmp_path)
    assert files(tmp_path) == [f"from-{SCORE_FROM}.losses.npy"]
    for losses, behind in resumed:
        assert behind == [Found(2, kept_by)]
        np.testing.assert_allclose(losses, whole, atol=1e-5, rtol=0)
    if kept_by == resumed_by:  # the same rounds: bit for bit as without a break
        unbroken = over_ranks(kept_by, tmp_path / "unbroken")
        assert all(np.array_equal(losses, unbroken[0][0]) for losses, _ in resumed)
