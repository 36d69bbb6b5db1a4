"""A temperature on all logits, against logits multiplied by the model's own softmax scale."""

import math

import pytest
import torch

from harness import methods
from harness.errors import UserError
from harness.models.checkpoint.geometry import geometry
from harness.models.install import applied
from tests.tiny import logits, tiny_config, tiny_llama, tiny_model, tokens

IDS = tokens(96)


def under_yarn(model, **params):
    method = methods.build("yarn", {"factor": 4.0} | params, geometry(model.config), 96)
    with applied(model, method, 96):
        return logits(model, IDS)


def test_where_every_channel_rotates_both_temperatures_are_one():
    model = tiny_llama()
    torch.testing.assert_close(under_yarn(model, temperature_on="logits"), under_yarn(model), rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt_neox", "stablelm"])
def test_where_some_channels_rest_all_logits_are_multiplied(family):
    model = tiny_model(tiny_config(family))
    own = under_yarn(model)
    everywhere = under_yarn(model, temperature_on="logits")
    for module in model.modules():  # the same by hand: frequencies alone, and the softmax scale itself
        if hasattr(module, "scaling"):
            module.scaling *= (0.1 * math.log(4) + 1) ** 2
    torch.testing.assert_close(everywhere, under_yarn(model, attention_factor=1.0), rtol=0, atol=1e-5)
    assert (own - everywhere).abs().max() > 1e-3  # cosines and sines alone are another model


def test_layers_of_several_kinds_are_refused_by_name():
    with pytest.raises(UserError, match="temperature_on=logits: gemma3_text has layers that are not scaled"):
        under_yarn(tiny_model(tiny_config("gemma3_text")), temperature_on="logits")
