"""The parts of a model, and a body that comes back whatever happens to its head."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from harness.models.parts import body_of, decoder_layers, final_norms, head_of, widths
from tests.tiny import VOCABULARY, tiny_llama, tokens


def test_parts_of_a_llama():
    model = tiny_llama()
    assert body_of(model) is model.model
    assert decoder_layers(model) is model.model.layers
    assert final_norms(model) == [model.model.norm]
    assert widths(model) == (64, 96, VOCABULARY, 32)


def test_a_family_that_says_no_inner_width_has_four_times_the_hidden_one():
    config = GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=1, n_head=2)
    assert widths(GPT2LMHeadModel(config)) == (32, 128, VOCABULARY, 32)


def test_a_head_gives_the_logits_of_hidden_states_and_the_body_comes_back():
    model, ids = tiny_llama(), tokens(9)
    body = model.model
    with torch.no_grad():
        hidden, expected = body(ids).last_hidden_state, model(ids).logits
        with head_of(model) as head:
            assert torch.equal(head(hidden), expected)
    assert model.model is body


def test_the_body_comes_back_after_an_error():
    model = tiny_llama()
    body = model.model
    with pytest.raises(RuntimeError), head_of(model) as head:
        head(torch.zeros(1, 1, 7))  # of another width
    assert model.model is body
