"""Every mode against the model's own forward, over all families that may limit what attention sees.

At six times the limit, in float64 from full logits. A family that cannot run a mode says why in one line.
"""

from functools import cache

import pytest
import torch

from harness.engine.engine import Engine
from harness.engine.spec import EngineSpec
from harness.errors import UserError
from tests.engine.limited import VOCABULARY, WINDOW, families, limits_of, tiny
from tests.tiny import logits

LENGTH, CHUNK = 6 * WINDOW, 17
READS_MASK, NO_LIST = "reads the attention mask by itself", "has 0 lists of decoder layers"
STATES = r"no attribute '\w*(conv_state|linear_cache|layers)'"  # that layers keep beside keys and values
NOT_LAYERED = {  # family -> why its layers cannot run one at a time
    **dict.fromkeys(("axk2", "deepseek_v32", "dots3_note_text", "glm_moe_dsa", "hy_v4", "qwen4_exp_text"), READS_MASK),
    **dict.fromkeys(("big_bird", "blt", "gpt_neo", "nemotron_h", "xlstm"), NO_LIST),
    **dict.fromkeys(("bailing_hybrid", "granitemoehybrid", "kimi_linear", "lfm2_moe", "lfm3", "minimax"), STATES),
    **dict.fromkeys(("zamba", "zamba2", "zaya", "olmo_hybrid", "qwen3_next", "qwen3_5_text"), STATES),
    **dict.fromkeys(("inkling2_text", "inkling_text", "minimax_m3_vl_text", "qwen3_5_moe_text"), STATES),
    "bigbird_pegasus": "not causal",
    "deepseek_v4": "takes no cache",
    "doge": "mask of its own",
    "gemma3n_text": "a stream of 3 axes",
    "recurrent_gemma": "multiple values for argument",
}
REFUSED = {  # in every mode
    **dict.fromkeys(("cpmant", "prophetnet", "xlnet"), "depends on later tokens"),
    "reformer": "draws random numbers",
}
NOT_FELT = {
    "moshi": "its own code has the window for one attention kernel only",
    "nemotron_h": "its chunks are of the computation of states, which are the same at every size of them",
}
IN_WEIGHTS = ("inkling2_text", "inkling_text")  # tables as long as the window
FAMILIES = families()


def losses(model, ids):
    """-log p of every token but the first, (rows, length - 1)."""
    logs = logits(model, ids)[:, :-1].double().log_softmax(-1)
    return -logs.gather(-1, ids[:, 1:, None])[..., 0]


@cache
def made(family):
    ids = torch.randint(3, VOCABULARY, (2, LENGTH), generator=torch.Generator().manual_seed(3))
    model = tiny(family)
    return model, ids, losses(model, ids)


def test_the_families_are_those_that_are_installed():
    assert len(FAMILIES) >= 70
    assert {*NOT_LAYERED, *REFUSED, *NOT_FELT} <= set(FAMILIES)
    assert {"afmoe", "gemma3_text", "gpt_oss", "llama4_text", "deepseek_v32", "recurrent_gemma"} <= set(FAMILIES)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["layered", "sliced", "plain", "auto"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_mode_is_the_models_own_forward_or_says_why_not(family, mode):
    model, ids, own = made(family)
    spec = EngineSpec(mode=mode, tokens_per_batch=2 * LENGTH)
    why = REFUSED.get(family) or (NOT_LAYERED.get(family) if mode == "layered" else None)
    if why is not None:
        with pytest.raises(UserError, match=why) as error:
            Engine(model, spec)
        assert "\n" not in str(error.value)
        return
    engine = Engine(model, spec)
    for chunk in (None, CHUNK):
        engine.largest_chunk = chunk
        torch.testing.assert_close(engine.token_nll(ids, 1).double(), own, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in (*REFUSED, *NOT_FELT, *IN_WEIGHTS)])
def test_the_limit_is_felt_at_this_length(family):
    model, ids, own = made(family)
    wide = tiny(family, window=4 * LENGTH)
    if limits_of(wide.config) == limits_of(model.config):
        pytest.skip("layers of kinds that see everything, or keep states")
    wide.load_state_dict(model.state_dict())
    assert (losses(wide, ids) - own).abs().max() > 1e-2
