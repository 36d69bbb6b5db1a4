"""Heads of which a share of pairs rotates and the others rest (rope type `proportional`: Gemma 4, LFM3)."""

import copy
import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma4TextConfig, logging
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from harness.deployment.target import Target
from harness.errors import UserError
from harness.methods import METHODS, build
from harness.methods.attention.rerope import ReRope
from harness.methods.base import RopeGeometry
from harness.models.attention.by_regions import sources
from harness.models.attention.layer_rotation import layer_rotations
from harness.models.checkpoint.geometry import geometry
from harness.models.checkpoint.spec import ModelSpec
from harness.models.install import applied
from tests.models.attention.cases import under
from tests.models.attention.test_by_regions import Divided
from tests.models.tiny_families import TEXT_IDS, tiny_family_config, tiny_family_model
from tests.tiny import logits

LENGTH = 96
FAMILIES = ["gemma4_text", "gemma4", "lfm3"]
GEMMA4 = RopeGeometry(rotary_dim=64, rope_theta=1e6, original_max_position_embeddings=8192, resting=192)
# The same frequencies as those of a head of which every pair rotates
SAME = RopeGeometry(rotary_dim=64, rope_theta=1e6 ** (64 / 256), original_max_position_embeddings=8192)
OF_THE_BASE = {"abf"}  # sets rope_theta, which counts in channels that rest, too
logging.set_verbosity_error()


def ids(length=LENGTH):
    return torch.randint(*TEXT_IDS, (1, length), generator=torch.Generator().manual_seed(1))


def with_factor(model, factor):
    """The same weights in a model whose full attention declares `proportional` with a factor."""
    config = copy.deepcopy(model.config)
    text = config.get_text_config()
    text.rope_parameters["full_attention"]["factor"] = factor
    scaled = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    scaled.load_state_dict(model.state_dict())
    return scaled


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    torch.set_num_threads(1)
    return tiny_family_model(tiny_family_config(request.param))


def scored(model, name, **params):
    method = build(name, params, geometry(model.config), LENGTH)
    with applied(model, method, LENGTH):
        return logits(model, ids())


def test_gemma_4s_geometry_is_that_of_its_full_attention():
    config = Gemma4TextConfig(global_head_dim=256, max_position_embeddings=8192)
    assert geometry(config) == GEMMA4
    assert len(GEMMA4.inv_freq) == 32
    assert GEMMA4.inv_freq[31] == pytest.approx(0.0352269465, rel=1e-8)
    assert 2 * math.pi / GEMMA4.inv_freq[31] == pytest.approx(178.363, rel=1e-6)
    theirs, _ = ROPE_INIT_FUNCTIONS["proportional"](config, layer_type="full_attention")
    np.testing.assert_allclose(theirs, np.append(GEMMA4.inv_freq, np.zeros(96)), rtol=1e-6)


def test_full_attention_has_heads_of_its_own_width():
    assert geometry(Gemma4TextConfig()).exponent_dim == 512


@pytest.mark.parametrize("name", [n for n in METHODS if METHODS[n].kind == "frequency" and n not in OF_THE_BASE])
def test_methods_scale_the_pairs_that_rotate_as_if_there_were_no_others(name):
    params = {"long_factor": [2.0] * 32, "short_factor": [1.0] * 32} if name == "longrope" else {}
    got, same = (build(name, params, g, 65536)(g, 65536) for g in (GEMMA4, SAME))
    np.testing.assert_allclose(got.inv_freq, same.inv_freq, rtol=1e-12)
    assert got[1:] == same[1:]


def test_another_base_counts_in_the_whole_head():
    inv_freq = build("abf", {"rope_theta": 5e6}, GEMMA4, 65536)(GEMMA4, 65536).inv_freq
    np.testing.assert_allclose(inv_freq, [5e6 ** (-2 * i / 256) for i in range(32)], rtol=1e-12)


def test_none_and_native_are_the_model_itself(model):
    own = logits(model, ids())
    assert torch.equal(scored(model, "none"), own)
    assert torch.equal(scored(model, "native"), own)


def test_linear_is_the_familys_own_factor(model):
    own, declared = logits(model, ids()), with_factor(model, 3.0)
    theirs = logits(declared, ids())
    assert (theirs - own).abs().max() > 1e-2, "the test would not see a factor that was not applied"
    torch.testing.assert_close(scored(model, "linear", factor=3.0), theirs, atol=1e-5, rtol=0)
    torch.testing.assert_close(scored(declared, "none"), own, atol=1e-5, rtol=0)
    assert torch.equal(scored(declared, "native"), theirs)
    assert torch.equal(logits(model, ids()), own)


def test_attention_methods_rotate_the_same_pairs(model):
    own = logits(model, ids())
    theirs = logits(with_factor(model, 2.0), ids())
    torch.testing.assert_close(under(model, Divided(), ids()), theirs, atol=1e-5, rtol=0)
    torch.testing.assert_close(under(model, ReRope(window=LENGTH - 1), ids()), own, atol=1e-5, rtol=0)
    assert (under(model, ReRope(window=8), ids()) - own).abs().max() > 1e-2


def test_attention_methods_rotate_backwards_where_the_model_does():
    model = tiny_family_model(tiny_family_config("nanochat"))
    own = logits(model, ids())
    torch.testing.assert_close(under(model, ReRope(window=LENGTH - 1), ids()), own, atol=1e-5, rtol=0)
    torch.testing.assert_close(under(model, Divided(), ids()), scored(model, "linear", factor=2.0), atol=1e-5, rtol=0)
    assert (under(model, ReRope(window=8), ids()) - own).abs().max() > 1e-3


def test_channels_that_rest_keep_their_length_under_a_temperature(model):
    found = [
        one for one in layer_rotations(model, sources(model, None)).values() if one and one.source.geometry.resting
    ]
    for one in found:
        module, kind = one.source.rotary.module, one.source.layer_type
        method = build("yarn", {"factor": 4.0}, one.source.geometry, LENGTH)
        with applied(model, method, LENGTH):
            cos, sin = module(torch.zeros(1, 1, 1), torch.tensor([[5]]), kind)
        length, pairs = (cos**2 + sin**2).sqrt()[0, 0], one.source.geometry.rotary_dim // 2
        rest = one.source.geometry.resting // 2
        expected = ([0.1 * math.log(4) + 1] * pairs + [1.0] * rest) * 2
        np.testing.assert_allclose(length, expected, rtol=1e-6)
    assert found


def test_no_engine_takes_a_scaling_of_them(tmp_path, own_cache):
    tiny_family_config("gemma4_text").save_pretrained(tmp_path)
    with pytest.raises(UserError, match="gemma4_text rotates a share of its pairs"):
        Target.of(ModelSpec(name="tiny", path=str(tmp_path)), LENGTH)
