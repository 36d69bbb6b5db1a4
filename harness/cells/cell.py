"""What identifies a cell."""

from dataclasses import dataclass, fields, replace
from typing import Any

from harness import methods
from harness.config.schema import Config
from harness.data.strided import Strided
from harness.data.windows import Bos, Protocol, Shorter
from harness.errors import UserError
from harness.methods.base import Method, RopeGeometry, parameters
from harness.methods.encoding.trained_with import TrainedWith, not_trained_with
from harness.methods.modifiers.resonance import Resonant
from harness.results import schema
from harness.storage import cache

IDENTITY_VERSION = 2  # of what `cell_id` hashes; not the version of the results' schema, which grows without new cells


@dataclass(frozen=True)
class Identity:
    """What a model and a set of documents are to a cell; computed without weights."""

    model_fingerprint: str
    model_revision: str
    geometry: RopeGeometry | None  # None: no rotary embedding
    trained_with: TrainedWith | None  # an encoding of ours
    bos: Bos  # the resolved policy
    dataset_fingerprint: str
    dtype: str  # resolved: float32, bfloat16, ...


@dataclass(frozen=True)
class Facts:
    """What the columns of a cell are taken from (`harness.results.schema.COLUMNS`)."""

    config: Config
    identity: Identity
    method: Method  # factor resolved
    protocol: Protocol  # BOS policy resolved
    method_params: str  # JSON, with the modifiers
    protocol_params: str  # JSON, with the seed where windows are sampled
    cell_id: str = ""
    identity_version: int = IDENTITY_VERSION
    of_base: "Cell | None" = None

    @property
    def base(self) -> str:
        """The base in words, as far as it is named: model, method and what is set of it; empty where there is none."""
        if self.of_base is None:
            return ""
        config, dtype = self.of_base.config, self.of_base.columns["dtype"]
        usual = {field.name: field.default for field in fields(methods.METHODS[config.method.name])}
        given = config.method.params | config.method.modifiers
        settings = [f"{key} {value}" for key, value in given.items() if value != usual.get(key)]
        apart = [dtype] if dtype != self.identity.dtype else []
        return ", ".join([f"{config.model.name} {config.method.name}", *settings, *apart])

    @property
    def base_cell_id(self) -> str:
        """Of the cell that holds the losses of the base alone; empty where there is none."""
        return "" if self.of_base is None else self.of_base.cell_id

    @property
    def original_max_position_embeddings(self) -> int | None:
        """Trained length in tokens; None: unknown, or the model has no positions."""
        if self.identity.trained_with is not None:
            return self.identity.trained_with.length
        return None if self.identity.geometry is None else self.identity.geometry.original_max_position_embeddings

    @property
    def shorter(self) -> Shorter | None:
        """What becomes of documents shorter than `ctx`, where there may be some; None: all are long enough."""
        data = self.config.data
        return data.shorter if data.shorter == "whole" and data.min_tokens < self.config.ctx else None

    @property
    def stride(self) -> int | None:
        """In tokens; None: the protocol has none."""
        return self.protocol.stride if isinstance(self.protocol, Strided) else None


@dataclass(frozen=True)
class Cell:
    """One cell with everything resolved: ready to run, or to be recognised as finished."""

    config: Config
    method: Method  # factor resolved
    protocol: Protocol  # BOS policy resolved
    cell_id: str
    pass_id: str  # cells that have it in common can share a pass
    columns: dict[str, Any]  # harness.results.schema.cell_columns
    base: "Cell | None" = None  # what KL is taken to, on the same windows

    @property
    def ctx(self) -> int:
        """Length of a window in tokens."""
        return self.config.ctx

    @property
    def tables(self) -> list[str]:
        """The tables that this cell has when it is finished."""
        return [t.name for t in schema.TABLES if t.only_with is None or getattr(self.config, t.only_with)]


def cell(config: Config, identity: Identity, base: Cell | None = None) -> Cell:
    """The cell of a configuration; `cell_id` hashes what determines the numbers and nothing else.

    base: the cell of `Config.of_base`.
    """
    method = _resolved_method(config, identity)
    protocol = replace(config.protocol, bos=identity.bos)
    params = parameters(method) | config.method.modifiers
    protocol_params = protocol.parameters()
    if protocol.max_windows is not None:
        protocol_params["seed"] = config.seed
    facts = Facts(
        config, identity, method, protocol, cache.canonical(params), cache.canonical(protocol_params), of_base=base
    )
    determines = _determines(facts, params, protocol_params)
    facts = replace(facts, cell_id=cache.digest(determines))
    model_depends = identity.trained_with is not None and identity.trained_with.encoding.depends_on_length
    shares = protocol.nested and not (method.depends_on_length or model_depends)
    of_pass = {key: value for key, value in determines.items() if key != "shorter"} | {"ctx": None}
    of_pass |= {} if base is None else {"base": base.pass_id}  # its own cell_id where its passes are not shared
    pass_id = cache.digest(of_pass) if shares else facts.cell_id
    method = Resonant(method=method) if config.method.resonance else method
    return Cell(config, method, protocol, facts.cell_id, pass_id, schema.cell_values(facts), base)


def _determines(facts: Facts, params: dict[str, Any], protocol_params: dict[str, Any]) -> dict[str, Any]:
    """What the numbers of a cell depend on, as JSON values; its hash is the cell's identity."""
    config, identity = facts.config, facts.identity
    return {
        "schema": IDENTITY_VERSION,
        "model": identity.model_fingerprint,
        "sliding_window": config.model.sliding_window,
        "geometry": identity.geometry.values if identity.geometry else None,
        "method": [facts.method.name, params, facts.method.version],
        "ctx": config.ctx,
        "protocol": [facts.protocol.name, protocol_params],
        "documents": identity.dataset_fingerprint,
        "dtype": identity.dtype,
    } | _added(facts)


def _added(facts: Facts) -> dict[str, Any]:
    """What came later and is part of the identity only where it is given, so that cells of before keep theirs."""
    return {key: value for key, value in {"shorter": facts.shorter, "base": facts.base_cell_id}.items() if value}


def _resolved_method(config: Config, identity: Identity) -> Method:
    method = methods.construct(config.method.name, config.method.params)
    if identity.trained_with is not None:
        if config.method.modifiers:
            raise UserError(identity.trained_with.no_modifiers)
        given = config.model.original_max_position_embeddings
        if given not in (None, identity.trained_with.length):
            own = identity.trained_with
            raise UserError(
                f"model.original_max_position_embeddings must be null or {own.length}: a model trained with {own.name} "
                f"says its own, got {given}."
            )
        return identity.trained_with.resolve(method, config.ctx)
    if method.kind == "encoding":
        raise not_trained_with(method)
    if identity.geometry is not None:
        return method.resolved(identity.geometry, config.ctx)
    if not method.as_it_is:
        raise UserError(
            f"model {config.model.name} has no rotary embedding: method must be none or native, "
            f"got {config.method.name}."
        )
    return method
