"""Dual chunk attention as a checkpoint declares it."""

import pytest
import torch

from harness import methods
from harness.methods.attention.dca import Dca
from harness.models.checkpoint.geometry import geometry
from harness.models.install import applied
from tests.models.attention.cases import under
from tests.tiny import TRAINED, tiny_config, tiny_llama, tiny_model, tokens

DECLARED = {"chunk_size": 24, "local_size": 4, "original_max_position_embeddings": 32}


def declaring(**declared):
    return tiny_model(tiny_config("qwen2", max_position_embeddings=128, dual_chunk_attention_config=declared))


def test_trained_length_and_chunks_are_the_declared_ones():
    found = geometry(declaring(**DECLARED).config)
    assert (found.original_max_position_embeddings, found.dual_chunk) == (32, (24, 4))
    assert geometry(declaring(original_max_position_embeddings=64).config).dual_chunk == (
        8192,
        1024,
    )  # as vLLM reads it
    assert geometry(tiny_llama().config).dual_chunk is None


@pytest.mark.parametrize("length", [TRAINED, 100])
def test_declared_is_dca_with_those_numbers(length):
    model, ids = declaring(**DECLARED), tokens(length)
    declared = under(model, Dca(form="declared"), ids)
    by_hand = under(model, Dca(chunk=24, local=4, temperature_coefficient=0.1), ids)
    assert torch.equal(declared, by_hand)
    if length > TRAINED:
        assert (declared - under(model, Dca(), ids)).abs().max() > 1e-3


def test_native_says_that_it_is_not_computed():
    model = declaring(**DECLARED)
    with applied(model, methods.METHODS["native"](), 100) as patch:
        assert any("method=dca method.form=declared" in warning for warning in patch.warnings)
    with applied(model, methods.METHODS["native"](), 32) as patch:  # one chunk: plain attention
        assert not patch.warnings
