"""What an engine is to see: the windows of cells as token ids."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.cells.documents import Documents
from harness.cells.prepare import Prepared
from harness.engine.batches import Job, token_ids
from harness.storage.cache import digest
from harness.storage.files import write_text


class Prompt(NamedTuple):
    """A window as an engine sees it; equal ids have equal names, whatever cell they are of."""

    id: str
    ids: NDArray[np.int64]  # (num_tokens,), BOS included
    document: str
    job: Job

    @property
    def place(self) -> str:
        """Where it lies, for messages."""
        span = self.job.span
        return f"window {self.job.window} [{span.begin}, {span.end}) of document {self.document!r}"


def of(prepared: Prepared, documents: Documents) -> list[list[Prompt]]:
    """The windows of every document of a cell."""
    own = documents.of(prepared).documents
    bos = prepared.header.prefix_token_id
    made = []
    for index, windows in enumerate(documents.windows(prepared)):
        jobs = [Job(index, window, span) for window, span in enumerate(windows)]
        seen = [token_ids([job], own, bos)[0] for job in jobs]
        made.append([Prompt(name(ids), ids, own[index].name, job) for job, ids in zip(jobs, seen, strict=True)])
    return made


def name(ids: NDArray[np.int64]) -> str:
    """Sixteen hex digits over token ids (num_tokens,)."""
    return digest(ids.tolist())


def write(file: Path, prompts: Iterable[Prompt]) -> tuple[int, int]:
    """Write each window once, a JSON line each; returns how many windows and tokens. Raises StorageError."""
    distinct = list({prompt.id: prompt for prompt in prompts}.values())
    write_text(file, "".join(line(prompt) + "\n" for prompt in distinct), what="prompts")
    return len(distinct), sum(len(prompt.ids) for prompt in distinct)


def line(prompt: Prompt) -> str:
    """One window as JSON: its name, its token ids, and where it is from."""
    span = prompt.job.span
    where = {"document": prompt.document, "begin": span.begin, "end": span.end}
    return json.dumps({"id": prompt.id, "ids": prompt.ids.tolist(), **where})


def flat(prompts: Sequence[Sequence[Prompt]]) -> list[Prompt]:
    """All windows of a cell."""
    return [prompt for own in prompts for prompt in own]
