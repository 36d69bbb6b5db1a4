"""Everything that can be known, and be wrong, before the first model is loaded."""

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from harness.cells.cell import Cell, Identity, cell
from harness.cells.device import Placement, placement
from harness.cells.files import CellFiles
from harness.cells.naming import command, label
from harness.config.schema import Config
from harness.data import documents
from harness.data.windows import Protocol
from harness.errors import UserError
from harness.logs import progress
from harness.results import store

if TYPE_CHECKING:
    from harness.models.checkpoint.header import Header


class Prepared(NamedTuple):
    """A cell that can run: all of it but the weights."""

    header: "Header"
    cell: Cell
    files: CellFiles
    placement: Placement  # where it is computed, and in which precision
    base: "Prepared | None" = None  # what KL is taken to, on the same windows


def prepare(configs: Sequence[Config], run_id: str, *, sweep: bool) -> list[Prepared]:
    """The cells of these configurations, in their order. Raises UserError for a mistake in any of them."""
    from harness.models.checkpoint.header import header

    wanted = [one for config in configs for one in (config, config.of_base) if one is not None]
    headers = {model: header(model) for model in dict.fromkeys(one.model for one in wanted)}
    read = {model: functools.partial(getattr, known, "tokenizer") for model, known in headers.items()}
    fingerprint = functools.cache(documents.fingerprint)  # one look at the raw texts serves all cells; a hub is slow

    def ready(config: Config, base: Prepared | None = None) -> Prepared:
        known = headers[config.model]
        _check_short_windows(config, known)
        where = placement(config.engine, config.cluster)
        texts = fingerprint(config.data, read[config.model], known.tokenizer_fingerprint, config.seed)
        identity = identify(known, texts, config.protocol, where.dtype)
        made = cell(config, identity, None if base is None else base.cell)
        return Prepared(known, made, _files(made, run_id, sweep), where, base)

    prepared = []
    for config in progress(configs, "identifying", "cell"):
        one, of_base = ready(config), config.of_base
        if of_base is not None:
            check_comparable(one.header, headers[of_base.model])
            of_base = replace(of_base, protocol=one.cell.protocol)  # the BOS policy of this model's tokenizer
            one = ready(config, ready(of_base))
        prepared.append(one)
    return prepared


def _check_short_windows(config: Config, header: "Header") -> None:
    trained = None if header.geometry is None else header.geometry.original_max_position_embeddings
    if config.short_windows is not None and trained is not None and config.short_windows.ctx > trained:
        raise UserError(
            f"short_windows.ctx must be at most the {trained} tokens that {header.spec.name} was trained at, got "
            f"{config.short_windows.ctx}."
        )


def check_comparable(own: "Header", base: "Header") -> None:
    """Raise UserError unless two models give probabilities to the same tokens."""
    reason = None
    if own.vocabulary != base.vocabulary:
        reason = f"{own.vocabulary} and {base.vocabulary} token ids"
    elif own.tokenizer_fingerprint != base.tokenizer_fingerprint:
        tokens = [header.tokenizer.get_vocab() for header in (own, base)]
        apart = sorted(token for token, number in tokens[0].items() if tokens[1].get(token) != number)
        ends = [(header.bos_token_id, header.prefix_token_id) for header in (own, base)]
        if apart or len(tokens[0]) != len(tokens[1]):
            reason = f"tokens differ, {apart[0]!r} for example" if apart else "one has tokens that the other lacks"
        elif ends[0] != ends[1]:
            reason = "their BOS tokens differ"
    if reason is not None:
        raise UserError(
            f"base.model={base.spec.name} must have the vocabulary of model={own.spec.name}, whose token ids KL is "
            f"taken over: {reason}."
        )


def _files(made: Cell, run_id: str, sweep: bool) -> CellFiles:
    config = made.config
    return CellFiles(
        place=store.place(config.results_dir, made.columns),
        tables=tuple(made.tables),
        label=label(made),
        command=command(config.overrides, sweep),
        run_id=run_id,
        force=config.force,
    )


def identify(header: "Header", dataset_fingerprint: str, protocol: Protocol, dtype: str) -> Identity:
    """What determines the numbers of a cell besides its method, its length and its windows. Raises UserError."""
    policy = protocol.resolved_bos(header.adds_bos)
    prefix = header.prefix_token_id if protocol.lends_eos else header.bos_token_id
    if policy != "none" and prefix is None:
        lacking = "neither a BOS nor an EOS token" if protocol.lends_eos else "no BOS token"
        raise UserError(f"protocol.bos={policy}: the tokenizer of {header.spec.name} has {lacking}; use none.")
    return Identity(
        model_fingerprint=header.fingerprint,
        model_revision=header.revision,
        geometry=header.geometry,
        trained_with=header.trained_with,
        bos=policy,
        dataset_fingerprint=dataset_fingerprint,
        dtype=dtype,
    )
