"""Evaluations that are kept by what was evaluated, and shared by every process that works on the same search."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from harness.files import write_atomically
from harness.leases import Leases

log = logging.getLogger(__name__)

WAIT_S = 0.02  # between looks at what other processes compute
T = TypeVar("T")
Record = dict[str, Any]


class Evaluations:
    """A directory with one file an evaluation, named by its key."""

    def __init__(self, folder: Path, leases: Leases) -> None:
        self.folder, self.leases = folder, leases

    def get(
        self,
        wanted: Mapping[str, T],
        compute: Callable[[T], Record],
        progress: Callable[[Record], object] = lambda record: None,
    ) -> dict[str, Record]:
        """The record of every key, computed where no process has done so yet and none does so now.

        Waits for what other processes compute, and takes over from those that died. Raises StorageError.
        """
        found: dict[str, Record] = {}
        while True:
            for key in [key for key in wanted if key not in found]:
                record = self._attempt(key, wanted[key], compute)
                if record is not None:
                    found[key] = record
                    progress(record)
            if len(found) == len(wanted):
                return {key: found[key] for key in wanted}
            time.sleep(WAIT_S)

    def _attempt(self, key: str, item: T, compute: Callable[[T], Record]) -> Record | None:
        """The record, or None where another process computes it now."""
        file, lease = self.folder / f"{key}.json", self.folder / f"{key}.lease"
        known = _read(file)
        if known is not None or not self.leases.acquire([lease]):
            return known
        try:
            record = _read(file)  # finished meanwhile
            if record is None:
                record = compute(item)
                text = json.dumps(record, allow_nan=False).encode()
                write_atomically(file, lambda stream: stream.write(text), sync=False)
        finally:
            self.leases.release([lease])
        return record


def _read(file: Path) -> Record | None:
    try:
        return json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        log.warning("%s is damaged; evaluating again", file)
        return None
