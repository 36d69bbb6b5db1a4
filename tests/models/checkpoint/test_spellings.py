"""Rope scalings as a config.json may spell them, old and new: read by transformers, taken off and put back by us."""

import copy
import json

import pytest
import torch
from transformers import logging

from harness.methods import build
from harness.models.checkpoint.geometry import declares_scaling, geometry, layer_types, text_config
from harness.models.checkpoint.load import load_config
from harness.models.checkpoint.spec import ModelSpec
from harness.models.install import applied
from tests.models.tiny_families import TEXT_IDS, tiny_family_config, tiny_family_model
from tests.tiny import TRAINED, logits

LENGTH, FACTOR = 96, 3.0
TWO = {
    "short_factor": [1.0, 1.1, 1.2, 1.3, 1.5, 1.7, 2.0, 2.2],
    "long_factor": [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0],
}
YARN = {"factor": FACTOR, "original_max_position_embeddings": TRAINED}
LLAMA3 = {**YARN, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
MSCALE = {"mscale": 1.0, "mscale_all_dim": 1.0, **YARN}
ALPHA = {"type": "dynamic", "alpha": 50.0, "factor": 1.0}
GEMMA3 = {"rope_type": "linear", "factor": 8.0}
TOP = {"original_max_position_embeddings": TRAINED}
LOCAL = {"rope_type": "default", "rope_theta": 1e4}
SPELLINGS = {  # name -> family, what config.json says, whether it is a scaling
    "linear by type": ("llama", {"rope_scaling": {"type": "linear", "factor": FACTOR}}, True),
    "linear by rope_type": ("llama", {"rope_scaling": {"rope_type": "linear", "factor": FACTOR}}, True),
    "both": ("qwen2", {"rope_scaling": {"type": "yarn", "rope_type": "yarn", **YARN}}, True),
    "new": ("qwen3", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, **YARN}}, True),
    "yarn by type": ("qwen2", {"rope_scaling": {"type": "yarn", **YARN}}, True),
    "yarn of DeepSeek": ("deepseek_v3", {"rope_scaling": {"type": "yarn", **MSCALE}}, True),
    "dynamic": ("llama", {"rope_scaling": {"type": "dynamic", "factor": FACTOR}}, True),
    "dynamic with alpha": ("hunyuan_v1_dense", {"rope_scaling": ALPHA}, True),
    "llama3": ("llama", {"rope_scaling": {"rope_type": "llama3", **LLAMA3}}, True),
    "su": ("phi3", {"rope_scaling": {"type": "su", **TWO}, **TOP}, True),
    "longrope": ("phi3", {"rope_scaling": {"type": "longrope", **TWO}, **TOP}, True),
    "mrope": ("qwen2_vl", {"rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}}, False),
    "null": ("llama", {"rope_scaling": None}, False),
    "default": ("llama", {"rope_scaling": {"type": "default"}}, False),
    "per layer type": (
        "gemma3_text",
        {
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
                "sliding_attention": LOCAL,
            }
        },
        True,
    ),
    "per layer type, old": ("gemma3_text", {"rope_local_base_freq": 1e4, "rope_scaling": GEMMA3}, True),
    "proportional": (
        "gemma4_text",
        {
            "rope_parameters": {
                "full_attention": {
                    "rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25, "factor": 4.0,
                },
                "sliding_attention": LOCAL,
            }
        },
        True,
    ),
}  # fmt: skip
logging.set_verbosity_error()


def read(folder, family, says):
    """The configuration of a config.json that says this of its rotations, and nothing else."""
    config = tiny_family_config(family)
    said = config.to_dict()
    if "vision_config" in said:  # a tower that is not looked at
        said["vision_config"].update(embed_dim=64, hidden_size=64, num_heads=4)
    text = said.get("text_config", said)
    text.pop("rope_parameters", None)
    text.update(says)
    (folder / "config.json").write_text(json.dumps(said))
    return load_config(ModelSpec(name="tiny", path=str(folder)))


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_spelling_is_read_taken_off_and_kept(tmp_path, own_cache, spelling):
    torch.set_num_threads(1)
    family, says, scales = SPELLINGS[spelling]
    config = read(tmp_path, family, says)
    assert declares_scaling(text_config(config)) == scales
    model = tiny_family_model(config)
    ids = torch.randint(*TEXT_IDS, (1, LENGTH), generator=torch.Generator().manual_seed(1))
    own = logits(tiny_family_model(config), ids)  # its state stays its own
    got = {}
    for name in ("native", "none"):
        with applied(model, build(name, {}, geometry(config), LENGTH), LENGTH):
            got[name] = logits(model, ids)
    assert torch.equal(got["native"], own)
    torch.testing.assert_close(got["none"], unscaled(model, ids), rtol=0, atol=1e-5)
    assert bool((got["none"] - own).abs().max() > 1e-3) == scales


@pytest.mark.parametrize("length", [16, LENGTH])
def test_dynamic_with_alpha_is_ntk_by_alpha_at_every_length(tmp_path, own_cache, length):
    config = read(tmp_path, "hunyuan_v1_dense", {"rope_scaling": ALPHA})
    model = tiny_family_model(config)
    ids = torch.randint(*TEXT_IDS, (1, length), generator=torch.Generator().manual_seed(1))
    got = {}
    for name, params in (("native", {}), ("ntk", {"factor": ALPHA["alpha"]}), ("ntk", {"factor": 40.0})):
        with applied(model, build(name, params, geometry(config), length), length):
            got[name, *params.values()] = logits(model, ids)
    torch.testing.assert_close(got["ntk", 50.0], got["native",], rtol=0, atol=1e-5)
    assert (got["ntk", 40.0] - got["native",]).abs().max() > 1e-4


def unscaled(model, ids):
    """Logits of the same weights where nothing is declared but bases and shares."""
    config = copy.deepcopy(model.config)
    text = text_config(config)
    for kind in layer_types(text):
        one = text.rope_parameters if kind is None else text.rope_parameters[kind]
        of = {key: one[key] for key in ("rope_theta", "partial_rotary_factor", "mrope_section") if key in one}
        plain = {**of, "rope_type": "proportional" if one["rope_type"] == "proportional" else "default"}
        text.rope_parameters = plain if kind is None else {**text.rope_parameters, kind: plain}
    twin = type(model)._from_config(config, attn_implementation="eager").eval()
    twin.load_state_dict(model.state_dict())
    return logits(twin, ids)
