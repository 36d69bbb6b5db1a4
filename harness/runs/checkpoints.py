"""The losses of finished documents of an unfinished cell: one file a document, so that a killed cell goes on.

Not results: a checkpoint that is truncated, or does not fit the plan, is named, removed and computed again.
"""

import logging
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness.data.scores import Compared, Scores
from harness.data.windows import Window
from harness.storage.files import write_atomically

log = logging.getLogger(__name__)
COMPARED = [f"base_{name}" for name in Compared._fields]


def save(folder: Path, scored: Scores) -> None:
    """Keep the float32 losses of one document, top1 and what a base says. Raises StorageError."""
    counts = np.array([len(nll) for nll in scored.nll])
    arrays = {"losses": np.concatenate(scored.nll).astype(np.float32, copy=False)}
    if scored.top1 is not None:
        arrays["top1"] = np.concatenate(scored.top1)
    if scored.base is not None:
        parts = zip(COMPARED, zip(*scored.base, strict=True), strict=True)
        arrays |= {name: np.concatenate(values) for name, values in parts}
    # Not synced: after a power failure a torn file is found out by its checksum (the zip format's CRC-32).
    file = folder / f"{scored.document}.npz"
    write_atomically(file, lambda stream: np.savez(stream, allow_pickle=False, counts=counts, **arrays), sync=False)


def load(folder: Path, planned: Sequence[Sequence[Window]]) -> list[Scores]:
    """The documents that are finished, bit for bit as they were saved."""
    found = (_read(folder / f"{index}.npz", index, windows) for index, windows in enumerate(planned))
    return [scored for scored in found if scored is not None]


def _read(file: Path, document: int, windows: Sequence[Window]) -> Scores | None:
    if not file.exists():
        return None
    try:
        with np.load(file, allow_pickle=False) as arrays:
            counts, losses = arrays["counts"], arrays["losses"]
            top1 = arrays.get("top1")
            base = [arrays[name] for name in COMPARED if name in arrays]
        fits = counts.tolist() == [w.num_scored for w in windows] and losses.shape == (counts.sum(),)
        if not fits or losses.dtype != np.float32:
            raise ValueError("it belongs to other windows")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        log.warning("checkpoint %s is unusable (%s); its document is computed again", file, str(error).split("\n")[0])
        file.unlink(missing_ok=True)
        return None
    ends = np.cumsum(counts)[:-1]
    compared = [Compared(*parts) for parts in zip(*(np.split(values, ends) for values in base), strict=True)]
    split_top1 = None if top1 is None else np.split(top1, ends)
    return Scores(document, list(windows), np.split(losses, ends), split_top1, compared or None)


def discard(folder: Path) -> None:
    """Forget all checkpoints of a cell."""
    shutil.rmtree(folder, ignore_errors=True)
