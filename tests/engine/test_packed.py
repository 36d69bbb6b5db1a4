"""Packed weights give the products of the weights they were made of, and leave the model as it was."""

import copy

import pytest
import torch
from torch import nn

from harness.engine.engine import Engine
from harness.engine.nll import token_nll
from harness.engine.packed import _weights, pack, packed
from harness.engine.spec import EngineSpec
from tests.tiny import tiny_llama, tokens

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch without oneDNN")


@pytest.mark.parametrize("bias", [True, False])
def test_products_of_any_number_of_rows_are_those_in_float64(bias):
    layer = nn.Sequential(nn.Linear(24, 40, bias=bias))
    exact, weights = copy.deepcopy(layer).double(), pack(layer)
    assert len(weights) == 1
    generator = torch.Generator().manual_seed(0)
    for shape in ((1, 24), (3, 700, 24), (2, 0, 24)):
        states = torch.randn(shape, generator=generator)
        with torch.no_grad(), packed(layer, weights):
            torch.testing.assert_close(layer(states).double(), exact(states.double()), atol=1e-5, rtol=0)


def test_slices_and_transposed_states_are_multiplied_as_they_read():
    layer = nn.Sequential(nn.Linear(16, 8))
    states = torch.randn(16, 2, 30, generator=torch.Generator().manual_seed(0)).permute(1, 2, 0)[:, 7:20]
    with torch.no_grad(), packed(layer, pack(layer)):
        got = layer(states)
    torch.testing.assert_close(got, layer(states), atol=1e-6, rtol=0)


def test_losses_stay_and_the_model_is_as_it_was():
    model, ids = tiny_llama(tie_word_embeddings=True), tokens(40, rows=2)
    whole = token_nll(model, ids, 1)
    weights = pack(model)
    with packed(model, weights):
        got = token_nll(model, ids, 1)
        assert type(model.lm_head) is not nn.Linear
    torch.testing.assert_close(got, whole, atol=1e-5, rtol=0)
    assert torch.equal(token_nll(model, ids, 1), whole)
    assert type(model.lm_head) is nn.Linear
    assert not _weights


def test_two_models_do_not_share_weights():
    one, other, ids = tiny_llama(), tiny_llama(), tokens(20)
    for parameter in other.parameters():
        parameter.data.mul_(1.5)
    expected = token_nll(other, ids, 1)
    with packed(one, pack(one)), packed(other, pack(other)):
        torch.testing.assert_close(token_nll(other, ids, 1), expected, atol=1e-5, rtol=0)


def test_large_models_and_other_precisions_are_left_alone(monkeypatch):
    model = tiny_llama()
    assert not pack(model.bfloat16())
    assert pack(model.float())
    monkeypatch.setattr("harness.engine.packed.LARGEST", 10_000)
    assert not pack(model)


def test_packed_weights_that_do_not_equal_the_models_own_are_not_used(monkeypatch, caplog):
    model, ids = tiny_llama(), tokens(30)
    whole = token_nll(model, ids, 1)
    made = pack(model)
    wrong = {place: torch.ops.mkldnn._reorder_linear_weight(torch.ones(place[1]), 1) for place in made}
    monkeypatch.setattr("harness.engine.engine.pack", lambda model: wrong)
    engine = Engine(model, EngineSpec())
    assert not engine.weights
    assert "LlamaForCausalLM cannot run with packed weights: losses differ" in caplog.text
    torch.testing.assert_close(engine.token_nll(ids, 1), whole, atol=1e-5, rtol=0)
