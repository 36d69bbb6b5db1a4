"""What families ask of an attention function by name: a closed list, so that nothing that counts is lost."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from harness.models.checkpoint.families import IDLE_OPTIONS, SINKS, SOFTCAP


def check_options(
    module: nn.Module, query: Tensor, first: Tensor | None, options: Mapping[str, object], *, whole: bool = False
) -> None:
    """Raise LookupError unless causal attention from `first` on is all that a layer asks for.

    query (batch, heads, length, channels); first (1, 1, length, 1), int64, the first key that each query sees, None:
    all; options: everything else that was passed by name, but the scale. `whole`: logits without a value and a cap on
    scores are known.
    """
    name = type(module).__name__
    if first is not None and (first.dtype != torch.int64 or first.shape != (1, 1, query.shape[2], 1)):
        raise LookupError(f"{name} builds an attention mask of its own")
    if options.get("is_causal") is False:
        raise LookupError(f"{name} asks for attention that is not causal")
    if options.get("dropout"):
        raise LookupError(f"{name} asks for dropout")
    window = options.get("sliding_window")
    if isinstance(window, int) and first is None and 0 < window < query.shape[2]:
        raise LookupError(f"{name} asks for a window of {window} tokens, whose mask is lost")
    known = (*IDLE_OPTIONS, *([SINKS, SOFTCAP] if whole else []))
    if unknown := [key for key, value in options.items() if value is not None and key not in known]:
        raise LookupError(f"{name} asks for attention with {unknown[0]}, which is not known here")
