"""Caches in few bits, against their formats written one number at a time."""

import numpy as np
import pytest
import torch

from harness import methods
from harness.errors import UserError
from harness.methods.modifiers.kv_cache import KV_CACHES, kv_cache
from harness.models.attention.kv_cache import ROUNDED
from harness.models.attention.route import routed
from harness.models.checkpoint.geometry import geometry
from harness.models.install import applied
from tests.reference.kv_cache import FORMATS
from tests.tiny import logits, tiny_config, tiny_llama, tiny_model, tokens


@pytest.mark.parametrize("name", KV_CACHES)
@pytest.mark.parametrize("spread", [1e-2, 1.0, 300.0])
def test_numbers_are_the_formats(name, spread):
    states = torch.randn(2, 3, 5, 32, generator=torch.Generator().manual_seed(3)) * spread
    states[0, 0, 0] = 0
    expected = np.array([FORMATS[name](block) for block in states.double().reshape(-1, 32).tolist()])
    np.testing.assert_allclose(ROUNDED[name](states).reshape(-1, 32).numpy(), expected, rtol=2e-6, atol=1e-9)


def test_blocks_have_steps_of_their_own():
    states = torch.cat([torch.linspace(-1, 1, 32), torch.linspace(-100, 100, 32)])[None]
    for name in ("q8_0", "q4_0"):
        expected = [FORMATS[name](block) for block in states.double().reshape(2, 32).tolist()]
        np.testing.assert_allclose(ROUNDED[name](states).reshape(2, 32).numpy(), expected, rtol=2e-6)
    assert ROUNDED["int8"](states)[0, 0] != ROUNDED["q8_0"](states)[0, 0]  # a step of a whole token


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("fp8_e4m3", [-8.0, 7.0, 0.0, 1.125, -448.0, 2.0, 3.5, -0.001953125]),
        ("int8", [127.0, -127.0, 0.0, 1.0, -64.0, 2.0, 3.0, -2.0]),
        ("q8_0", [127.0, -127.0, 0.0, 1.0, -64.0, 2.0, 3.0, -2.0]),
        ("q4_0", [-8.0, 7.0, 0.0, 1.0, -4.0, 2.0, 3.0, -2.0]),
    ],
)
def test_what_a_format_can_hold_passes_unchanged(name, held):
    states = torch.tensor([held * 4])
    assert torch.equal(ROUNDED[name](states), states)


@pytest.mark.parametrize("method", ["none", "yarn", "rerope", "native"])
def test_any_method_runs_with_any_cache(method):
    model, ids = (
        tiny_model(tiny_config("llama", hidden_size=64, num_attention_heads=2, num_key_value_heads=1)),
        tokens(48),
    )
    chosen = methods.build(method, {}, geometry(model.config), 48)
    with applied(model, chosen, 48):
        plain = logits(model, ids)
    changes = {}
    for name in KV_CACHES:
        with applied(model, chosen, 48, kv_cache=name):
            changes[name] = float((logits(model, ids) - plain).abs().mean())
    assert 0 < changes["q8_0"] < changes["fp8_e4m3"] < changes["q4_0"]
    assert 0 < changes["int8"] < changes["q4_0"]
    with applied(model, chosen, 48):
        assert torch.equal(logits(model, ids), plain)


WHOLE = [-8.0, 7.0, 0.0, 1.0, -4.0, 2.0, 3.0, -2.0] * 4
HELD = {"fp8_e4m3": WHOLE, "int8": [127.0, *WHOLE[1:]], "q8_0": [127.0, *WHOLE[1:]], "q4_0": WHOLE}


@pytest.mark.parametrize("name", KV_CACHES)
def test_a_model_whose_keys_and_values_a_cache_can_hold_is_the_plain_one(name):
    model, ids = tiny_model(tiny_config("qwen2", hidden_size=64, num_attention_heads=2)), tokens(40)
    still = methods.build("p_rope", {"share": 0.0}, geometry(model.config), 40)  # keys are what the projections give

    def under(held, **modifiers):
        with torch.no_grad():
            for layer in model.model.layers:
                for projection in (layer.self_attn.k_proj, layer.self_attn.v_proj):
                    projection.weight.zero_()
                    projection.bias.copy_(torch.tensor(held).repeat(len(projection.bias) // 32))
        with applied(model, still, 40, **modifiers):
            return logits(model, ids)

    assert torch.equal(under(HELD[name], kv_cache=name), under(HELD[name]))
    between = [x + 0.3 for x in HELD[name]]
    assert not torch.equal(under(between, kv_cache=name), under(between))


def test_attention_sees_keys_rounded_after_their_rotation_and_values():
    model, ids, seen = tiny_model(tiny_config("llama", hidden_size=64, num_attention_heads=2)), tokens(20), []

    def record(module, query, key, value, *_, **__):
        seen.append((query, key, value))
        return torch.zeros_like(query).transpose(1, 2), None  # so that later layers get the same states

    def states(**modifiers):
        seen.clear()
        with routed(model, record, lambda **_: None), applied(model, methods.METHODS["none"](), 20, **modifiers):
            seen.clear()  # what looking at the layers left
            logits(model, ids)
        return list(seen)

    for (query, key, value), (own_query, own_key, own_value) in zip(states(kv_cache="q4_0"), states(), strict=True):
        assert torch.equal(query, own_query)
        assert torch.equal(key, ROUNDED["q4_0"](own_key))
        assert torch.equal(value, ROUNDED["q4_0"](own_value))


def test_mistakes_take_one_line():
    with pytest.raises(UserError, match=r"Unknown method.kv_cache 'fp8'. Did you mean 'fp8_e4m3'"):
        kv_cache("fp8")
    model = tiny_llama()  # heads of 16 channels
    with (
        pytest.raises(UserError, match=r"q4_0: heads of llama must have a multiple of 32 channels, got 16"),
        applied(model, methods.METHODS["none"](), 20, kv_cache="q4_0"),
    ):
        logits(model, tokens(20))
