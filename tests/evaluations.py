"""Evaluations without a run around them: documents of token numbers, losses that are known, and the rows they give."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd
import torch

from harness.data.documents import Document
from harness.data.protocols import PROTOCOLS
from harness.data.scores import Scores
from harness.data.windows import Protocol, Shorter
from harness.engine.batches import plans
from harness.engine.scores import NllFunction, evaluate
from harness.results.rows import table_rows
from tests.synthetic import identifying

BOS = 999_999  # no token of any document
CELL = identifying(cell_id="cell", model="tiny", method="none", factor=None, dataset="made up", dtype="float32")


def numbered(*lengths: int) -> list[Document]:
    """Documents whose tokens are numbers that occur once: 1000 x document + place; three bytes a token."""
    return [
        Document(f"document-{i}", 1000 * i + np.arange(n, dtype=np.int64), 3 * np.arange(n + 1, dtype=np.int64))
        for i, n in enumerate(lengths)
    ]


def own_number(ids: torch.Tensor, score_from: int) -> torch.Tensor:
    """A loss that tells which token it belongs to: the token's own number."""
    return ids[:, score_from:].float()


def protocol_named(name: str, **options: Any) -> Protocol:
    """The protocol `name` with those of the options that it has."""
    own = {field.name for field in fields(PROTOCOLS[name])}
    return PROTOCOLS[name](**{key: value for key, value in options.items() if key in own})


def scores(
    nll: NllFunction,
    documents: Sequence[Document],
    ctx: int,
    protocol: Protocol,
    *,
    tokens_per_batch: int = 10**6,
    bos_token_id: int | None = BOS,
    seed: int = 0,
    shorter: Shorter = "error",
    **options: Any,
) -> list[Scores]:
    """Losses of all documents, in document order."""
    planned = plans(documents, ctx, protocol, seed, shorter)
    found = evaluate(documents, planned, nll, tokens_per_batch, bos_token_id=bos_token_id, **options)
    return sorted(found, key=lambda s: s.document)


def windows_table(scored: Sequence[Scores], documents: Sequence[Document], **columns: object) -> pd.DataFrame:
    """The windows table of one cell."""
    table = pd.concat([table_rows("windows", s, documents[s.document], 0) for s in scored], ignore_index=True)
    return table.assign(**(CELL | columns))
