"""Models whose layers differ: in their heads, experts and windows, and in which of them see the whole context."""

import copy

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import logging

from harness.cells import cost
from harness.data.windows import Window
from harness.methods import build
from harness.models.checkpoint.geometry import geometry, is_local, main_layer_type
from harness.models.checkpoint.shape import shape
from harness.models.checkpoint.sliding_window import EVERYTHING, limits, sees_everything, set_window, windowed_layers
from harness.models.install import applied
from harness.models.parts import widths
from harness.models.positions import last_position
from harness.models.probe import probe_of
from tests.models.tiny_families import HEAD_DIM, HEADS, TEXT_IDS, TRAINED, tiny_family_config, tiny_family_model
from tests.tiny import logits

LENGTH = 96
logging.set_verbosity_error()


def ids(length=LENGTH):
    return torch.randint(*TEXT_IDS, (1, length), generator=torch.Generator().manual_seed(1))


def scaled(model, factor):
    with applied(model, build("linear", {"factor": factor}, geometry(model.config), LENGTH), LENGTH):
        return logits(model, ids())


def divided(model, bases, factor):
    """Logits of the same weights with the frequencies of these bases divided."""
    other = copy.deepcopy(model)
    for module in other.model.rotary_embs:
        if module.config.rope_parameters["rope_theta"] in bases:
            module.inv_freq /= factor
    return logits(other, ids())


@pytest.mark.parametrize("family", ["granite_swa", "granitemoe_swa"])
def test_a_rotary_module_of_local_layers_alone_stays_unscaled(family):
    model = tiny_family_model(tiny_family_config(family))
    assert geometry(model.config).rope_theta == 50_000.0
    expected = divided(model, {50_000.0}, 3.0)
    assert (expected - divided(model, {10_000.0, 50_000.0}, 3.0)).abs().max() > 1e-3
    torch.testing.assert_close(scaled(model, 3.0), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("bases", [[10_000.0, 10_000.0], [10_000.0, 0.0]], ids=["shared", "the others do not rotate"])
def test_a_rotary_module_that_is_the_only_one_is_scaled(bases):
    config = tiny_family_config("granite_swa")
    config.layer_rope_theta = bases
    model = tiny_family_model(config)
    torch.testing.assert_close(scaled(model, 3.0), divided(model, {10_000.0}, 3.0), rtol=0, atol=1e-5)


def test_everything_is_scaled_where_windows_are_lifted():
    config = tiny_family_config("granite_swa")
    set_window(config, None)
    model = tiny_family_model(config)
    torch.testing.assert_close(scaled(model, 3.0), divided(model, {10_000.0, 50_000.0}, 3.0), rtol=0, atol=1e-5)


def test_the_layers_that_are_scaled_are_those_of_a_long_range():
    assert main_layer_type(tiny_family_config("deepseek_v4")) == "compress"
    assert main_layer_type(tiny_family_config("dots3_note_text")) == "indexed_attention"
    assert main_layer_type(tiny_family_config("gemma4_text")) == "full_attention"
    assert main_layer_type(tiny_family_config("zaya")) == "hybrid"
    assert is_local(tiny_family_config("zaya"), "hybrid_sliding")


def test_keys_are_as_wide_as_in_the_widest_layer():
    config = tiny_family_config("gemma4_text")
    assert [layer.head_dim for layer in config.per_layer_config] == [HEAD_DIM, 2 * HEAD_DIM]
    assert widths(tiny_family_model(config)).keys == HEADS // 2 * 2 * HEAD_DIM


@pytest.mark.parametrize("family", ["gemma4_text", "step3p7"])
def test_flops_of_layers_that_differ_are_those_that_pytorch_counts(place, family):
    config, length = tiny_family_config(family), 24
    config.get_text_config()._experts_implementation = "eager"
    prepared = place.prepared("method=none ctx=32")[0]
    vars(prepared.header)["config"] = config  # in place of the one that it would read
    known = shape(prepared.header, "float32")
    assert len(set(known.attention_widths)) == 2
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        tiny_family_model(config)(ids(length), use_cache=False)
    layers = zip(known.attention_widths, known.attention_windows, strict=True)
    needless = 2 * sum(width * (length**2 - cost._pairs(length, window)) for width, window in layers)
    assert cost.flops(known, [Window(0, length, 0)]) + needless == pytest.approx(counter.get_total_flops(), rel=0.03)


def test_positions_end_where_tables_do():
    assert last_position(tiny_family_model(tiny_family_config("roberta, a decoder"))) == TRAINED - 2
    assert last_position(tiny_family_model(tiny_family_config("bert, a decoder"))) == TRAINED
    assert last_position(tiny_family_model(tiny_family_config("whisper"))) == 448


def test_a_probe_ends_where_positions_do():
    model = tiny_family_model(tiny_family_config("gpt_neo"))  # its window asks for a longer one
    assert probe_of(model).ids.shape[1] <= TRAINED


def test_windows_of_single_layers_are_seen_set_and_lifted():
    config = tiny_family_config("gemma4_text")
    config.per_layer_config = {0: {"sliding_window": 5}, 1: {"head_dim": 2 * HEAD_DIM}}
    assert limits(config) == {"sliding_window": 8}  # that of the whole, which the other layer has
    assert windowed_layers(config, LENGTH) == [
        "1 of 2 layers see only 5 tokens, fewer than ctx=96; model.sliding_window=null lifts it."
    ]
    set_window(config, 7)
    assert [layer.sliding_window for layer in config.per_layer_config] == [7, 7]
    set_window(config, None)
    assert [layer.sliding_window for layer in config.per_layer_config] == [EVERYTHING] * 2
    assert sees_everything(config)
    assert windowed_layers(config, LENGTH) == []
