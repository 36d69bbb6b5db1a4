"""Where the positions of a model without rotary embedding end: those learned, or computed up to a declared length."""

from collections.abc import Iterator

from torch import Tensor, nn

from harness.models.checkpoint.families import ENDING_POSITIONS, TRAINED_LENGTH, first_set
from harness.models.checkpoint.geometry import text_config
from harness.models.parts import CausalLM

OFFSET = 8  # rows that some tables of positions have beyond the declared length (OPT: 2)


def last_position(model: CausalLM) -> int | None:
    """Tokens of the longest window that a model without rotary embedding has positions for.

    None: it goes on (ALiBi, recurrence, no positions at all). Recognized by an embedding, or a table, with as many
    rows as the declared number of positions.
    """
    text = text_config(model.config)
    declared = first_set(text, TRAINED_LENGTH)
    if declared is None:
        return None
    rows = range(declared, declared + OFFSET + 1)
    ends = text.model_type in ENDING_POSITIONS or any(size in rows for table in _tables(model) for size in table.shape)
    return int(declared) - _skipped(model, rows) if ends else None


def _skipped(model: CausalLM, rows: range) -> int:
    """Positions of a table of no more than the declared number that begin after the one for padding (RoBERTa: 2)."""
    return max(
        (
            module.padding_idx + 1
            for module in model.modules()
            if isinstance(module, nn.Embedding) and module.num_embeddings == rows[0] and module.padding_idx is not None
            if module is not model.get_input_embeddings()
        ),
        default=0,
    )


def _tables(model: CausalLM) -> Iterator[Tensor]:
    """All embeddings but that of tokens, as (rows, width); all buffers and other tensors that modules keep."""
    tokens = model.get_input_embeddings()
    for module in model.modules():
        if isinstance(module, nn.Embedding) and module is not tokens:
            yield module.weight[:, 0]
        yield from (kept for kept in vars(module).values() if isinstance(kept, Tensor))
        yield from module.buffers(recurse=False)
