"""The softmax scale that YaRN changes besides the frequencies (DeepSeek and its kin)."""

import inspect
import math
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache

from torch import nn

from harness.methods.base import Method
from harness.methods.frequency.yarn import Yarn, temperature
from harness.models.checkpoint.families import SOFTMAX_SCALE
from harness.models.checkpoint.geometry import rope_parameters, text_config
from harness.models.parts import CausalLM
from harness.models.swap import swapped


def softmax_multiplier(method: Method) -> float:
    """What a method asks of the softmax scale of models that let YaRN change it: (0.1 mscale_all_dim ln(factor) + 1)^2.

    1 for every other method. DeepSeek-V2, arXiv:2405.04434, section 3.1.4.
    """
    if not isinstance(method, Yarn) or not method.mscale_all_dim or method.factor is None:
        return 1.0
    return temperature(method.factor, method.mscale_all_dim) ** 2


@contextmanager
def softmax_scaled(model: CausalLM, multiplier: float = 1.0) -> Iterator[None]:
    """Until the block ends, attention uses `multiplier` x qk_head_dim^(-1/2) in place of what the checkpoint declares.

    Of layers whose family lets YaRN change the softmax scale; the others keep theirs.
    """
    declared = rope_parameters(text_config(model.config), None)
    mscale, factor = declared.get(SOFTMAX_SCALE), declared.get("factor")
    own = temperature(factor, mscale) ** 2 if mscale and factor and factor > 1 else 1.0
    with ExitStack() as stack:
        if own != multiplier:
            for module in model.modules():
                _scale(stack, module, own, multiplier)
        yield


def _scale(stack: ExitStack, module: nn.Module, own: float, multiplier: float) -> None:
    head_dim, scaling = getattr(module, "qk_head_dim", None), getattr(module, "scaling", None)
    if not head_dim or not scaling or not math.isclose(scaling, own * head_dim**-0.5, rel_tol=1e-6):
        return
    if _knows_softmax_scale(type(module).__module__):
        stack.enter_context(swapped(module, "scaling", multiplier * head_dim**-0.5))


@cache
def _knows_softmax_scale(code: str) -> bool:
    """Whether a family's own code, the module of this name, reads the parameter from a checkpoint."""
    return SOFTMAX_SCALE in inspect.getsource(sys.modules[code])
