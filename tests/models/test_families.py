"""Frequencies put into tiny random models of many families, against the family's own scaling of the same kind."""

import pytest
import torch
from transformers import logging

from harness.errors import UserError
from harness.methods import build
from harness.models.checkpoint.geometry import geometry
from harness.models.install import applied
from tests.tiny import (
    FAMILIES,
    TRAINED,
    WITHOUT_ROTARY,
    logits,
    tiny_config,
    tiny_model,
    tokens,
    with_scaling,
)

LENGTH = 96  # short: transformers multiplies positions and frequencies in float32
FACTOR = LENGTH / TRAINED
DECLARED = {
    "linear": {"rope_type": "linear", "factor": FACTOR},
    "yarn": {"rope_type": "yarn", "factor": FACTOR, "original_max_position_embeddings": TRAINED},
}
logging.set_verbosity_error()


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    torch.set_num_threads(1)
    return tiny_model(tiny_config(request.param))


@pytest.fixture(scope="module")
def untouched(model):
    return logits(model, tokens(LENGTH))


def under(model, name, length=LENGTH):
    method = build(name, {}, geometry(model.config), length)
    with applied(model, method, length):
        return logits(model, tokens(length))


def test_at_least_thirty_families():
    assert len(FAMILIES) >= 30


@pytest.mark.parametrize("name", DECLARED)
def test_equals_the_familys_own_scaling(model, untouched, name):
    ours, theirs = under(model, name), logits(with_scaling(model, **DECLARED[name]), tokens(LENGTH))
    assert (untouched - theirs).abs().max() > 1e-2, "the test would not see a scaling that was not applied"
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_none_is_the_untouched_model(model, untouched):
    assert torch.equal(under(model, "none"), untouched)


@pytest.mark.parametrize("name", DECLARED)
def test_the_models_own_scaling_is_switched_off(model, untouched, name):
    scaled = with_scaling(model, **DECLARED[name])
    torch.testing.assert_close(under(scaled, "none"), untouched, atol=1e-5, rtol=0)
    assert torch.equal(under(scaled, "native"), logits(scaled, tokens(LENGTH)))


def test_the_model_is_as_before_afterwards(model, untouched):
    state = {name: buffer.clone() for name, buffer in model.named_buffers()}
    under(model, "yarn")
    assert torch.equal(logits(model, tokens(LENGTH)), untouched)
    assert all(torch.equal(buffer, state[name]) for name, buffer in model.named_buffers())


@pytest.mark.parametrize("family", WITHOUT_ROTARY)
@pytest.mark.parametrize("name", ["linear", "ntk", "yarn"])
def test_models_without_rotary_embedding_are_refused_by_name(family, name):
    model = tiny_model(tiny_config(family))
    method = build(name, {"factor": 2.0}, geometry(tiny_config("llama")), TRAINED)
    with pytest.raises(UserError, match=f"{family} has no rotary embedding"), applied(model, method, TRAINED):
        pass


@pytest.mark.parametrize("family", WITHOUT_ROTARY)
@pytest.mark.parametrize("name", ["none", "native"])
def test_models_without_rotary_embedding_run_unscaled(family, name):
    model = tiny_model(tiny_config(family))
    method = build(name, {}, geometry(tiny_config("llama")), TRAINED)
    with applied(model, method, TRAINED) as patch:
        assert torch.equal(logits(model, tokens(TRAINED)), logits(model, tokens(TRAINED)))
    assert patch.installed == ()


@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_learned_positions_end(family):
    model = tiny_model(tiny_config(family))
    method = build("none", {}, geometry(tiny_config("llama")), TRAINED)
    with pytest.raises(UserError, match=f"no positions beyond {TRAINED} tokens, got ctx={TRAINED + 1}"):
        applied(model, method, TRAINED + 1).__enter__()
