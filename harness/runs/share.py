"""This process's share of a pass over the documents: the model and the documents it keeps, the losses it computes."""

import logging
import time
from collections.abc import Collection, Iterator
from functools import partial
from typing import NamedTuple

from harness import torchrun
from harness.cells.documents import Documents
from harness.cells.naming import label
from harness.cells.passes import Pass
from harness.cells.prepare import Prepared
from harness.data.documents import Document
from harness.data.scores import Scores
from harness.data.windows import Window
from harness.engine.batches import num_tokens, shares
from harness.engine.exchange import Ranks
from harness.engine.kept import Keep
from harness.engine.ready import Ready, ready
from harness.engine.scores import evaluate
from harness.engine.spec import EngineSpec
from harness.models.checkpoint.spec import ModelSpec
from harness.runs import checkpoints
from harness.runs.ranks import processes

log = logging.getLogger(__name__)


class Share(NamedTuple):
    """Losses of the documents that one process has computed."""

    scores: list[Scores]
    seconds: float
    installed: list[dict[str, str | float | None]]  # what the model rotated by, as `Installed.record`


class Resources:
    """What the passes of this process have in common: one model at a time, and all documents."""

    def __init__(self, documents: Documents | None = None) -> None:
        self.documents = documents or Documents()
        self._loaded: tuple[tuple[ModelSpec, EngineSpec, str], Ready] | None = None

    def ready(self, prepared: Prepared) -> Ready:
        """The model of a cell, loaded unless it is that of the last pass."""
        config = prepared.cell.config
        key = (config.model, config.engine, prepared.header.fingerprint)
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = None  # free one model before the next is read
            started = time.monotonic()
            self._loaded = (key, _load(prepared))
            log.info("loaded model %s in %.1f s", config.model.name, time.monotonic() - started)
        return self._loaded[1]


def compute_share(resources: Resources, current: Pass, finished: Collection[int]) -> Share:
    """The losses of this rank's documents that are not finished, each kept as soon as it is complete."""
    from harness.models.install import applied

    longest = current.longest
    loaded, documents = resources.ready(longest), resources.documents.of(longest).documents
    planned = resources.documents.windows(longest)
    method, given = longest.cell.method, longest.cell.config.method
    every = longest.cell.config.engine.keep_every
    kept = Keep(current.checkpoint / "windows", every, longest.cell.cell_id) if every is not None else None
    loaded.engine.keep = kept
    started = time.monotonic()
    scored = []
    with applied(
        loaded.engine.model,
        method,
        longest.cell.ctx,
        loaded.trained,
        query_scale=given.query_scale,
        kv_cache=given.kv_cache,
    ) as patch:
        for warning in patch.warnings:
            log.warning("%s: %s", label(longest.cell), warning)
        for document in _scores(loaded, documents, planned, current, finished):
            if loaded.engine.over is None or torchrun.rank() == 0:  # ranks that share windows all have their losses
                checkpoints.save(current.checkpoint, document)
                scored.append(document)
    return Share(scored, time.monotonic() - started, [one.record for one in patch.installed])


def _load(prepared: Prepared) -> Ready:
    config, where = prepared.cell.config, prepared.placement
    ranks = None
    if torchrun.size() > 1:
        if where.device == "cuda":
            import torch

            torch.cuda.set_device(torchrun.local_rank())
        if config.engine.parallel == "context":
            group = processes.tensor_group("gloo" if where.device == "cpu" else "nccl")
            ranks = Ranks(torchrun.rank(), torchrun.size(), group)
    return ready(config.model, config.engine, *where, ranks, identified=prepared.header.fingerprint)


def _scores(
    loaded: Ready, documents: list[Document], planned: list[list[Window]], current: Pass, finished: Collection[int]
) -> Iterator[Scores]:
    """The losses of this rank's documents that are not finished, each as soon as it is complete."""
    from tqdm.auto import tqdm

    engine = loaded.engine
    lengths = [num_tokens(windows) for windows in planned]
    own = set(range(len(lengths))) if engine.over else shares(lengths, torchrun.size())[torchrun.rank()]
    mine = [windows if i in own else [] for i, windows in enumerate(planned)]
    rank = f" rank 0 of {torchrun.size()}" if torchrun.size() > 1 else ""
    with tqdm(
        total=sum(lengths[i] for i in own),
        desc=current.title + rank,
        unit="tok",
        unit_scale=True,
        dynamic_ncols=True,
        disable=torchrun.rank() > 0,
    ) as bar:
        bar.update(sum(lengths[i] for i in own & set(finished)))
        yield from evaluate(
            documents,
            mine,
            partial(engine.token_scores, ahead=current.longest.cell.protocol.ahead),
            engine.tokens_per_batch,
            bos_token_id=current.longest.header.prefix_token_id,
            device=loaded.device,
            finished=finished,
            progress=bar.update,
        )
