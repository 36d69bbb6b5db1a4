"""From all answers of a cell to its rows, written as those of any cell."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version

import numpy as np

from harness.cells.documents import Documents
from harness.cells.files import Outcome
from harness.cells.prepare import Prepared
from harness.data.scores import Scores
from harness.errors import UserError
from harness.external import answers
from harness.external.answers import Answer
from harness.external.prompts import Prompt
from harness.external.settings import Settings
from harness.results import rows, store
from harness.runs.checkpoints import discard
from harness.runs.provenance import commit


def read(
    prepared: Sequence[Prepared],
    settings: Settings,
    documents: Documents,
    prompts: Sequence[list[list[Prompt]]],
    found: Mapping[str, Answer],
) -> list[Outcome]:
    """Rows of every cell from the answers of a file; raises UserError before anything is written."""
    scored = [scores(p, found, own) for p, own in zip(prepared, prompts, strict=True)]
    for p, own in zip(prepared, scored, strict=True):
        if not p.files.force and p.files.is_finished():
            _check_same(p, own)
    made = []
    for p, own in zip(prepared, scored, strict=True):
        if not p.files.force and p.files.is_finished():
            made.append(Outcome(p.files, "finished"))
        else:
            made.append(write(p, documents, own, settings, {"file": settings.path.name}))
    return made


def scores(prepared: Prepared, found: Mapping[str, Answer], prompts: list[list[Prompt]]) -> list[Scores]:
    """The losses of every document of a cell. Raises UserError for a window without an answer, or with a bad one."""
    missing = [prompt for own in prompts for prompt in own if prompt.id not in found]
    if missing:
        raise UserError(
            f"{len(missing)} of {sum(map(len, prompts))} windows of ctx={prepared.cell.ctx} have no line, the first "
            f"is {missing[0].id}, {missing[0].place}."
        )
    return [answers.scores(i, own, [found[prompt.id] for prompt in own]) for i, own in enumerate(prompts)]


def _check_same(prepared: Prepared, scored: Sequence[Scores]) -> None:
    """Raise UserError where a finished cell holds other losses than those that are given now."""
    known = store.load_results(prepared.files.windows).sort_values(["document_index", "window"])
    sums = [float(np.sum(nll, dtype=np.float64)) for document in scored for nll in document.nll]
    if known["nll_sum"].tolist() != sums:
        raise UserError(
            f"{prepared.files.label} is finished with other losses; another engine or other settings need another "
            "name= or engine=, and force=true replaces the cell."
        )


def write(
    prepared: Prepared, documents: Documents, scored: Sequence[Scores], settings: Settings, source: dict[str, object]
) -> Outcome:
    """Write the tables of a cell, and forget what was kept of it on the way. Raises StorageError."""
    cell = prepared.cell
    tables = rows.tables(cell.tables, scored, documents.of(prepared).documents, cell.ctx)
    made = {
        "external": {"engine": settings.computed_by, "dtype": settings.dtype, **source},
        "run_id": prepared.files.run_id,
        "commit": commit(),
        "command": prepared.files.command,
        "versions": {p: version(p) for p in ("longctx-harness", "transformers", "datasets", "numpy")},
        "python": platform.python_version(),
    }
    store.write(cell.config.results_dir, cell.columns, tables, made)
    discard(prepared.files.checkpoint)
    return Outcome(prepared.files, "computed")
