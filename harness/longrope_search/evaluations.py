"""Evaluations that are kept by what was evaluated, and shared by every process that works on the same search."""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NotRequired, TypedDict, TypeVar

from harness.storage import cache
from harness.storage.files import write_text
from harness.storage.leases import Leases

log = logging.getLogger(__name__)

WAIT_S = 0.02  # between looks at what other processes compute
T = TypeVar("T")


class Record(TypedDict):
    """What is kept of one evaluation, as JSON."""

    factors: NotRequired[tuple[float, ...]]  # of a genome, as are the next two
    unscaled_prefix: NotRequired[int]
    critical_pair: NotRequired[int | None]
    nll: float  # mean over the documents, nats a token
    seconds: NotRequired[float]
    documents: NotRequired[list[tuple[float, float]]]  # of evaluation documents: nats and tokens of each


Records = dict[str, Record]  # by what was evaluated


class Evaluations:
    """A directory with one file a batch of evaluations, named by their keys: a batch is there in full or not at all."""

    def __init__(self, folder: Path, leases: Leases) -> None:
        self.folder, self.leases = folder, leases

    def get(
        self,
        batches: Sequence[Mapping[str, T]],
        compute: Callable[[Sequence[T]], Sequence[Record]],
        progress: Callable[[int], object] = lambda evaluations: None,
    ) -> Records:
        """The record of every key, batches computed where no process has done so yet and none does so now.

        Waits for what other processes compute, and takes over from those that died. Raises StorageError.
        """
        found: Records = {}
        missing = list(batches)
        while missing:
            for batch in list(missing):
                records = self._attempt(batch, compute)
                if records is not None:
                    found |= records
                    missing.remove(batch)
                    progress(len(batch))
            if missing:
                time.sleep(WAIT_S)
        return found

    def _attempt(self, batch: Mapping[str, T], compute: Callable[[Sequence[T]], Sequence[Record]]) -> Records | None:
        """The records, or None where another process computes them now."""
        name = cache.digest(list(batch))
        file, lease = self.folder / f"{name}.json", self.folder / f"{name}.lease"
        known = _read(file)
        if known is not None or not self.leases.acquire([lease]):
            return known
        try:
            records = _read(file)  # finished meanwhile
            if records is None:
                records = dict(zip(batch, compute(list(batch.values())), strict=True))
                write_text(file, json.dumps(records, allow_nan=False), sync=False)
        finally:
            self.leases.release([lease])
        return records


def _read(file: Path) -> Records | None:
    try:
        return json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        log.warning("%s is damaged; evaluating again", file)
        return None
