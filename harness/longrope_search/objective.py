"""What individuals are judged by: the loss of a model on the search set under their factors."""

import logging
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from harness.data.documents import Document
from harness.data.windows import Protocol, Shorter
from harness.engine.batches import Job, batches, plans, token_ids
from harness.engine.engine import Engine
from harness.engine.modes import probed
from harness.engine.scores import fetched
from harness.errors import first_line
from harness.methods.base import Method
from harness.methods.frequency.linear import Linear
from harness.models.install import applied_to_rows
from harness.models.parts import widths
from harness.models.probe import PROBE_LENGTH
from harness.models.rotary.angles import rotated_by

log = logging.getLogger(__name__)

Parts = list[tuple[float, float]]  # nats and tokens of each window
SQUEEZED = 8.0  # factor of the probe: positions by which rows differ


class Objective(NamedTuple):
    """Plain perplexity at one length: every scored token of the search set, or of its answers, counts alike."""

    engine: Engine
    trained: int | None  # tokens, as of `Ready`
    documents: Sequence[Document]
    ctx: int
    protocol: Protocol  # BOS policy resolved
    seed: int
    device: str
    bos_token_id: int | None
    together: bool  # rows of one batch may rotate by different frequencies, as `takes_rows` says
    shorter: Shorter = "error"  # documents than ctx

    def nll(self, methods: Sequence[Method]) -> list[float]:
        """Mean loss in nats a token under each of several methods, factors resolved; exp of it is the perplexity.

        Windows of all methods share batches, composed from `methods` and the engine's budget alone: the same list
        gives the same bits on the same hardware, and a method in other company the same to float32 rounding.
        Raises NonFiniteLoss.
        """
        return [
            math.fsum(nats for windows in documents for nats, _ in windows)
            / math.fsum(tokens for windows in documents for _, tokens in windows)
            for documents in self._windows(methods)
        ]

    def sums(self, methods: Sequence[Method]) -> list[list[tuple[float, float]]]:
        """The same by document: under each method the loss of every document in nats, and its tokens (weights)."""
        return [
            [(math.fsum(nats for nats, _ in windows), math.fsum(tokens for _, tokens in windows)) for windows in one]
            for one in self._windows(methods)
        ]

    def _windows(self, methods: Sequence[Method]) -> list[list[Parts]]:
        """By method and document: nats and tokens of its windows."""
        if self.together:
            return self._scored(methods)
        return [scored for method in methods for scored in self._scored([method])]

    def _scored(self, methods: Sequence[Method]) -> list[list[Parts]]:
        documents = [document for _ in methods for document in self.documents]
        planned = plans(self.documents, self.ctx, self.protocol, self.seed, self.shorter) * len(methods)
        made = batches(planned, self.engine.tokens_per_batch)
        with applied_to_rows(self.engine.model, methods, self.ctx, self.trained):
            started = [(batch, self._started(batch, documents, len(methods))) for batch in made]
        parts: list[Parts] = [[] for _ in documents]
        for batch, losses in started:
            for job, values in fetched(batch, losses, documents):
                weight = job.span.weight
                parts[job.document].append((weight * float(np.sum(values, dtype=np.float64)), weight * len(values)))
        size = len(self.documents)
        return [parts[begin : begin + size] for begin in range(0, len(parts), size)]

    def _started(self, batch: Sequence[Job], documents: Sequence[Document], methods: int) -> torch.Tensor:
        """Losses (batch, scored), on the model's device: nothing waits for them before all batches are under way."""
        ids = torch.from_numpy(token_ids(batch, documents, self.bos_token_id))
        sets = torch.tensor([job.document // len(self.documents) for job in batch])
        ids, sets = (given.to(self.device, non_blocking=True) for given in (ids, sets))
        first = min(job.score_from for job in batch)
        return self.engine.token_nll(ids, first, sets if methods > 1 else None, ahead=self.protocol.ahead)


def takes_rows(engine: Engine, trained: int | None) -> bool:
    """Whether a model scores the rows of a batch under frequencies of their own as it scores each alone.

    Shown on one probe under two methods: each row must lie far nearer to its own method than the two to each other.
    Says in the log where that fails.
    """
    model, methods = engine.model, [Linear(factor=1.0), Linear(factor=SQUEEZED)]
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, widths(model).vocabulary, (1, PROBE_LENGTH), generator=generator).to(model.device)
    alone = []
    for method in methods:
        with applied_to_rows(model, [method], PROBE_LENGTH, trained):
            alone.append(probed(model, engine.mode, ids))
    try:
        with applied_to_rows(model, methods, PROBE_LENGTH, trained), rotated_by(torch.arange(2)):
            together = probed(model, engine.mode, ids.expand(2, -1))
    except (AttributeError, LookupError, TypeError, RuntimeError, ValueError) as error:
        reason = first_line(error)
    else:
        off, apart = (together - torch.cat(alone)).abs().mean().item(), (alone[0] - alone[1]).abs().mean().item()
        if off <= 0.1 * apart:
            return True
        reason = f"losses differ by {off:.3g} nats a token"
    log.warning("%s: individuals run one after another, not together: %s", type(model).__name__, reason)
    return False
