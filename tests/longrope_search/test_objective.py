"""Individuals that share batches: scored as each alone, whoever they share with, on every family that can."""

import logging
import math

import numpy as np
import pytest
import torch

from harness.data.documents import Document
from harness.data.protocols import Sliding
from harness.engine.batches import plans
from harness.engine.compiled import STATIC_SHAPES
from harness.engine.engine import Engine
from harness.engine.scores import evaluate
from harness.engine.spec import EngineSpec
from harness.longrope_search.objective import Objective, takes_rows
from harness.methods.frequency.longrope import LongRope
from harness.models.checkpoint.geometry import geometry
from harness.models.install import applied
from harness.models.rotary.angles import Angles
from tests.tiny import TRAINED, VOCABULARY, tiny_config, tiny_llama, tiny_model

CTX = 2 * TRAINED
SLIDING = Sliding(stride=20, bos="none")


def documents(*lengths: int) -> list[Document]:
    rng = np.random.default_rng(0)
    return [Document(f"d{i}", rng.integers(3, VOCABULARY, n), np.arange(n + 1)) for i, n in enumerate(lengths)]


def individuals(pairs: int, count: int) -> list[LongRope]:
    """Factors that differ much, n-hats, one of them without either."""
    rng = np.random.default_rng(1)
    return [
        LongRope(long_factor=np.sort(rng.uniform(1, 2 + i, pairs)).tolist(), factor=1.0 + i, unscaled_prefix=prefix)
        for i, prefix in zip(range(count), [0, 4, 16, 0, 30, 1], strict=False)
    ]


def judge(model, *, tokens_per_batch=None, together=True, **options) -> Objective:
    engine = Engine(model, EngineSpec(tokens_per_batch=tokens_per_batch, **options))
    trained = geometry(model.config).original_max_position_embeddings
    return Objective(engine, trained, documents(100, 64, 130), CTX, SLIDING, 0, "cpu", None, together)


def alone(objective: Objective, method: LongRope) -> float:
    """The mean loss as a cell of the harness finds it: the method in the whole model, one window a batch."""
    planned = plans(objective.documents, CTX, SLIDING, 0)
    with applied(objective.engine.model, method, CTX, objective.trained):
        found = list(evaluate(objective.documents, planned, objective.engine.token_nll, 1))
    losses = np.concatenate([nll for one in found for nll in one.nll]).astype(np.float64)
    return math.fsum(losses) / len(losses)


FAMILIES = [
    "llama",
    "gpt_neox",
    "gemma3_text",
    "llama4_text",
    "deepseek_v2",
]  # plain, partial, two types, complex, latent


@pytest.mark.parametrize("family", FAMILIES)
def test_individuals_together_score_as_each_alone(family):
    objective = judge(tiny_model(tiny_config(family)), tokens_per_batch=400)
    assert takes_rows(objective.engine, objective.trained)
    methods = individuals(geometry(objective.engine.model.config).rotary_dim // 2, 6)
    expected = [alone(objective, method) for method in methods]
    assert np.ptp(expected) > 1e-3  # what a row taken for another would show
    np.testing.assert_allclose(objective.nll(methods), expected, rtol=1e-6)


@pytest.mark.parametrize("tokens_per_batch", [1, 64, 200, 5000])
def test_neither_company_nor_budget_changes_an_individual(tokens_per_batch):
    methods = individuals(8, 6)
    expected = judge(tiny_llama()).nll(methods)
    objective = judge(tiny_llama(), tokens_per_batch=tokens_per_batch)
    np.testing.assert_allclose(objective.nll(methods[::-1])[::-1], expected, rtol=1e-6)
    np.testing.assert_allclose(objective.nll(methods[2:3]) + objective.nll(methods[4:]), expected[2:3] + expected[4:])
    assert objective.nll(methods) == objective.nll(methods)  # the same list: the same bits


def test_batches_hold_rows_of_several_individuals(monkeypatch):
    objective, seen = judge(tiny_llama(), tokens_per_batch=16 * CTX), []
    whole = objective.engine.token_nll
    monkeypatch.setattr(
        objective.engine,
        "token_nll",
        lambda *given, **options: seen.append(given[2].tolist()) or whole(*given, **options),
    )
    objective.nll(individuals(8, 6))
    assert max(len(set(sets)) for sets in seen) > 2
    assert {i for sets in seen for i in sets} == set(range(6))


def test_out_of_memory_splits_rows_with_their_individuals(caplog):
    methods, model = individuals(8, 6), tiny_llama()
    objective = judge(model, tokens_per_batch=16 * CTX)
    expected, forward = objective.nll(methods), model.model.forward

    def scarce(input_ids, **options):
        if input_ids.numel() > 3 * CTX:
            raise torch.OutOfMemoryError("not enough")
        return forward(input_ids=input_ids, **options)

    model.model.forward = scarce
    np.testing.assert_allclose(objective.nll(methods), expected, rtol=1e-6)
    assert "out of memory" in caplog.text


def test_filled_up_batches_keep_their_individuals(monkeypatch):
    monkeypatch.setitem(STATIC_SHAPES, "cpu", True)
    methods, objective = individuals(8, 5), judge(tiny_llama(), tokens_per_batch=4 * CTX)
    expected = objective.nll(methods)
    objective.engine.forwards = [layer.forward for layer in objective.engine.model.model.layers]
    np.testing.assert_allclose(objective.nll(methods), expected, rtol=1e-6)


def test_models_with_tables_judge_one_after_another(caplog):
    model = tiny_model(tiny_config("gptj", n_positions=256))
    objective = judge(model, together=False)
    with caplog.at_level(logging.WARNING):
        assert not takes_rows(objective.engine, objective.trained)
    assert "GPTJForCausalLM: individuals run one after another" in caplog.text
    methods = individuals(4, 3)
    np.testing.assert_allclose(objective.nll(methods), [alone(objective, method) for method in methods], rtol=1e-6)


def test_a_model_that_rotates_all_rows_alike_is_found_out(monkeypatch, caplog):
    objective = judge(tiny_llama())
    monkeypatch.setattr(Angles, "rows", slice(0, 1))
    monkeypatch.setattr("harness.models.rotary.angles.RotaryForward.explains", lambda *given: True)
    assert not takes_rows(objective.engine, objective.trained)
    assert "losses differ" in caplog.text


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-3)])
def test_individuals_together_score_as_each_alone_on_a_gpu(dtype, tolerance):
    torch.backends.cuda.matmul.allow_tf32 = False
    objective = judge(tiny_llama().to("cuda", dtype), tokens_per_batch=400)._replace(device="cuda")
    assert takes_rows(objective.engine, objective.trained)
    methods = individuals(8, 6)
    expected = [nll for method in methods for nll in objective.nll([method])]
    np.testing.assert_allclose(objective.nll(methods), expected, rtol=tolerance)
