"""Runs cells: one model load and one tokenization for all that share them, nothing computed twice, failures kept apart.

A single command, a sweep in one process and a batch job on a cluster all come through `run`.
"""

import dataclasses
import logging
import platform
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from harness import cells as cell_module
from harness import evaluate, store
from harness.cells import Cell, Identity
from harness.config import Config
from harness.documents import DocumentSet
from harness.errors import UserError
from harness.methods.base import RopeGeometry

if TYPE_CHECKING:
    from harness.engine import Engine
    from harness.models.header import Header

log = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """What became of a cell."""

    cell: Cell
    status: str  # "finished" | "computed" | "failed"
    message: str = ""  # of a failure

    @property
    def file(self) -> Path:
        """Where its windows lie."""
        return store.cell_path(self.cell.config.results_dir, self.cell.columns)


def main(configs: Sequence[Config]) -> None:
    """Run cells and report: table, figure, failures. Leaves with exit code 1 where a cell failed."""
    from harness import report_run

    outcomes = run(configs)
    report_run.report(outcomes)
    if any(o.status == "failed" for o in outcomes):
        sys.exit(1)


def run(configs: Sequence[Config]) -> list[Outcome]:
    """Compute every cell that is not finished yet. Raises UserError for a mistake, before the first cell."""
    from harness.models.header import header as read_header

    for results in {c.results_dir for c in configs}:
        store.check_writable(results)
    prepared: list[tuple[Header, list[Cell]]] = []
    for group in _grouped(configs, lambda c: (c.model, c.engine)):
        header = read_header(group[0].model)
        prepared.append((header, [cell_module.cell(c, identify(c, header)) for c in group]))
    outcomes: dict[int, Outcome] = {}
    for header, cells in prepared:
        todo = []
        for one in cells:
            if _is_finished(one):
                outcomes[id(one.config)] = Outcome(one, "finished")
            else:
                todo.append(one)
        for outcome in _run_model(header, todo):
            outcomes[id(outcome.cell.config)] = outcome
    return [outcomes[id(c)] for c in configs]


def _grouped(configs: Iterable[Config], key: Any) -> list[list[Config]]:
    groups: dict[Any, list[Config]] = {}
    for config in configs:
        groups.setdefault(key(config), []).append(config)
    return list(groups.values())


def _is_finished(one: Cell) -> bool:
    return not one.config.force and store.is_finished(one.config.results_dir, one.columns, one.tables)


def identify(config: Config, header: "Header") -> Identity:
    """What determines the numbers of a cell besides its own configuration."""
    from harness import documents

    policy = config.protocol.bos
    if policy == "auto":
        policy = "every_window" if header.adds_bos else "none"
    if policy != "none" and header.bos_token_id is None:
        raise UserError(f"protocol.bos={policy}: the tokenizer of {config.model.name} has no BOS token; use none.")
    return Identity(
        model_fingerprint=header.fingerprint,
        model_revision=header.revision,
        geometry=header.geometry,
        bos=policy,
        dataset_fingerprint=documents.fingerprint(config.data, header.tokenizer_fingerprint, config.seed),
        dtype=_dtype(config),
    )


def _dtype(config: Config) -> str:
    if config.engine.dtype != "auto":
        return config.engine.dtype
    return "float32" if _device(config) == "cpu" else "bfloat16"


def _device(config: Config) -> str:
    import torch

    wanted = config.engine.device
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"engine.device={wanted}: no CUDA device is available here; use cpu or auto.")
    return wanted


def _run_model(header: "Header", todo: list[Cell]) -> Iterator[Outcome]:
    """The missing cells of one model; documents are loaded and checked before the model is."""
    if not todo:
        return
    sets: dict[str, DocumentSet] = {}
    for one in todo:
        sets.setdefault(one.columns["dataset_fingerprint"], _documents(one, header))
    loaded = None
    for group in cell_module.passes(todo):
        documents = sets[group[0].columns["dataset_fingerprint"]]
        try:
            loaded = loaded or _load(header, group[0])
            _run_pass(loaded, documents, group)
        except UserError:
            raise
        except Exception as error:
            yield from (_failed(one, error) for one in group)
        else:
            yield from (Outcome(one, "computed") for one in group)


def _documents(one: Cell, header: "Header") -> DocumentSet:
    from harness import documents

    loaded = documents.load(one.config.data, header.tokenizer, header.tokenizer_fingerprint, one.config.seed)
    documents.check_lengths(loaded, one.ctx)
    return loaded


class Ready(NamedTuple):
    """A model on its device, and how its losses are computed."""

    engine: "Engine"
    geometry: RopeGeometry | None
    device: str
    bos_token_id: int | None


def _load(header: "Header", one: Cell) -> Ready:
    import torch
    import transformers

    from harness.engine import Engine
    from harness.models.load import load

    transformers.utils.logging.disable_progress_bar()
    engine = one.config.engine
    attention = None if engine.attention == "auto" else engine.attention
    device = _device(one.config)
    loaded = load(one.config.model, getattr(torch, _dtype(one.config)), device, attention)
    model: Any = loaded.model
    return Ready(Engine(model, engine), loaded.geometry, device, header.bos_token_id)


def _failed(one: Cell, error: Exception) -> Outcome:
    """Keep the traceback in the cell's own log and go on with the others."""
    file = store.cell_path(one.config.results_dir, one.columns).with_suffix(".log")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(traceback.format_exception(error)))
    message = f"{type(error).__name__}: {' '.join(str(error).split())}"
    log.error("FAILED %s: %s (traceback in %s)", describe(one), message, file)
    return Outcome(one, "failed", message)


def describe(one: Cell) -> str:
    """A cell in the words of its overrides."""
    method, model = one.config.method, one.config.model
    params = [f"method.{k}={v}" for k, v in method.params.items() if v is not None]
    return " ".join([f"model={model.name}", f"method={method.name}", *params, f"ctx={one.ctx}"])


def _run_pass(loaded: Ready, documents: DocumentSet, group: list[Cell]) -> None:
    """One pass over the documents at the longest length of the group; every cell of it is written."""
    from tqdm import tqdm

    from harness.models.patch import applied

    longest, engine = group[0], loaded.engine
    config = longest.config
    planned = evaluate.plans(documents.documents, longest.ctx, longest.protocol, config.seed)
    tokens = sum(w.end - w.begin + w.bos for windows in planned for w in windows)
    started = time.monotonic()
    with (
        applied(engine.model, longest.method, longest.ctx, loaded.geometry, logn=config.method.logn) as patch,
        tqdm(total=tokens, desc=_title(group), unit="tok", unit_scale=True, dynamic_ncols=True) as bar,
    ):
        for warning in patch.warnings:
            log.warning("%s: %s", describe(longest), warning)
        scored = list(
            evaluate.scores(
                documents.documents,
                planned,
                engine.token_nll,
                engine.tokens_per_batch,
                bos_token_id=loaded.bos_token_id,
                device=loaded.device,
                progress=bar.update,
            )
        )
    seconds = time.monotonic() - started
    for one in group:
        own = scored if one is longest else [evaluate.cut(s, one.ctx) for s in scored]
        made = provenance(one, loaded) | {"seconds": seconds, "tokens": tokens, "tokens_per_second": tokens / seconds}
        store.write(config.results_dir, one.columns, tables(one, own, documents), made)


def _title(group: list[Cell]) -> str:
    lengths = ",".join(str(one.ctx) for one in reversed(group))
    return f"{group[0].config.model.name} {group[0].config.method.name} ctx={lengths}"


def tables(one: Cell, scored: list[evaluate.Scores], documents: DocumentSet) -> dict[str, pd.DataFrame]:
    """The tables of a cell from the losses of its documents, in document order."""
    ordered = sorted(scored, key=lambda s: s.document)
    pairs = [(s, documents.documents[s.document]) for s in ordered]
    made = {
        "windows": pd.concat([evaluate.window_rows(s, d) for s, d in pairs], ignore_index=True),
        "positions": pd.concat([evaluate.position_rows(s, d, one.ctx) for s, d in pairs], ignore_index=True),
    }
    if "tokens" in one.tables:
        made["tokens"] = pd.concat([evaluate.token_rows(s, d) for s, d in pairs], ignore_index=True)
    return made


def provenance(one: Cell, loaded: Ready) -> dict[str, Any]:
    """Everything that is worth knowing about how a cell was made."""
    return {
        "config": dataclasses.asdict(one.config),
        "command": " ".join(sys.argv),
        "device": str(loaded.device),
        "versions": {p: version(p) for p in ("longctx-harness", "torch", "transformers", "datasets", "numpy")},
        "python": platform.python_version(),
    }
