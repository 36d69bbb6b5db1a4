"""This process's share of a pass over the documents: the model and the documents it keeps, the losses it computes."""

import logging
import time
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from harness import torchrun
from harness.cells.prepare import Prepared, describe, load_documents
from harness.cells.ready import Ready, ready
from harness.data.documents import DocumentSet
from harness.data.windows import Window
from harness.engine import scores as evaluate
from harness.runs import checkpoints
from harness.runs.ranks import processes as ranks

log = logging.getLogger(__name__)


class Share(NamedTuple):
    """Losses of the documents that one process has computed."""

    scores: list[evaluate.Scores]
    seconds: float


class Passes:
    """What the passes of this process have in common: one model at a time, and all documents."""

    def __init__(self) -> None:
        self._documents: dict[str, DocumentSet] = {}
        self._loaded: tuple[Any, Ready] | None = None

    def documents(self, prepared: Prepared) -> DocumentSet:
        """The documents of a cell, read once."""
        key = prepared.cell.columns["dataset_fingerprint"]
        if key not in self._documents:
            self._documents |= load_documents([prepared])
        return self._documents[key]

    def share(self, group: list[Prepared], finished: Collection[int]) -> Share:
        """The losses of this rank's documents that are not finished, each kept as soon as it is complete.

        `group` are the cells of the pass, the longest first: it is computed, and kept under its name.
        """
        loaded, documents = self._ready(group[0]), self.documents(group[0])
        started = time.monotonic()
        scored = []
        for document in _scores(loaded, documents, plan(group[0], documents), group, finished):
            if loaded.engine.over is None or torchrun.rank() == 0:  # ranks that share windows all have their losses
                checkpoints.save(group[0].record.checkpoint, document)
                scored.append(document)
        return Share(scored, time.monotonic() - started)

    def _ready(self, prepared: Prepared) -> Ready:
        key = (prepared.cell.config.model, prepared.cell.config.engine)
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = None  # free one model before the next is read
            started = time.monotonic()
            self._loaded = (key, _load(prepared))
            log.info("loaded model %s in %.1f s", prepared.cell.config.model.name, time.monotonic() - started)
        return self._loaded[1]


def plan(prepared: Prepared, documents: DocumentSet) -> list[list[Window]]:
    """The windows of every document under a cell."""
    cell = prepared.cell
    return evaluate.plans(documents.documents, cell.ctx, cell.protocol, cell.config.seed)


def _load(prepared: Prepared) -> Ready:
    from harness.engine.shared import Ranks

    config, where = prepared.cell.config, prepared.placement
    shared = None
    if torchrun.size() > 1:
        if where.device == "cuda":
            import torch

            torch.cuda.set_device(torchrun.local_rank())
        if config.engine.parallel == "context":
            group = ranks.tensor_group("gloo" if where.device == "cpu" else "nccl")
            shared = Ranks(torchrun.rank(), torchrun.size(), group)
    return ready(config.model, config.engine, where, shared)


def _scores(
    loaded: Ready,
    documents: DocumentSet,
    planned: list[list[Window]],
    group: list[Prepared],
    finished: Collection[int],
) -> Iterator[evaluate.Scores]:
    """The losses of this rank's documents that are not finished, each as soon as it is complete."""
    from tqdm import tqdm

    from harness.models.install import applied

    longest, engine = group[0].cell, loaded.engine
    config = longest.config
    lengths = [evaluate.num_tokens(windows) for windows in planned]
    own = set(range(len(lengths))) if engine.over else evaluate.shares(lengths, torchrun.size())[torchrun.rank()]
    mine = [windows if i in own else [] for i, windows in enumerate(planned)]
    with (
        applied(engine.model, longest.method, longest.ctx, loaded.geometry, logn=config.method.logn) as patch,
        tqdm(
            total=sum(lengths[i] for i in own),
            desc=_title(group),
            unit="tok",
            unit_scale=True,
            dynamic_ncols=True,
            disable=torchrun.rank() > 0,
        ) as bar,
    ):
        for warning in patch.warnings:
            log.warning("%s: %s", describe(longest), warning)
        bar.update(sum(lengths[i] for i in own & set(finished)))
        yield from evaluate.scores(
            documents.documents,
            mine,
            engine.token_nll,
            engine.tokens_per_batch,
            bos_token_id=group[0].header.bos_token_id,
            device=loaded.device,
            finished=finished,
            progress=bar.update,
        )


def _title(group: list[Prepared]) -> str:
    lengths = ",".join(str(p.cell.ctx) for p in reversed(group))
    config = group[0].cell.config
    where = f" rank 0 of {torchrun.size()}" if torchrun.size() > 1 else ""
    return f"{config.model.name} {config.method.name} ctx={lengths}{where}"
