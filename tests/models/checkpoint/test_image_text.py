"""Checkpoints that see as well, scored as text: loaded as what they are, by the same door as any other."""

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import logging

from harness.engine.engine import Engine
from harness.engine.spec import EngineSpec
from harness.errors import UserError
from harness.methods import construct
from harness.models.checkpoint.header import header
from harness.models.checkpoint.load import load
from harness.models.checkpoint.shape import shape
from harness.models.checkpoint.spec import ModelSpec
from harness.models.install import applied
from tests.models.checkpoint.test_load import save_tokenizer
from tests.models.tiny_families import TEXT_IDS, tiny_family_config, tiny_family_model
from tests.tiny import logits

FAST = ["mistral3", "lfm3_vl", "gemma4"]
SLOW = [
    *("mistral4", "mistral_large4", "qwen3_vl", "kimi_k25", "glm4v", "minimax_m3_vl", "step3p7", "glm5_next"),
    *("inkling2", "muse_spark", "muse_glimmer", "qwen2_vl", "qwen3_5", "llava"),
]
logging.set_verbosity_error()


@pytest.fixture(params=[*FAST, *(pytest.param(family, marks=pytest.mark.slow) for family in SLOW)])
def saved(request, tmp_path, own_cache):
    """A tiny model, and the specification of its checkpoint."""
    torch.set_num_threads(1)
    model = tiny_family_model(tiny_family_config(request.param))
    model.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    return model, ModelSpec(name=request.param, path=str(tmp_path))


def test_a_checkpoint_is_the_model_that_it_was_saved_from(saved):
    model, spec = saved
    known = header(spec)
    assert shape(known, "float32").matrix_parameters > 0
    loaded = load(spec, attn_implementation="eager")
    assert type(loaded.model) is type(model)
    ids = torch.randint(*TEXT_IDS, (2, 40), generator=torch.Generator().manual_seed(1))
    own, engine = logits(model, ids), Engine(loaded.model, EngineSpec())
    expected = cross_entropy(own[:, 9:-1].flatten(0, 1), ids[:, 10:].flatten(), reduction="none").view(2, -1)
    with applied(loaded.model, construct("native", {}), 40):
        assert torch.equal(logits(loaded.model, ids), own)
        torch.testing.assert_close(engine.token_nll(ids, 10), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", ["idefics"])
def test_models_that_need_a_picture_are_refused_in_one_line(family):
    model = tiny_family_model(tiny_family_config(family))
    with pytest.raises(UserError, match="IdeficsForVisionText2Text cannot score text from its tokens alone: .*pixel"):
        Engine(model, EngineSpec())
