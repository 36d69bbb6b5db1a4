"""Frequencies in and out of a model: what is recorded, what stays, what is refused."""

import copy
import json
import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch

from harness.errors import UserError
from harness.methods import METHODS, RopeFrequencies, build
from harness.models.checkpoint.geometry import geometry
from harness.models.checkpoint.sliding_window import set_window, windowed_layers
from harness.models.install import applied
from harness.models.installed import Installed
from harness.models.rotary.angles import Angles, RotaryForward
from harness.models.rotary.find import identity_rotation, rotaries
from harness.models.rotary.layout import probe
from tests.tiny import (
    TRAINED,
    WITH_TABLES,
    logits,
    tiny_config,
    tiny_llama,
    tiny_model,
    tokens,
    with_scaling,
)

FREQUENCY_METHODS = {"none", "linear", "ntk", "yarn", "dynamic_ntk", "dynamic_yarn"} & set(METHODS)


@dataclass(frozen=True)
class Fixed:
    """A method that asks for what the test says."""

    frequencies: RopeFrequencies
    kind: ClassVar[str] = "frequency"

    def __call__(self, geometry, length):
        return self.frequencies


def under(model, name, length, ids=None, **params):
    method = build(name, params, geometry(model.config), length)
    with applied(model, method, length):
        return logits(model, tokens(length) if ids is None else ids)


def plain(size=16, theta=10_000.0):
    return np.array([theta ** (-2 * i / size) for i in range(size // 2)])


@pytest.fixture(scope="module")
def llama():
    torch.set_num_threads(1)
    return tiny_llama()


def test_the_patch_records_what_each_module_rotates_by(llama):
    with applied(llama, build("linear", {"factor": 4.0}, geometry(llama.config), 64), 64) as patch:
        assert "forward" in vars(llama.model.rotary_emb)
    (installed,) = patch.installed
    assert installed.path == "model.rotary_emb"
    np.testing.assert_allclose(installed.inv_freq, plain() / 4, rtol=1e-12)
    assert (installed.attention_scaling, installed.unscaled_prefix) == (1.0, 0)
    assert "forward" not in vars(llama.model.rotary_emb)


def test_cosines_and_sines_are_rounded_once():
    model = tiny_llama()
    far = torch.tensor([[1_999_999]])
    scaling, inv_freq = 1.25, plain() * 0.7
    with applied(model, Fixed(RopeFrequencies(inv_freq, scaling)), 2_000_000):
        cos, sin = model.model.rotary_emb(torch.zeros(1, 1, 64), far)
    angles = np.array([math.remainder(1_999_999 * f, 2 * math.pi) for f in np.tile(inv_freq, 2)])
    np.testing.assert_allclose(cos[0, 0], scaling * np.cos(angles), atol=1e-7)
    np.testing.assert_allclose(sin[0, 0], scaling * np.sin(angles), atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "olmo2", "deepseek_v2"])
def test_rotations_have_the_type_that_the_module_hands_out(family, dtype):
    model = tiny_model(tiny_config(family))
    rotary, ask = model.model.rotary_emb, (torch.zeros(1, 1, 64, dtype=dtype), torch.tensor([[3]]))
    own = rotary(*ask)
    with applied(model, build("linear", {"factor": 2.0}, geometry(model.config), 64), 64):
        ours = rotary(*ask)
    own, ours = (x if isinstance(x, tuple) else (x,) for x in (own, ours))
    assert [x.dtype for x in ours] == [x.dtype for x in own]
    assert [x.shape for x in ours] == [x.shape for x in own]


def test_positions_below_the_prefix_stay_unscaled(llama):
    scaled = plain() / 8
    hidden, positions = torch.zeros(1, 1, 64), torch.arange(12)[None]
    with applied(llama, Fixed(RopeFrequencies(scaled, 1.1, unscaled_prefix=5)), 64) as patch:
        cos, _ = llama.model.rotary_emb(hidden, positions)
    expected = [[1.1 * math.cos(p * f) for f in (plain() if p < 5 else scaled)] for p in range(12)]
    np.testing.assert_allclose(cos[0, :, :8], expected, atol=1e-6)
    assert patch.installed[0].unscaled_prefix == 5


def test_the_read_back_sees_a_wrong_frequency(llama):
    """Off by a hundred-thousandth in the slowest channel, or in the scaling: neither is what was put in."""
    held = llama.model.rotary_emb.inv_freq
    asked = RopeFrequencies(plain() / 3, 1.1)
    rotation = RotaryForward(
        probe(llama.model.rotary_emb, None, held), Angles.of(geometry(llama.config), [asked], held.device)
    )
    right = 1.1 * np.exp(1j * np.tile(plain() / 3, 2))[None]
    assert rotation.explains(right)
    assert not rotation.explains(right * np.exp(1e-5j * np.tile(np.arange(8) == 7, 2) * plain()[-1] / 3))
    assert not rotation.explains(right * 1.00001)


def test_identity_rotation_leaves_queries_and_keys_alone(llama):
    untouched = logits(llama, tokens(24))
    with identity_rotation(llama, 24):
        cos, sin = llama.model.rotary_emb(torch.zeros(1, 1, 64), torch.arange(24)[None])
        still = logits(llama, tokens(24))
    assert torch.equal(cos, torch.ones_like(cos))
    assert torch.equal(sin, torch.zeros_like(sin))
    assert (still - untouched).abs().max() > 1e-2


def test_factor_one_leaves_the_model_alone(llama):
    for name in ("linear", "ntk", "yarn"):
        with applied(llama, build(name, {"factor": 1.0}, geometry(llama.config), 64), 64) as patch:
            assert patch.installed == ()


def test_the_trained_length_can_be_overridden(llama):
    for trained in (16, 64):
        shape = geometry(llama.config, trained)
        with applied(llama, build("ntk", {}, shape, 128), 128, trained) as patch:
            assert patch.installed[0].inv_freq[-1] == pytest.approx(plain()[-1] * trained / 128)


def test_a_window_does_not_depend_on_what_ran_before():
    """Own methods and the checkpoint's own dynamic scaling, whose state transformers carries along."""
    dynamic = with_scaling(tiny_llama(), rope_type="dynamic", factor=2.0)
    for model in (tiny_llama(), dynamic):
        for name in sorted(FREQUENCY_METHODS | {"native"}):
            fresh = under(copy.deepcopy(model), name, TRAINED)
            for other, length in [("native", 128), ("yarn", 96), ("linear", 20), (name, 256), (name, 8)]:
                under(model, other, length)
                assert torch.equal(under(model, name, TRAINED), fresh), (name, other, length)


def test_transformers_itself_does_depend_on_it():
    """The test above would pass for nothing if the library's dynamic scaling kept no state."""
    model = with_scaling(tiny_llama(), rope_type="dynamic", factor=2.0)
    fresh = logits(model, tokens(TRAINED))
    logits(model, tokens(128))
    assert not torch.equal(logits(model, tokens(TRAINED)), fresh)


def test_native_scales_by_the_length_of_each_window():
    model = with_scaling(tiny_llama(), rope_type="dynamic", factor=2.0)
    expected = [logits(copy.deepcopy(model), tokens(length)) for length in (128, 40, 128)]
    method = build("native", {}, geometry(model.config), 128)
    with applied(model, method, 128):
        for length, alone in zip((128, 40, 128), expected, strict=True):
            assert torch.equal(logits(model, tokens(length)), alone)


def test_an_exception_inside_restores_the_model(llama):
    untouched = logits(llama, tokens(48))
    method = build("yarn", {"factor": 3.0}, geometry(llama.config), 48)
    with pytest.raises(RuntimeError), applied(llama, method, 48):
        raise RuntimeError
    assert torch.equal(logits(llama, tokens(48)), untouched)


def test_local_layers_keep_their_frequencies_until_their_window_is_lifted():
    config = tiny_config("gemma3_text")
    method = build("linear", {"factor": 4.0}, geometry(config), 64)
    with applied(tiny_model(config), method, 64) as patch:
        found = {one.layer_type: one.inv_freq for one in patch.installed}
    np.testing.assert_allclose(found["sliding_attention"], plain(theta=10_000.0))
    np.testing.assert_allclose(found["full_attention"], plain(theta=1_000_000.0) / 4)
    set_window(config, None)
    with applied(tiny_model(config), method, 64) as patch:
        found = {one.layer_type: one.inv_freq for one in patch.installed}
    np.testing.assert_allclose(found["sliding_attention"], plain(theta=10_000.0) / 4)


def test_windowed_attention_is_reported_and_can_be_lifted():
    config = tiny_config("mistral", sliding_window=8)
    message = "2 of 2 layers see only 8 tokens, fewer than ctx=40; model.sliding_window=null lifts it."
    assert windowed_layers(config, 40) == [message]
    assert windowed_layers(config, 8) == []
    windowed = tiny_model(config)
    with applied(windowed, build("none", {}, geometry(config), 40), 40) as patch:
        assert patch.warnings == (message,)
    unlimited = tiny_model(tiny_config("mistral", sliding_window=None))
    lifted_config = copy.deepcopy(config)
    set_window(lifted_config, None)
    lifted = tiny_model(lifted_config)
    assert windowed_layers(lifted_config, 10**6) == []
    assert torch.equal(logits(lifted, tokens(40)), logits(unlimited, tokens(40)))
    assert not torch.equal(logits(windowed, tokens(40)), logits(unlimited, tokens(40)))


def test_chunked_attention_is_reported_too():
    config = tiny_config("llama4_text")
    assert windowed_layers(config, 40)[0].startswith("1 of 2 layers see only 8 tokens")
    set_window(config, None)
    assert windowed_layers(config, 40) == []


def test_deepseek_softmax_scale_is_switched_off_with_its_scaling():
    plain_model = tiny_model(tiny_config("deepseek_v3"))
    declared = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": TRAINED}
    scaled = with_scaling(plain_model, **declared, mscale=1.0, mscale_all_dim=1.0)
    before = scaled.model.layers[0].self_attn.scaling
    assert before == pytest.approx((0.1 * math.log(4) + 1) ** 2 / math.sqrt(24))
    torch.testing.assert_close(under(scaled, "none", 64), logits(plain_model, tokens(64)), atol=1e-5, rtol=0)
    assert scaled.model.layers[0].self_attn.scaling == before


@pytest.mark.parametrize("family", ["deepseek_v2", "deepseek_v3"])
@pytest.mark.parametrize(("mscale", "mscale_all_dim"), [(1.0, 1.0), (0.707, 0.707), (1.0, 0.8)])
def test_yarn_with_a_deepseek_checkpoints_numbers_is_the_checkpoint(family, mscale, mscale_all_dim):
    plain_model = tiny_model(tiny_config(family))
    numbers = {"factor": 3.0, "mscale": mscale, "mscale_all_dim": mscale_all_dim}
    declared = {"rope_type": "yarn", "original_max_position_embeddings": TRAINED, **numbers}
    scaled = with_scaling(plain_model, **declared)
    own = logits(scaled, tokens(64))
    for model in (scaled, plain_model):  # the checkpoint, and the same weights that declare nothing
        torch.testing.assert_close(under(model, "yarn", 64, **numbers), own, atol=1e-5, rtol=0)
    torch.testing.assert_close(under(scaled, "native", 64), own, atol=0, rtol=0)
    torch.testing.assert_close(under(scaled, "none", 64), logits(plain_model, tokens(64)), atol=1e-5, rtol=0)
    assert (own - logits(plain_model, tokens(64))).abs().max() > 1e-2


@pytest.mark.parametrize("family", WITH_TABLES)
def test_tables_of_sines_and_cosines_are_replaced(family):
    """GPT-J and CodeGen: the same model with tables written by hand, which scaled positions would give."""
    model = tiny_model(tiny_config(family))
    by_hand = copy.deepcopy(model)
    angles = np.outer(np.arange(96) / 3, plain(8))
    table = torch.tensor(np.concatenate([np.sin(angles), np.cos(angles)], axis=1), dtype=torch.float32)
    for module in by_hand.modules():
        if hasattr(module, "embed_positions"):
            module.embed_positions = table
    untouched = logits(model, tokens(TRAINED))
    torch.testing.assert_close(under(model, "linear", 96), logits(by_hand, tokens(96)), atol=1e-5, rtol=0)
    assert torch.equal(under(model, "none", TRAINED), untouched)
    assert torch.equal(logits(model, tokens(TRAINED)), untouched)


@pytest.mark.parametrize("family", WITH_TABLES)
def test_the_read_back_sees_a_wrong_table(family, monkeypatch):
    model = tiny_model(tiny_config(family))
    method = Fixed(RopeFrequencies(plain(8) / 3, 1.1, unscaled_prefix=5))
    with applied(model, method, 96) as patch:
        (installed,) = patch.installed
    assert installed.path == "transformer.h.0.attn"
    assert (installed.attention_scaling, installed.unscaled_prefix) == (1.1, 5)
    np.testing.assert_array_equal(installed.inv_freq, plain(8) / 3)
    right = Angles.__call__
    monkeypatch.setattr(Angles, "__call__", lambda self, positions: right(self, positions) * 1.001)
    with pytest.raises(AssertionError, match=r"transformer.h.0.attn"), applied(model, method, 96):
        pass


def test_a_record_tells_frequencies_apart_by_their_last_bit():
    one = Installed("model.rotary_emb", None, plain(), 1.0, 0)
    other = replace(one, inv_freq=np.append(plain()[:-1], np.nextafter(plain()[-1], 1)))
    assert one.record == replace(one, inv_freq=plain()).record
    assert {key for key in one.record if one.record[key] != other.record[key]} == {"inv_freq"}
    assert json.loads(json.dumps(one.record)) == one.record


@pytest.mark.parametrize("family", WITH_TABLES)
def test_tables_are_lengthened_where_they_end(family):
    short = tiny_model(tiny_config(family))
    long = tiny_model(tiny_config(family, max_position_embeddings=96))
    torch.testing.assert_close(under(short, "none", 96), logits(long, tokens(96)), atol=1e-5, rtol=0)


def test_frequencies_that_are_no_powers_of_theta_are_refused_by_name():
    model = tiny_llama()
    rotary = model.model.rotary_emb
    rotary.compute_default_rope_parameters = lambda config: (rotary.inv_freq * 1.5, 1.0)
    method = build("yarn", {"factor": 2.0}, geometry(model.config), 64)
    with pytest.raises(UserError, match="LlamaRotaryEmbedding: its unscaled frequencies"):
        applied(model, method, 64).__enter__()


def test_modules_that_do_more_than_rotate_are_refused_by_name():
    model = tiny_llama()
    own = type(model.model.rotary_emb)

    class Drifting(own):
        def forward(self, x, position_ids):
            cos, sin = super().forward(x, position_ids)
            return cos + 0.01 * position_ids[..., None], sin

    model.model.rotary_emb.__class__ = Drifting
    method = build("yarn", {"factor": 2.0}, geometry(model.config), 64)
    with pytest.raises(UserError, match="Drifting does not rotate its channels by position x frequency"):
        applied(model, method, 64).__enter__()


def test_rotary_modules_of_other_senses_are_left_out():
    model = tiny_llama()
    model.vision_tower = torch.nn.Module()
    model.vision_tower.rotary = copy.deepcopy(model.model.rotary_emb)
    assert [rotary.path for rotary in rotaries(model)] == ["model.rotary_emb"]


def test_geometry_is_read_from_the_configuration():
    read = {
        "llama": (16, 10_000.0, TRAINED),
        "glm": (8, 10_000.0, TRAINED),  # half of the channels rotate
        "deepseek_v3": (16, 10_000.0, TRAINED),  # qk_rope_head_dim
        "gemma3_text": (16, 1_000_000.0, TRAINED),  # of full attention
        "gptj": (8, 10_000.0, TRAINED),
    }
    for family, expected in read.items():
        shape = geometry(tiny_config(family))
        assert (shape.rotary_dim, shape.rope_theta, shape.original_max_position_embeddings) == expected


def test_the_declared_original_length_is_the_trained_one():
    declared = {
        "rope_type": "llama3",
        "rope_theta": 5e5,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    }
    config = tiny_config("llama", rope_parameters=declared)
    assert geometry(config).original_max_position_embeddings == 16
    assert geometry(config, 24).original_max_position_embeddings == 24
