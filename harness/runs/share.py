"""This process's share of a pass over the documents: the model and the documents it keeps, the losses it computes."""

import logging
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from harness import torchrun
from harness.cells.beside import Key, weights_of
from harness.cells.compiling import is_compiled
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
from harness.engine.scores import NllFunction, evaluate
from harness.runs import checkpoints
from harness.runs.ranks import processes

if TYPE_CHECKING:
    from harness.models.install import Patch

log = logging.getLogger(__name__)


Record = dict[str, str | float | None]  # as `Installed.record`


class Share(NamedTuple):
    """Losses of the documents that one process has computed."""

    scores: list[Scores]
    seconds: float
    installed: list[Record]  # what the model rotated by
    base_installed: list[Record] | None = None  # the same of the base that KL is taken to


class Resources:
    """What the passes of this process have in common: one model at a time (or two), and all documents."""

    def __init__(self, documents: Documents | None = None) -> None:
        self.documents = documents or Documents()
        self.coming: Sequence[Pass] = ()  # of this process, as far as it knows
        self._loaded: dict[Key, Ready] = {}

    def ready(self, prepared: Prepared, beside: Prepared | None = None) -> Ready:
        """The model of a cell, loaded unless the last pass had it; no other stays but that of `beside`."""
        key, stays = weights_of(prepared), None if beside is None else weights_of(beside)
        for other in set(self._loaded) - {key, stays}:
            del self._loaded[other]  # free one model before the next is read
        if key not in self._loaded:
            started = time.monotonic()
            same = [one for one in self.coming if weights_of(one.longest) == key]
            is_alone = torchrun.size() == 1  # other ranks do not know what comes
            self._loaded[key] = _load(prepared, is_alone and is_compiled(prepared, same, self.documents))
            log.info("loaded model %s in %.1f s", prepared.cell.config.model.name, time.monotonic() - started)
        return self._loaded[key]

    def forget(self, prepared: Prepared) -> None:
        """Read the model of a cell again when it is asked for again."""
        self._loaded.pop(weights_of(prepared), None)


@contextmanager
def under(loaded: Ready, prepared: Prepared) -> "Iterator[Patch]":
    """Until the block ends, the model runs by the method of the cell."""
    from harness.models.install import applied

    cell, given = prepared.cell, prepared.cell.config.method
    with applied(
        loaded.engine.model,
        cell.method,
        cell.ctx,
        loaded.trained,
        query_scale=given.query_scale,
        remove_query_scale=given.remove_query_scale,
        kv_cache=given.kv_cache,
        layers=given.layers,
        passed=loaded.engine.passed,
    ) as patch:
        yield patch


def warn(patch: "Patch", prepared: Prepared) -> None:
    """Log what a reader of a cell's numbers should know."""
    for warning in patch.warnings:
        log.warning("%s: %s", label(prepared.cell), warning)


def keeping(prepared: Prepared, current: Pass) -> Keep | None:
    """Where long windows of a cell are kept while they run."""
    every = prepared.cell.config.engine.keep_every
    return None if every is None else Keep(current.checkpoint / "windows", every, prepared.cell.cell_id)


def compute_alone(resources: Resources, current: Pass, finished: Collection[int]) -> Share:
    """The losses of this rank's documents that are not finished, each kept as soon as it is complete.

    Of cells without a base.
    """
    longest = current.longest
    loaded = resources.ready(longest)
    loaded.engine.keep = keeping(longest, current)
    started = time.monotonic()
    with under(loaded, longest) as patch:
        warn(patch, longest)
        nll = partial(loaded.engine.token_scores, ahead=longest.cell.protocol.ahead)
        scored = scores(resources, current, finished, loaded, nll)
    return Share(scored, time.monotonic() - started, [one.record for one in patch.installed])


def scores(
    resources: Resources, current: Pass, finished: Collection[int], loaded: Ready, nll: NllFunction
) -> list[Scores]:
    """What `nll` says of this rank's documents that are not finished, each kept as soon as it is complete."""
    documents = resources.documents.of(current.longest).documents
    planned = resources.documents.windows(current.longest)
    scored = []
    for document in _scores(loaded, documents, planned, current, finished, nll):
        if loaded.engine.over is None or torchrun.rank() == 0:  # ranks that share windows all have their losses
            checkpoints.save(current.checkpoint, document)
            scored.append(document)
    return scored


def _load(prepared: Prepared, is_compiled: bool) -> Ready:
    config, where = prepared.cell.config, prepared.placement
    ranks = None
    if torchrun.size() > 1:
        if where.device == "cuda":
            import torch

            torch.cuda.set_device(torchrun.local_rank())
        if config.engine.parallel == "context":
            group = processes.tensor_group("gloo" if where.device == "cpu" else "nccl")
            ranks = Ranks(torchrun.rank(), torchrun.size(), group)
    engine = replace(config.engine, compile=is_compiled) if config.engine.compile == "auto" else config.engine
    return ready(config.model, engine, *where, ranks, identified=prepared.header.fingerprint)


def own_share(planned: list[list[Window]]) -> set[int]:
    """The documents of this rank, where each computes whole documents."""
    return shares([num_tokens(windows) for windows in planned], torchrun.size())[torchrun.rank()]


def _scores(
    loaded: Ready,
    documents: list[Document],
    planned: list[list[Window]],
    current: Pass,
    finished: Collection[int],
    nll: NllFunction,
) -> Iterator[Scores]:
    """The losses of this rank's documents that are not finished, each as soon as it is complete."""
    from tqdm.auto import tqdm

    engine = loaded.engine
    lengths = [num_tokens(windows) for windows in planned]
    own = set(range(len(lengths))) if engine.over else own_share(planned)
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
            nll,
            engine.tokens_per_batch,
            bos_token_id=current.longest.header.prefix_token_id,
            device=loaded.device,
            finished=finished,
            progress=bar.update,
        )
