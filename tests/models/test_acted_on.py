"""Methods on one kind of layer only, in families whose kinds rotate by frequencies of their own."""

import copy

import pytest
import torch

from harness.config.schema import method_spec
from harness.errors import UserError
from harness.methods import build
from harness.models.checkpoint.geometry import geometry, is_local
from harness.models.checkpoint.sliding_window import set_window
from harness.models.install import applied
from tests.models.tiny_families import TEXT_IDS, tiny_family_config, tiny_family_model
from tests.tiny import TRAINED, logits, tiny_config, tiny_llama, tiny_model

LENGTH = 96
KINDS = {"global": (False,), "local": (True,), "all": (False, True)}
FAMILIES = ["gemma3_text", "gemma4_text", "granite_swa"]  # by layer type, widths differ, by base


def ids():
    return torch.randint(*TEXT_IDS, (1, LENGTH), generator=torch.Generator().manual_seed(1))


def tiny(family):
    return tiny_family_model(tiny_family_config(family))


def under(model, name="linear", params=None, **modifiers):
    method = build(name, {"factor": 3.0} if params is None else params, geometry(model.config), LENGTH)
    with applied(model, method, LENGTH, **modifiers):
        return logits(model, ids())


def divided(model, locals_):
    """Logits of the same weights, the frequencies of these kinds of layers divided by 3 in their own buffers."""
    other = copy.deepcopy(model)
    for module in other.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            if not name.endswith("inv_freq") or "original" in name:
                continue
            kind = name.removesuffix("inv_freq").removesuffix("_") or None
            if is_local(getattr(module, "config", model.config), kind) in locals_:
                buffer /= 3
    return logits(other, ids())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("chosen", KINDS)
def test_only_the_chosen_kind_is_scaled(family, chosen):
    model = tiny(family)
    expected = divided(model, KINDS[chosen])
    torch.testing.assert_close(under(model, layers=chosen), expected, rtol=0, atol=1e-5)
    others = [divided(model, locals_) for name, locals_ in KINDS.items() if name != chosen]
    assert all((expected - other).abs().max() > 1e-3 for other in others), "the test would not tell them apart"


def test_null_is_global_and_all_where_windows_are_lifted():
    model = tiny("gemma3_text")
    assert torch.equal(under(model), under(model, layers="global"))
    config = tiny_family_config("gemma3_text")
    set_window(config, None)
    lifted = tiny_family_model(config)
    assert torch.equal(under(lifted), under(lifted, layers="all"))
    assert (under(lifted, layers="global") - under(lifted)).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["rerope", "string"])
def test_a_method_that_changes_attention_acts_on_the_chosen_kind(name):
    params = {"window": 4} if name == "rerope" else {"shift": 4, "window": 1}
    model = tiny_model(tiny_config("gemma3_text"))
    found = {chosen: under(model, name, params, layers=chosen) for chosen in KINDS}
    torch.testing.assert_close(under(model, name, params), found["global"], rtol=0, atol=0)
    pairs = [("global", "local"), ("local", "all"), ("global", "all")]
    assert all((found[a] - found[b]).abs().max() > 1e-3 for a, b in pairs)
    still = {"window": LENGTH} if name == "rerope" else {"shift": LENGTH}
    torch.testing.assert_close(under(model, name, still, layers="local"), logits(model, ids()), rtol=0, atol=1e-4)


def test_a_temperature_on_all_logits_runs_where_all_layers_are_scaled():
    model = tiny_model(tiny_config("gemma3_text"))
    both = [under(model, "yarn", {"temperature_on": on}, layers="all") for on in ("logits", "rotated")]
    torch.testing.assert_close(*both, rtol=0, atol=1e-4)  # every channel rotates


def test_mistakes_take_one_line():
    for chosen in KINDS:
        with pytest.raises(UserError, match="layers of llama do not rotate by kinds of their own"):
            under(tiny_llama(), layers=chosen)
    with pytest.raises(UserError, match="Did you mean 'global'"):
        method_spec({"name": "yarn", "layers": "globl"})
    with pytest.raises(UserError, match=r"method.layers cannot be combined with native"):
        method_spec({"name": "native", "layers": "all"})
    assert TRAINED < LENGTH
