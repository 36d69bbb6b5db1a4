"""Everything that can be known, and be wrong, before the first model is loaded."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from harness import torchrun
from harness.cells import cell as cells
from harness.cells import record as records
from harness.cells.cell import Cell, Identity
from harness.cells.record import Record
from harness.config.schema import MODIFIERS, Config
from harness.data import documents
from harness.data.documents import DocumentSet
from harness.errors import UserError
from harness.methods.encoding.trained_with import TrainedWith
from harness.results import store

if TYPE_CHECKING:
    from harness.models.checkpoint.header import Header


class Prepared(NamedTuple):
    """A cell that can run: all of it but the weights."""

    header: "Header"
    cell: Cell
    record: Record


def prepare(configs: Sequence[Config], run_id: str, *, sweep: bool) -> list[Prepared]:
    """The cells of these configurations, in their order. Raises UserError for a mistake in any of them."""
    from harness.models.checkpoint.header import header

    headers = {model: header(model) for model in dict.fromkeys(config.model for config in configs)}
    prepared = []
    for config in configs:
        known = headers[config.model]
        cell = cells.cell(config, identify(config, known))
        prepared.append(Prepared(known, cell, record(cell, run_id, sweep=sweep)))
    return prepared


def record(cell: Cell, run_id: str, *, sweep: bool) -> Record:
    """What a report needs to know of a cell."""
    config = cell.config
    return Record(
        place=store.place(config.results_dir, cell.columns),
        tables=tuple(cell.tables),
        label=describe(cell),
        command=records.command(config.overrides, sweep),
        run_id=run_id,
        force=config.force,
    )


def describe(cell: Cell) -> str:
    """A cell in the words of its overrides."""
    method = cell.config.method
    usual = {f.name: f.default for f in dataclasses.fields(cell.method)}
    given = method.params | {name: True for name in MODIFIERS if getattr(method, name)}
    params = [f"method.{k}={v}" for k, v in given.items() if v != usual.get(k)]
    return " ".join([f"model={cell.config.model.name}", f"method={method.name}", *params, f"ctx={cell.ctx}"])


def identify(config: Config, header: "Header") -> Identity:
    """What determines the numbers of a cell besides its own configuration."""
    policy = config.protocol.bos
    if policy == "auto":
        policy = "every_window" if header.adds_bos else "none"
    if policy != "none" and header.bos_token_id is None:
        raise UserError(f"protocol.bos={policy}: the tokenizer of {config.model.name} has no BOS token; use none.")
    return Identity(
        model_fingerprint=header.fingerprint,
        model_revision=header.revision,
        geometry=header.geometry,
        trained_with=TrainedWith.of(header.config),
        bos=policy,
        dataset_fingerprint=documents.fingerprint(config.data, header.tokenizer_fingerprint, config.seed),
        dtype=dtype(config),
    )


def load_documents(prepared: Sequence[Prepared]) -> dict[str, DocumentSet]:
    """The documents of cells by fingerprint, every one long enough. Raises UserError."""
    sets: dict[str, DocumentSet] = {}
    for header, cell, _ in prepared:
        config, key = cell.config, cell.columns["dataset_fingerprint"]
        if key not in sets:
            sets[key] = documents.load(config.data, header.tokenizer, header.tokenizer_fingerprint, config.seed)
        documents.check_lengths(sets[key], cell.ctx)
    return sets


def dtype(config: Config) -> str:
    """What a cell computes in: asked for, or float32 on a CPU and bfloat16 on a GPU."""
    if config.engine.dtype != "auto":
        return config.engine.dtype
    return "float32" if device(config) == "cpu" else "bfloat16"


def device(config: Config) -> str:
    """Where a cell will run, told without being there: asked for, given by the cluster, or found here."""
    if config.engine.device != "auto":
        return config.engine.device
    if config.cluster.name == "gpus" or (config.cluster.name == "slurm" and config.cluster.gpus):
        return "cuda"
    if config.cluster.name == "slurm":
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def check_device(config: Config) -> None:
    """Raise UserError where the device of a cell is not on this machine."""
    wanted = device(config)
    if not wanted.startswith("cuda"):
        return
    import torch

    reason = "" if config.engine.device != "auto" else f" (cluster={config.cluster.name} gives a GPU to every process)"
    if not torch.cuda.is_available():
        raise UserError(f"engine.device={wanted}{reason}: no CUDA device is available here; use cpu or auto.")
    number = wanted.partition(":")[2]
    if torchrun.size() > 1:
        if number:
            raise UserError(f"engine.device must be auto, cuda or cpu under torchrun (a GPU a process), got {wanted}.")
        if torchrun.local_size() > torch.cuda.device_count():
            raise UserError(
                f"torchrun must start at most one process a GPU, got {torchrun.local_size()} processes and "
                f"{torch.cuda.device_count()} CUDA devices on this machine; engine.device=cpu runs without."
            )
    if number.isdigit() and int(number) >= torch.cuda.device_count():
        raise UserError(f"engine.device={wanted}: this machine has {torch.cuda.device_count()} CUDA devices, from 0.")
