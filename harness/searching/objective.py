"""What individuals are judged by: the loss of a model on the search set under their factors."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from harness import evaluate
from harness.documents import Document
from harness.engine import Engine
from harness.methods.base import RopeGeometry
from harness.models.patch import applied
from harness.windows import Protocol


class Objective(NamedTuple):
    """Plain perplexity at one length: every scored token of the search set counts alike."""

    engine: Engine
    geometry: RopeGeometry
    documents: Sequence[Document]
    ctx: int
    protocol: Protocol  # BOS policy resolved
    seed: int
    device: str
    bos_token_id: int | None

    def nll(self, method: Any) -> float:
        """Mean loss in nats a token under a method, factor resolved; exp of it is the perplexity.

        Raises NonFiniteLoss.
        """
        planned = evaluate.plans(self.documents, self.ctx, self.protocol, self.seed)
        engine = self.engine
        with applied(engine.model, method, self.ctx, self.geometry):
            scored = list(
                evaluate.scores(
                    self.documents,
                    planned,
                    engine.token_nll,
                    engine.tokens_per_batch,
                    bos_token_id=self.bos_token_id,
                    device=self.device,
                )
            )
        sums = [
            (window.weight * np.sum(nll, dtype=np.float64), window.weight * len(nll))
            for one in sorted(scored, key=lambda s: s.document)
            for window, nll in zip(one.windows, one.nll, strict=True)
        ]
        return math.fsum(total for total, _ in sums) / math.fsum(count for _, count in sums)
