"""Numbers in a checkpoint's configuration that nobody has checked: a word there would end in the middle of a cell.

transformers checks the types of fields that a family declares, not of those that it takes as they come, nor of rope
parameters.
"""

from collections.abc import Iterator
from typing import Any

from transformers import PretrainedConfig

from harness.errors import UserError
from harness.models.checkpoint.families import (
    LATENT_PLAIN_DIM,
    LATENT_ROTARY_DIM,
    LATENT_VALUE_DIM,
    REACH,
    TABLE_ROTARY_DIM,
    TRAINED_LENGTH,
)
from harness.models.checkpoint.layers import layer_configs

LARGEST = 2**63  # what tensors hold
WHOLE = {
    *TRAINED_LENGTH, LATENT_PLAIN_DIM, LATENT_ROTARY_DIM, LATENT_VALUE_DIM, TABLE_ROTARY_DIM,
    "head_dim", "hidden_size", "num_attention_heads", "num_key_value_heads", "vocab_size", "pad_token_id",
}  # fmt: skip
NUMBERS = {
    "rope_theta", "factor", "partial_rotary_factor", "rotary_pct", "beta_fast", "beta_slow", "attention_factor",
    "mscale", "mscale_all_dim", "low_freq_factor", "high_freq_factor", "short_factor", "long_factor",
}  # fmt: skip


def check_fields(name: str, text: PretrainedConfig) -> None:
    """Raise UserError for a number that is none; `text`: of the language model. Lists: a value a layer, or a pair."""
    for key, value in _fields(text):
        whole = key in WHOLE or (REACH.search(key) and not key.endswith("_prob"))
        if not (whole or key in NUMBERS):
            continue
        values = value if isinstance(value, list | tuple) else [value]
        for one in values:
            if one is None or (isinstance(one, int | (int if whole else float)) and abs(one) < LARGEST):
                continue
            what = "a whole number" if whole else "a number"
            raise UserError(f"model {name}: {key} in its config.json must be {what} below {LARGEST}, got {one!r}.")


def _fields(text: PretrainedConfig) -> Iterator[tuple[str, Any]]:
    """Fields of every kind of layer, and rope parameters, which may be those of one layer type or several."""
    for layer in {id(layer): layer for layer in layer_configs(text)}.values():
        yield from vars(layer).items()
    yield from _rope(getattr(text, "rope_parameters", None))


def _rope(parameters: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(parameters, dict):
        for key, value in parameters.items():
            yield from _rope(value) if isinstance(value, dict) else [(key, value)]
