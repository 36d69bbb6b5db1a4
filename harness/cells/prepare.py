"""Everything that can be known, and be wrong, before the first model is loaded."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from harness.cells import cell as cells
from harness.cells import record as records
from harness.cells.cell import Cell, Identity
from harness.cells.device import Placement, placement
from harness.cells.record import Record
from harness.config.schema import MODIFIERS, Config
from harness.data import documents
from harness.data.documents import DocumentSet
from harness.data.sources import DataSpec
from harness.data.windows import Protocol
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
    placement: Placement  # where it is computed, and in which precision


def prepare(configs: Sequence[Config], run_id: str, *, sweep: bool) -> list[Prepared]:
    """The cells of these configurations, in their order. Raises UserError for a mistake in any of them."""
    from harness.models.checkpoint.header import header

    headers = {model: header(model) for model in dict.fromkeys(config.model for config in configs)}
    prepared = []
    for config in configs:
        known = headers[config.model]
        where = placement(config.engine, config.cluster)
        cell = cells.cell(config, identify(known, config.data, config.protocol, config.seed, where.dtype))
        prepared.append(Prepared(known, cell, record(cell, run_id, sweep=sweep), where))
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


def identify(header: "Header", data: DataSpec, protocol: Protocol, seed: int, dtype: str) -> Identity:
    """What determines the numbers of a cell besides its method, its length and its windows. Raises UserError."""
    policy = protocol.bos
    if policy == "auto":
        policy = "every_window" if header.adds_bos else "none"
    if policy != "none" and header.bos_token_id is None:
        raise UserError(f"protocol.bos={policy}: the tokenizer of {header.spec.name} has no BOS token; use none.")
    return Identity(
        model_fingerprint=header.fingerprint,
        model_revision=header.revision,
        geometry=header.geometry,
        trained_with=TrainedWith.of(header.config),
        bos=policy,
        dataset_fingerprint=documents.fingerprint(data, header.tokenizer_fingerprint, seed),
        dtype=dtype,
    )


def load_documents(prepared: Sequence[Prepared]) -> dict[str, DocumentSet]:
    """The documents of cells by fingerprint, every one long enough. Raises UserError."""
    sets: dict[str, DocumentSet] = {}
    for p in prepared:
        header, cell = p.header, p.cell
        config, key = cell.config, cell.columns["dataset_fingerprint"]
        if key not in sets:
            sets[key] = documents.load(config.data, header.tokenizer, header.tokenizer_fingerprint, config.seed)
        documents.check_lengths(sets[key], cell.ctx)
    return sets
