"""The softmax scale that a declared YaRN scaling changes besides the frequencies (DeepSeek and its kin)."""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import nn

from harness.models.checkpoint.families import SOFTMAX_SCALE
from harness.models.checkpoint.geometry import rope_parameters, text_config
from harness.models.parts import CausalLM
from harness.models.swap import swapped


@contextmanager
def unscaled_softmax(model: CausalLM) -> Iterator[None]:
    """Until the block ends, attention uses qk_head_dim^(-1/2) where the checkpoint's scaling multiplied it.

    DeepSeek multiplies it by (0.1 mscale_all_dim ln(factor) + 1)^2; DeepSeek-V2, arXiv:2405.04434, section 3.1.4.
    """
    declared = rope_parameters(text_config(model.config), None)
    mscale, factor = declared.get(SOFTMAX_SCALE), declared.get("factor")
    with ExitStack() as stack:
        if mscale and factor and factor > 1:
            multiplier = (0.1 * mscale * math.log(factor) + 1) ** 2
            for module in model.modules():
                _unscale(stack, module, multiplier)
        yield


def _unscale(stack: ExitStack, module: nn.Module, multiplier: float) -> None:
    head_dim, scaling = getattr(module, "qk_head_dim", None), getattr(module, "scaling", None)
    if head_dim and scaling and math.isclose(scaling, multiplier * head_dim**-0.5, rel_tol=1e-6):
        stack.enter_context(swapped(module, "scaling", head_dim**-0.5))
