"""A checkpoint's own scale of queries: kept by every method, taken out where that is asked for."""

import math

import pytest
import torch
from transformers import AutoConfig

from harness import methods
from harness.config.schema import method_spec
from harness.errors import UserError
from harness.methods.modifiers.query_scale import Floor, LogN
from harness.models.attention.route import routed
from harness.models.checkpoint.geometry import geometry
from harness.models.install import applied
from tests.models.tiny_families import tiny_family_config, tiny_family_model
from tests.reference import attention as reference
from tests.tiny import COMMON, HEADS, logits, tiny_config, tiny_llama, tiny_model, tokens

LENGTH = 40
TRAINED = 16  # so that the floor steps within the window


def ministral(beta=0.5):
    rope = {"rope_type": "default", "rope_theta": 1e4, "original_max_position_embeddings": TRAINED}
    config = AutoConfig.for_model("ministral3", **COMMON, **HEADS)
    config.rope_parameters = rope | {"llama_4_scaling_beta": beta}
    return tiny_model(config)


def llama4(tuned=True):
    own = {"attn_temperature_tuning": tuned, "attn_scale": 0.5, "floor_scale": TRAINED, "no_rope_layers": [1, 0]}
    return tiny_model(tiny_config("llama4_text", **own))


def inkling(family, alpha=0.5):
    config = tiny_family_config(family)
    config.log_scaling_n_floor, config.log_scaling_alpha = TRAINED, alpha
    return tiny_family_model(config)


SCALED = {"ministral3": (ministral, 0.0), "llama4_text": (llama4, False)}


def under(model, name, **modifiers):
    method = methods.build(name, {}, geometry(model.config), LENGTH)
    with applied(model, method, LENGTH, **modifiers):
        return logits(model, tokens(LENGTH))


@pytest.mark.parametrize("family", SCALED)
def test_it_is_kept_by_native_and_removed_where_that_is_asked_for(family):
    build, off = SCALED[family]
    model, unscaled = build(), build(off)
    own = logits(model, tokens(LENGTH))
    assert (own - logits(unscaled, tokens(LENGTH))).abs().max() > 1e-3, "the test would not see it"
    assert torch.equal(under(model, "native"), own)
    for name in ("none", "yarn"):
        assert torch.equal(under(model, name, remove_query_scale=True), under(unscaled, name))
        assert (under(model, name) - under(unscaled, name)).abs().max() > 1e-3  # kept otherwise
    assert torch.equal(logits(model, tokens(LENGTH)), own)  # afterwards as before


@pytest.mark.parametrize("family", ["inkling_text", "inkling2_text"])
def test_it_is_removed_where_nothing_rotates(family):
    model, unscaled, ids = inkling(family), inkling(family, 0.0), tokens(LENGTH).clamp(3)
    none = methods.METHODS["none"]()
    with applied(model, none, LENGTH, trained=TRAINED, remove_query_scale=True):
        assert torch.equal(logits(model, ids), logits(unscaled, ids))
    assert (logits(model, ids) - logits(unscaled, ids)).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["rerope", "dca"])
def test_it_is_removed_under_methods_that_change_attention(name):
    model, unscaled = ministral(), ministral(0.0)
    assert (under(model, name) - under(unscaled, name)).abs().max() > 1e-3
    assert torch.equal(under(model, name, remove_query_scale=True), under(unscaled, name))


def test_the_form_floor_in_place_of_ministrals_own_is_the_same_scale():
    own, form = ministral(), Floor(beta=0.5, every=TRAINED, first=0)
    replaced = under(own, "none", remove_query_scale=True, query_scale=form)
    torch.testing.assert_close(replaced, under(own, "none"), rtol=0, atol=1e-5)


def test_queries_are_scaled_as_published():
    seen = []

    def record(module, query, key, value, *_, **__):
        seen.append(query)
        return torch.zeros_like(query).transpose(1, 2), None  # so that later layers get the same states

    def queries(model):
        seen.clear()
        with routed(model, record, lambda **_: None):
            logits(model, tokens(LENGTH))
        return seen[0]

    ratio = queries(ministral()) / queries(ministral(0.0))
    expected = [reference.floor_scale(p, TRAINED, 0.5, 0) for p in range(LENGTH)]
    torch.testing.assert_close(ratio[0, 0, :, 0], torch.tensor(expected), rtol=1e-5, atol=0)
    assert expected[TRAINED] == 1 + 0.5 * math.log(2)


def test_beside_another_scale_a_reader_is_warned():
    model = ministral()
    with applied(model, methods.METHODS["none"](), LENGTH, query_scale=LogN()) as patch:
        assert any("method.remove_query_scale=true" in warning for warning in patch.warnings)
    with applied(model, methods.METHODS["none"](), LENGTH) as patch:
        assert not patch.warnings


def test_where_there_is_none_to_remove_it_is_said_in_one_line():
    with pytest.raises(UserError, match=r"remove_query_scale: llama scales no queries"):
        under(tiny_llama(), "none", remove_query_scale=True)
    for given in (ministral(0.0), llama4(tuned=False)):
        with pytest.raises(UserError, match="scales no queries"):
            under(given, "none", remove_query_scale=True)
    with pytest.raises(UserError, match="cannot be combined with native"):
        method_spec({"name": "native", "remove_query_scale": True})
