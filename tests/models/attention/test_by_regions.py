"""Methods that change attention, through models of many families."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, HunYuanDenseV1Config, logging

from harness import methods
from harness.engine.engine import Engine
from harness.engine.spec import EngineSpec
from harness.errors import UserError
from harness.methods.attention.base import AttentionMethod
from harness.methods.attention.dca import Dca
from harness.methods.attention.leaky_rerope import LeakyReRope
from harness.methods.attention.regions import Region, positions
from harness.methods.attention.rerope import ReRope
from harness.methods.attention.self_extend import SelfExtend
from harness.methods.attention.windowed import Windowed
from harness.methods.base import RopeGeometry
from harness.models.attention.by_regions import sources
from harness.models.attention.layer_rotation import layer_rotations
from harness.models.checkpoint.geometry import geometry
from harness.models.install import applied
from tests.attention_maps import NAMES
from tests.models.attention.cases import under
from tests.tiny import FAMILIES, TRAINED, logits, tiny_config, tiny_llama, tiny_model, tokens

logging.set_verbosity_error()


class Divided(AttentionMethod):
    """Position interpolation written as one region: positions divided by 2."""

    def regions(self, length):
        rows, divided = np.arange(length), positions(length) / 2
        return (Region(np.zeros_like(rows), rows + 1, divided, divided),)

    def limit(self, geometry):
        return None


REFUSED = {
    "falcon": "attention interface",
    "gptj": "attention interface",
    "codegen": "attention interface",
    "gpt2": "no rotary",
    "bloom": "no rotary",
}
NO_POSITIONS = {  # family -> which layers have none
    "smollm3": ({"no_rope_layers": [1, 0]}, [False, True]),
    "llama4_text": ({"no_rope_layers": [1, 0]}, [False, True]),
    "cohere2": ({}, [False, True]),
    "exaone4": ({}, [False, True]),
    "llama": ({}, [False, False]),
}


@pytest.fixture(scope="module", params=[f for f in FAMILIES if f not in REFUSED])
def model(request):
    torch.set_num_threads(1)
    return tiny_model(tiny_config(request.param))


def test_every_family_rotates_as_its_own_rotary_embedding_does(model):
    ids = tokens(48, 2)
    untouched = logits(model, ids)
    with applied(model, methods.build("linear", {"factor": 2.0}, geometry(model.config), 48), 48):
        expected = logits(model, ids)
    assert (expected - untouched).abs().max() > 1e-3, "the test would not see positions that were not divided"
    torch.testing.assert_close(under(model, Divided(), ids), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(under(model, ReRope(window=47), ids), untouched, rtol=0, atol=1e-5)
    assert torch.equal(logits(model, ids), untouched)


@pytest.mark.parametrize("family", NO_POSITIONS)
def test_layers_without_position_stay_unrotated(family):
    overrides, expected = NO_POSITIONS[family]
    model = tiny_model(tiny_config(family, **overrides))
    found = layer_rotations(model, sources(model, None))
    assert [found[layer] is None for layer in sorted(found, key=lambda m: m.layer_idx)] == expected


@pytest.mark.parametrize("family", REFUSED)
def test_families_that_cannot_be_handled_are_refused_by_name(family):
    model = tiny_model(tiny_config(family))
    with pytest.raises(UserError, match=REFUSED[family]) as error, applied(model, ReRope(window=4), 16):
        logits(model, tokens(16))
    assert family in str(error.value)
    assert "\n" not in str(error.value)


def tiny_hunyuan():
    sizes = {"vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 16}
    config = HunYuanDenseV1Config(**sizes, num_attention_heads=4, num_key_value_heads=2, pad_token_id=0)
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


def test_norms_after_rotation_are_refused_by_name():
    model = tiny_hunyuan()
    with pytest.raises(UserError, match="hunyuan_v1_dense norms queries"), applied(model, ReRope(window=4), 16):
        pass


def test_the_probe_sees_what_happens_after_rotation():
    model = tiny_hunyuan()
    found = sources(model, None)
    assert None not in layer_rotations(model, found).values(), "norms whose weights are all 1 let rotations pass"
    with torch.no_grad():
        model.model.layers[1].self_attn.query_layernorm.weight.uniform_(0.5, 2)
    with pytest.raises(UserError, match="hunyuan_v1_dense does more to queries"):
        layer_rotations(model, found)


WIDE = RopeGeometry(rotary_dim=16, rope_theta=1e4, original_max_position_embeddings=TRAINED)
EQUAL = [  # method, longest window at which it is direct extrapolation, whether it is not at the next length
    (ReRope(window=47), 48, True),
    (ReRope(window=20), 21, True),
    (SelfExtend(window=48, group=5), 48, True),
    (SelfExtend(window=6, group=1), 48, False),
    (LeakyReRope(window=5, factor=1.0), 48, False),
    (Dca(chunk=21, local=3, temperature=False), 22, True),  # chunk + 1
    (Dca(chunk=40, local=24, temperature=False), 32, True),  # twice the chunk length
    (Dca(form="paper"), TRAINED, True),
    (Windowed(window=40, sinks=2), 41, True),  # the first token is seen at the window, its true distance there
    (Windowed(window=40, sinks=0), 40, True),
    (Windowed(form="streaming", window=30, sinks=2), 32, True),
]


@pytest.mark.parametrize(("method", "length", "last"), EQUAL, ids=str)
def test_limits_are_direct_extrapolation(method, length, last):
    model, ids = tiny_llama(), tokens(length + 1, 2)
    resolved = method.resolved(geometry(model.config), length)
    difference = (under(model, resolved, ids) - logits(model, ids)).abs()
    assert difference[:, :-1].max() < 1e-5
    assert (difference[:, -1].max() > 1e-4) == last


def test_leaky_rerope_with_a_huge_factor_approaches_rerope():
    model, ids = tiny_llama(), tokens(96)
    rectified = under(model, ReRope(window=6), ids)
    distances = [
        (under(model, LeakyReRope(window=6, factor=k), ids) - rectified).abs().max() for k in (10.0, 100.0, 1e7)
    ]
    assert distances[0] > 3 * distances[1] > 9 * distances[2]
    assert distances[2] < 1e-5


@pytest.mark.parametrize(("length", "multiplier"), [(TRAINED, 1.0), (4 * TRAINED, 1 + 0.05 * np.log(4))])
def test_temperature_of_the_codes_dca(length, multiplier):
    frequencies = methods.build("dca", {}, WIDE, length)(WIDE, length)
    assert frequencies.attention_scaling == pytest.approx(multiplier, rel=1e-12)
    np.testing.assert_array_equal(frequencies.inv_freq, WIDE.inv_freq)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_window_scores_depends_on_it_alone(name):
    model, ids = tiny_llama(), tokens(80)
    method = methods.build(name, {}, geometry(model.config), 80)
    first = under(model, method, ids)
    with applied(model, method, 80):
        logits(model, tokens(70, 3))
        assert torch.equal(logits(model, ids), first)
        together = logits(model, torch.cat((tokens(80, 1, seed=5), ids)))
    torch.testing.assert_close(together[1:], first, rtol=0, atol=1e-5)
    assert model.config._attn_implementation == "eager"


@pytest.mark.parametrize("name", [n for n in NAMES if not methods.build(n, {}, WIDE, 96).depends_on_length])
def test_prefixes_score_as_windows_of_their_own(name):
    model, ids = tiny_llama(), tokens(96)
    method = methods.build(name, {}, geometry(model.config), 96)
    torch.testing.assert_close(under(model, method, ids)[:, :50], under(model, method, ids[:, :50]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt_neox", "gemma3_text", "deepseek_v3"])
def test_bfloat16(family):
    model, ids = tiny_model(tiny_config(family), spread=0.05), tokens(96)
    method = ReRope(window=8)
    expected = under(model, method, ids)
    error = (under(model.bfloat16(), method, ids) - expected).abs().mean() / expected.abs().mean()
    assert error < 0.05


def test_a_layers_own_window_holds():
    model, ids = tiny_model(tiny_config("mistral", sliding_window=8)), tokens(60)
    torch.testing.assert_close(under(model, ReRope(window=8), ids), logits(model, ids), rtol=0, atol=1e-5)
    assert (under(model, ReRope(window=4), ids) - logits(model, ids)).abs().max() > 1e-2


def test_a_declared_multiplier_is_kept():
    declared = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": TRAINED, "rope_theta": 1e4}
    model, plain = tiny_llama(rope_parameters={**declared, "attention_factor": 1.5}), tiny_llama()
    for layer in plain.model.layers:
        layer.self_attn.scaling *= 1.5**2
    ids = tokens(40)
    torch.testing.assert_close(under(model, ReRope(window=40), ids), logits(plain, ids), rtol=0, atol=1e-5)


def test_what_layers_rotate_by_is_recorded_once_for_each_layer_type():
    model = tiny_model(tiny_config("gemma3_text"))
    with applied(model, ReRope(window=8).resolved(geometry(model.config), 48), 48) as patch:
        found = {one.layer_type: one for one in patch.installed}
    assert len(patch.installed) == len(found) == 2
    assert {one.path for one in patch.installed} == {"model.rotary_emb"}
    for kind, theta in (("sliding_attention", 10_000.0), ("full_attention", 1_000_000.0)):
        np.testing.assert_allclose(found[kind].inv_freq, theta ** -(np.arange(8) / 8), rtol=1e-12)


def test_reach_is_reported_when_ctx_exceeds_it():
    model = tiny_llama()
    method = SelfExtend(group=2, window=8)
    for length, expected in ((56, 0), (57, 1)):
        with applied(model, method, length) as patch:
            assert len(patch.warnings) == expected
    assert "reaches 56 tokens" in patch.warnings[0]
    assert "ctx=57" in patch.warnings[0]


def test_padding_caches_and_gradients_are_refused():
    model, ids = tiny_llama(), tokens(12, 2)
    padded = torch.ones_like(ids)
    padded[1, :3] = 0
    with applied(model, ReRope(window=4), 12):
        with torch.no_grad(), pytest.raises(UserError, match="padding"):
            model(ids, attention_mask=padded)
        with torch.no_grad(), pytest.raises(UserError, match="cache"):
            model(ids[:, -1:], past_key_values=model(ids[:, :-1], use_cache=True).past_key_values)
        with pytest.raises(UserError, match="gradients"):
            model(ids)


@pytest.mark.parametrize("name", ["rerope", "dca"])
def test_compiled_layers_equal_eager_ones(name):
    model, ids = tiny_llama(), tokens(2, 100)
    method = methods.build(name, {}, geometry(model.config), 100)
    plain, fast = Engine(model, EngineSpec()), Engine(model, EngineSpec(compile=True))
    assert fast.forwards
    with applied(model, method, 100):
        torch.testing.assert_close(fast.token_nll(ids, 1), plain.token_nll(ids, 1), atol=1e-5, rtol=0)
