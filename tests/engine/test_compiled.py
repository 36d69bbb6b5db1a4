"""Compiled layers equal eager ones; a model that cannot be compiled runs as it is."""

import functools

import pytest
import torch

from harness.engine.compiled import STATIC_SHAPES, compiled, compiled_forwards
from harness.engine.engine import Engine
from harness.engine.nll import token_nll
from harness.engine.spec import EngineSpec
from tests.engine.small import tokens


@pytest.mark.slow
def test_compiled_layers_equal_eager_ones(model):
    ids = tokens(2, 40)
    whole = token_nll(model, ids, 1)
    with compiled(model, compiled_forwards(model)):
        torch.testing.assert_close(token_nll(model, ids, 1), whole, atol=1e-5, rtol=0)
    engine = Engine(model, EngineSpec(compile=True))
    assert engine.forwards
    for score_from in (1, 30):
        torch.testing.assert_close(engine.token_nll(ids, score_from), whole[:, score_from - 1 :], atol=1e-5, rtol=0)


def test_compiled_llama_layers_equal_eager_ones(llama):
    ids = tokens(2, 40)
    whole = token_nll(llama, ids, 1)
    with compiled(llama, compiled_forwards(llama)):
        torch.testing.assert_close(token_nll(llama, ids, 1), whole, atol=1e-5, rtol=0)


def test_layers_compiled_for_one_shape_meet_one_whatever_the_batch(llama, monkeypatch):
    monkeypatch.setitem(STATIC_SHAPES, "cpu", True)
    seen = set()
    engine = Engine(llama, EngineSpec(tokens_per_batch=80))
    forwards = [layer.forward for layer in llama.model.layers]

    def noting(forward):
        @functools.wraps(forward)
        def noted(hidden, *args, **kwargs):
            seen.add(tuple(hidden.shape))
            return forward(hidden, *args, **kwargs)

        return noted

    expected = engine.token_nll(tokens(7, 20), 1)
    engine.forwards = [noting(forward) for forward in forwards]
    torch.testing.assert_close(engine.token_nll(tokens(7, 20), 1), expected, atol=1e-5, rtol=0)
    assert seen == {(4, 20, 32)}


def test_layers_that_cannot_be_compiled_run_as_they_are(llama, monkeypatch, caplog):
    monkeypatch.setenv("CXX", "no-such-compiler")
    torch._dynamo.reset()
    # By its own context manager: monkeypatch would leave some entries deleted, and no later test could compile.
    without = {"cpp.cxx": (None, "no-such-compiler"), "force_disable_caches": True, "compile_threads": 1}
    with torch._inductor.config.patch(without):
        engine = Engine(llama, EngineSpec(compile=True))
    assert not engine.forwards
    assert "LlamaForCausalLM cannot run with compiled layers" in caplog.text
    ids = tokens(2, 40)
    torch.testing.assert_close(engine.token_nll(ids, 3), token_nll(llama, ids, 3, sliced=False), atol=1e-5, rtol=0)
    torch._dynamo.reset()
    monkeypatch.undo()
    assert Engine(llama, EngineSpec(compile=True)).forwards  # nothing of it stays


def test_a_model_without_a_list_of_layers_is_not_compiled(llama, caplog):
    llama.model.layers = torch.nn.Sequential(*llama.model.layers)
    assert not Engine(llama, EngineSpec(compile=True)).forwards
    assert "cannot run with compiled layers: LlamaModel has 0 lists of decoder layers" in caplog.text
