"""Methods that change attention, on all families that may limit it: as a float64 model pair by pair, or refused."""

from functools import cache

import pytest
import torch

from harness.errors import UserError
from harness.methods.attention.dca import Dca
from harness.methods.attention.leaky_rerope import LeakyReRope
from harness.methods.attention.rerope import ReRope
from harness.methods.attention.self_extend import SelfExtend
from harness.methods.attention.string import String
from harness.methods.attention.windowed import Windowed
from harness.models.checkpoint.geometry import has_rope
from tests.engine.limited import WINDOW, families, tiny, tiny_config
from tests.models.attention.cases import under
from tests.models.attention.whole_models import PairByPair, attending, found
from tests.reference import attention as reference
from tests.tiny import logits, tokens, unscaled

LENGTH = 2 * WINDOW + 8
METHODS = {  # parameters so small that all of their regions lie inside a window, and across its edge
    "rerope": (ReRope(window=9), lambda i, j: reference.rerope(i, j, 9)),
    "leaky_rerope": (LeakyReRope(factor=3.5, window=9), lambda i, j: reference.leaky_rerope(i, j, 9, 3.5)),
    "self_extend": (SelfExtend(group=3, window=10), lambda i, j: reference.self_extend(i, j, 10, 3)),
    "dca": (Dca(chunk=14, local=3, temperature=False), lambda i, j: reference.dca(i, j, 14, 3)),
    "string": (String(shift=15, window=4), lambda i, j: reference.string(i, j, 15, 4)),
    "windowed": (Windowed(window=11, sinks=3), lambda i, j: reference.lm_infinite(i, j, 11, 3)),
    "streaming": (Windowed(form="streaming", window=11, sinks=3), lambda i, j: reference.streaming(i, j, 11, 3)),
}
REFUSED = {  # families whose layers could be explained: a part of the reason that is given
    **dict.fromkeys(("granitemoehybrid", "zamba2"), "has no rotary embedding"),
    "doge": "mask of its own",
    "lfm3": "unscaled frequencies",
    "qwen4_exp_text": "reads the attention mask",
    "recurrent_gemma": "does not say what length",
}
FAMILIES = [family for family in families() if has_rope(tiny_config(family))]


@cache
def made(family):
    """The family's model without scaling that its defaults declare, tokens, and how its layers rotate."""
    config = tiny_config(family)
    declared = unscaled(config.rope_parameters)
    for number, kind in enumerate(kind for kind in declared.values() if isinstance(kind, dict)):
        kind["rope_theta"] = 10.0 ** (3 + number)  # so that kinds of layers can be told apart
    config.rope_parameters = declared
    model = tiny(family, config=config)
    ids = tokens(LENGTH)
    return model, ids, found(model, ids)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_methods_are_right_or_refused(family):
    model, ids, layers = made(family)
    if layers is None or family in REFUSED:
        with pytest.raises(UserError, match=REFUSED.get(family)) as error:
            under(model, METHODS["rerope"][0], ids)
        assert "\n" not in str(error.value)
        return
    untouched = logits(model, ids)
    kinds = {rotation.kind for rotation in layers.values() if rotation.kind is not None}
    main = next((kind for kind in ("full_attention", "hybrid") if kind in kinds), None)
    for name, (method, relative) in METHODS.items():

        def counted(rotation, relative=relative):
            return relative if len(kinds) < 2 or rotation.kind in (None, main) else lambda i, j: i - j

        with attending(model, PairByPair(layers, counted)):
            expected = logits(model, ids)
        assert (expected - untouched).abs().max() > 1e-3, name
        torch.testing.assert_close(under(model, method, ids), expected, rtol=0, atol=1e-4)
