"""The first mode that equals the model's own forward is taken."""

import pytest
import torch

from harness.engine.modes import MODES, choose_mode
from harness.errors import UserError


def test_the_first_mode_that_proves_itself_is_taken(llama, caplog):
    assert choose_mode(llama, "auto") == MODES["layered"]
    llama.model.layers = torch.nn.Sequential(*llama.model.layers)  # no list of layers to run one by one
    assert choose_mode(llama, "auto") == MODES["sliced"]
    assert "cannot run in mode layered" in caplog.text


def test_a_forward_that_does_more_than_its_head_falls_back_to_plain(llama, caplog):
    whole = llama.forward
    llama.forward = lambda input_ids, **options: _shifted(whole(input_ids=input_ids, **options), input_ids.shape[1])
    assert choose_mode(llama, "auto") == MODES["plain"]
    assert "losses differ" in caplog.text
    with pytest.raises(UserError, match="engine.mode=sliced cannot run LlamaForCausalLM: losses differ"):
        choose_mode(llama, "sliced")


def _shifted(output, length):
    output.logits = output.logits * (1 + 1 / length)
    return output
