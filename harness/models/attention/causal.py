"""Attention where a layer is simply causal: every token sees itself and all that lies before it."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import causal_mask_function

from harness.models.attention.first_seen import check_unread, first_seen
from harness.models.checkpoint.geometry import text_config


def is_causal(mask_function: Callable[..., Tensor], attention_mask: Tensor | None = None) -> bool:
    """Whether what transformers hands to a mask function asks for nothing but causal attention."""
    return mask_function is causal_mask_function and attention_mask is None


def causal_mask(
    *, mask_function: Callable[..., Tensor], attention_mask: Tensor | None, config: PretrainedConfig, **options: Any
) -> Tensor | None:
    """None where a layer is simply causal; otherwise the first key that each query sees, (1, 1, length, 1)."""
    check_unread(text_config(config).model_type, mask_function, options)
    if is_causal(mask_function, attention_mask):
        return None
    return first_seen(mask_function=mask_function, attention_mask=attention_mask, config=config, **options)


def causal_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float | None
) -> tuple[Tensor, None]:
    """Causal attention of as many queries as keys, as transformers computes it through PyTorch's fused attention.

    query (batch, heads, length, channels), key and value (batch, key_heads, length, channels); output (batch, length,
    heads, channels).
    """
    out, _ = sdpa_attention_forward(module, query, key, value, None, scaling=scaling, is_causal=True)
    return out, None
