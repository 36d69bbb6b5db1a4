"""Attention in regions proves itself before a cell begins: what it loses of a family's own attention is refused."""

import pytest
import torch

from harness.errors import UserError
from harness.methods.attention.rerope import ReRope
from harness.methods.attention.self_extend import SelfExtend
from harness.models import proved_attention
from harness.models.attention import by_regions
from harness.models.install import applied
from harness.models.proved_attention import check_regions
from tests.tiny import TRAINED, tiny_config, tiny_model

WINDOWED = {"mistral": {"sliding_window": 4096}, "llama4_text": {"attention_chunk_size": 4096}, "gpt_oss": {}}


def refused(model, match):
    with pytest.raises(UserError, match=match) as error, applied(model, ReRope(window=6), TRAINED):
        pass
    assert "methods that change attention cannot run on it, since" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "deepseek_v3", "gemma3_text", "cohere2", *WINDOWED])
def test_families_that_are_right_pass(family):
    check_regions(tiny_model(tiny_config(family, **WINDOWED.get(family, {}))))


@pytest.mark.parametrize("family", WINDOWED)
def test_a_lost_window_is_seen_however_long_it_is(monkeypatch, family):
    monkeypatch.setattr(by_regions, "first_seen", lambda **_: None)
    refused(tiny_model(tiny_config(family, **WINDOWED[family])), "whose mask is lost|losses differ|losses are those of")


def test_lost_sinks_are_seen(monkeypatch):
    attend = by_regions.attend
    monkeypatch.setattr(by_regions, "attend", lambda *args, sinks, **kwargs: attend(*args, **kwargs))
    model = tiny_model(tiny_config("gpt_oss"))
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.sinks.fill_(1.0)
    refused(model, "losses differ")


@pytest.mark.parametrize("change", [lambda scores: 20 * (scores / 20).tanh(), lambda scores: 1.1 * scores])
def test_scores_that_a_family_changes_by_itself_are_seen(monkeypatch, change):
    """In its own function, so that no option says it."""
    model = tiny_model(tiny_config("llama"), spread=0.3)
    own = "transformers.models.llama.modeling_llama.eager_attention_forward"

    def forward(module, query, key, value, attention_mask, scaling, **_):
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
        scores = change(query @ key.transpose(2, 3) * scaling) + attention_mask
        return (scores.softmax(-1) @ value).transpose(1, 2).contiguous(), None

    check_regions(model)
    monkeypatch.setattr(own, forward)
    refused(model, "losses differ")


def test_a_model_is_proved_once_for_all_methods_of_a_trained_length(monkeypatch):
    model, asked, before = tiny_model(tiny_config("llama")), [], proved_attention.difference
    monkeypatch.setattr(
        proved_attention, "difference", lambda *given, **by: asked.append(given) or before(*given, **by)
    )
    passed: set[int | None] = set()
    for method, trained in ((ReRope(window=6), None), (SelfExtend(group=2, window=6), None), (ReRope(window=6), 16)):
        with applied(model, method, TRAINED, trained, passed=passed):
            pass
    assert (len(asked), passed) == (2, {None, 16})
    with applied(model, ReRope(window=6), TRAINED):  # nobody keeps it: asked anew
        pass
    assert len(asked) == 3


def test_a_model_that_fails_has_not_passed(monkeypatch):
    monkeypatch.setattr(proved_attention, "difference", lambda *given, **by: "since losses differ")
    passed: set[int | None] = set()
    with (
        pytest.raises(UserError, match="losses differ"),
        applied(tiny_model(tiny_config("llama")), ReRope(window=6), TRAINED, passed=passed),
    ):
        pass
    assert passed == set()
