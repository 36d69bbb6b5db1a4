"""One window over several processes: the losses of the model's own forward, whatever the method, model and length."""

import multiprocessing
import os
from functools import cache

import numpy as np
import pytest
import torch

from harness import methods
from harness.engine import ring
from harness.engine.budget import Budget
from harness.engine.engine import Engine
from harness.engine.exchange import Ranks
from harness.engine.nll import token_nll
from harness.engine.spec import EngineSpec
from harness.engine.stripes import Stripes, in_order
from harness.errors import UserError
from harness.methods import METHODS
from harness.models.checkpoint.geometry import geometry
from harness.models.install import applied
from tests.sweeps import PRELOADED, ranks_environment
from tests.tiny import tiny_config, tiny_model, tokens, with_scaling

FREQUENCY = [name for name, method in METHODS.items() if method.kind in ("frequency", "native")]
FAMILIES = ["llama", "qwen3", "gpt_neox", "gemma3_text", "mixtral", "phi"]  # grouped, plain and windowed attention
LENGTHS = [5, 31, 67]  # tokens, divisible by no number of ranks that is tried
PLACES = [(3, 1), (3, 2), (31, 17), (31, 30), (67, 38)]  # shorter than ranks; the last layer in pieces
REFUSED = ["gemma2", "deepseek_v2", "falcon", "gpt2"]
PARAMETERS = {"longrope": {"long_factor": np.geomspace(1, 20, 8).tolist(), "unscaled_prefix": 10}}
CHUNK = 6  # tokens of a rank at a time: windows of 31 take several rounds
BLOCK = 5  # keys passed on at once: a round's take several turns


def test_stripes_of_a_round_are_dealt_from_both_ends():
    stripes = Stripes.of(22, ranks=2, largest=7)
    assert (stripes.rounds, stripes.size, stripes.padded) == (2, 3, 24)
    assert [stripes.all_begins(rank) for rank in (0, 1)] == [[0, 9, 12, 21], [3, 6, 15, 18]]
    assert stripes.own(0).tolist() == [0, 1, 2, 9, 10, 11, 12, 13, 14, 21, 21, 21]
    assert Stripes.of(5, ranks=8, largest=100).size == 1


@pytest.mark.parametrize("ranks", [1, 2, 3, 8, 64])
def test_rounds_cost_every_rank_the_same_and_come_back_in_order(ranks):
    stripes = Stripes.of(1000, ranks, largest=40)
    for round_ in range(stripes.rounds):  # keys before a stripe are the work of its attention
        assert len({sum(stripes.begins(rank, round_)) for rank in range(ranks)}) == 1
    whole = torch.arange(1000)[None]
    assert torch.equal(in_order([whole[:, stripes.own(rank)] for rank in range(ranks)], stripes), whole)


@cache
def model_of(name):
    """A family, or Llama under a scaling that its own configuration declares."""
    if name != "native":
        return tiny_model(tiny_config(name))
    return with_scaling(tiny_model(tiny_config("llama")), rope_type="dynamic", factor=4.0)


def method_of(name, model, length):
    return methods.build(name, PARAMETERS.get(name, {}), geometry(model.config), length)


CASES = [(name, "none") for name in FAMILIES] + [("native" if m == "native" else "llama", m) for m in FREQUENCY]


@cache
def expected(family, method, length, score_from=3):
    model = model_of(family)
    with applied(model, method_of(method, model, length), length):
        return token_nll(model, tokens(length, rows=2), score_from, sliced=False).numpy()


def compute(rank, environment, answers):
    """What every rank does: all cases, and the errors of the models that are refused."""
    os.environ |= environment
    torch.set_num_threads(1)
    from torch import distributed

    distributed.init_process_group("gloo")
    over = Ranks(rank, distributed.get_world_size(), distributed.group.WORLD)
    ring.BLOCK["cpu"] = BLOCK
    found = {}
    for family, method in CASES if over.size < 4 else CASES[: len(FAMILIES)]:
        model = model_of(family)
        engine = Engine(model, EngineSpec(), over)
        engine.budget = Striped(None, 0, 0)
        for length in LENGTHS:
            with applied(model, method_of(method, model, length), length):
                found[family, method, length, 3] = engine.token_nll(tokens(length, rows=2), 3).numpy()
        for length, score_from in PLACES if method == "none" else ():
            found[family, method, length, score_from] = engine.token_nll(tokens(length, 2), score_from).numpy()
    with pytest.MonkeyPatch.context() as patch:  # one rank has no compiler
        patch.setattr("harness.engine.engine.compiled_forwards", lambda model: forwards(model, can_run=rank > 0))
        engine = Engine(model_of("llama"), EngineSpec(compile=True), over)
    found["compiled"] = bool(engine.forwards), engine.token_nll(tokens(31, rows=2), 3).numpy()
    for family in REFUSED:
        with pytest.raises(UserError) as error:
            Engine(tiny_model(tiny_config(family)), EngineSpec(), over)
        found[family] = str(error.value)
    answers.put((rank, found))
    distributed.barrier()


def forwards(model, *, can_run):
    return [layer.forward if can_run else refuse for layer in model.model.layers]


def refuse(*_, **__):
    raise RuntimeError("no compiler")


class Striped(Budget):
    """Little memory."""

    def shared_chunk(self, rows, length, ranks):
        return CHUNK


@pytest.mark.parametrize("number", [2, 3, 4])
def test_every_method_family_and_length_equals_one_process(number):
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(PRELOADED)
    answers = server.Queue()
    started = [server.Process(target=compute, args=(i, e, answers)) for i, e in enumerate(ranks_environment(number))]
    for process in started:
        process.start()
    found = dict(answers.get(timeout=500) for _ in started)
    for process in started:
        process.join(300)
    assert [process.exitcode for process in started] == [0] * number
    for rank in range(number):
        for case, losses in found[rank].items():
            if isinstance(case, tuple):
                np.testing.assert_allclose(losses, expected(*case), atol=1e-5, rtol=0, err_msg=str(case))
    for rank in range(number):
        has_compiled, losses = found[rank]["compiled"]
        assert not has_compiled  # all or none
        np.testing.assert_allclose(losses, expected("llama", "none", 31), atol=1e-5, rtol=0)
    for family in REFUSED:
        assert len({found[rank][family] for rank in range(number)}) == 1
        assert found[0][family].startswith("engine.parallel=context cannot run ")
