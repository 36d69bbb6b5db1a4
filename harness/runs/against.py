"""A pass whose tokens get a KL to a base: two models, or one under two methods, on the same windows.

Where both models fit they run one after the other on every batch. Where not the base comes first, and its final hidden
states wait on disk; of its weights only those that make logits of them stay.
"""

import logging
import time
from collections.abc import Callable, Collection

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from harness import torchrun
from harness.cells.beside import at_once, share_weights
from harness.cells.passes import Pass
from harness.cells.prepare import Prepared
from harness.engine.batches import batches, num_tokens, token_ids
from harness.engine.divergence import Side, compared
from harness.engine.head_only import keep_head
from harness.engine.ready import Ready
from harness.engine.states import States
from harness.runs.share import (
    Record,
    Resources,
    Share,
    compute_alone,
    keeping,
    own_share,
    scores,
    under,
    warn,
)

log = logging.getLogger(__name__)

StatesOf = Callable[[Tensor, int], Tensor]  # (ids (batch, L), score_from) -> hidden states (batch, L - score_from, d)


def compute_share(resources: Resources, current: Pass, finished: Collection[int]) -> Share:
    """What this rank finds out of its documents that are not finished, each kept as soon as it is complete."""
    alone = current.longest.base is None
    return (compute_alone if alone else _compute_against)(resources, current, finished)


def _compute_against(resources: Resources, current: Pass, finished: Collection[int]) -> Share:
    """As `compute_alone`, with the columns of `divergence.compared` for every token."""
    own, base = current.longest, current.longest.base
    assert base is not None
    started = time.monotonic()
    is_same = share_weights(own, base)
    if at_once(own, base):
        other = resources.ready(base, own)
        loaded = other if is_same else resources.ready(own, base)
        for each in (loaded, other):
            each.engine.measure()
        before, installed = _live(other, base, current)
    else:
        other = resources.ready(base)
        before, installed = _stored(resources, other, current, finished)
        if not is_same:
            keep_head(other.engine)
        loaded = resources.ready(own, base)
        if not is_same:
            resources.forget(base)  # it is no longer whole
    this, own_installed = _live(loaded, own, current)

    def nll(ids: Tensor, score_from: int) -> Tensor:
        states = before(ids, score_from)
        own_side = Side(loaded.engine.model, loaded.engine.weights, this(ids, score_from))
        return compared(own_side, Side(other.engine.model, other.engine.weights, states), ids[:, score_from:])

    scored = scores(resources, current, finished, loaded, nll)
    return Share(scored, time.monotonic() - started, own_installed, installed)


def _live(loaded: Ready, prepared: Prepared, current: Pass) -> tuple[StatesOf, list[Record]]:
    """What computes final hidden states under the method of a cell, and what the model then rotates by."""
    keep = keeping(prepared, current)
    with under(loaded, prepared) as patch:
        warn(patch, prepared)
        installed = [one.record for one in patch.installed]

    def states(ids: Tensor, score_from: int) -> Tensor:
        with under(loaded, prepared):
            loaded.engine.keep = keep
            return loaded.engine.token_states(ids, score_from, ahead=prepared.cell.protocol.ahead)

    return states, installed


def _keep(kept: States, live: StatesOf, rows: NDArray[np.int64], froms: list[int], device: str) -> None:
    first = min(froms)
    states = live(torch.from_numpy(rows).to(device), first)
    for row, score_from, own in zip(rows, froms, states, strict=True):
        kept.write(row, score_from, own[score_from - first :])


def _stored(
    resources: Resources, base: Ready, current: Pass, finished: Collection[int]
) -> tuple[StatesOf, list[Record]]:
    """The base's final hidden states of this rank's documents on disk, those that are missing computed now."""
    own = current.longest
    assert own.base is not None
    kept = States(current.checkpoint / "base", own.base.cell.cell_id, base.engine.model.dtype)
    live, installed = _live(base, own.base, current)
    documents = resources.documents.of(own).documents
    planned = resources.documents.windows(own)
    mine = [w if i in own_share(planned) and i not in finished else [] for i, w in enumerate(planned)]
    total = sum(num_tokens(windows) for windows in mine)
    with tqdm(
        total=total, desc=f"base of {current.title}", unit="tok", unit_scale=True, dynamic_ncols=True,
        disable=torchrun.rank() > 0,
    ) as bar:  # fmt: skip
        for batch in batches(mine, base.engine.tokens_per_batch):
            rows = token_ids(batch, documents, own.header.prefix_token_id)
            if not all(kept.holds(row, job.score_from) for row, job in zip(rows, batch, strict=True)):
                _keep(kept, live, rows, [job.score_from for job in batch], base.device)
            bar.update(sum(job.length for job in batch))
    return kept.read, installed
