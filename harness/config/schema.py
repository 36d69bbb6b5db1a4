"""The schema of conf/, and the check of a composed configuration: everything that can be known without torch."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness import methods
from harness.config.cluster import ClusterSpec
from harness.data.sources import DataSpec
from harness.data.windows import Protocol
from harness.engine.spec import EngineSpec
from harness.errors import UserError, unknown
from harness.models.checkpoint.spec import ModelSpec

MODIFIERS = ("logn", "resonance")  # fields beside a method that combine with any method


@dataclass(frozen=True, kw_only=True)
class MethodSpec:
    """A method by name, its parameters as given, and the modifiers beside it."""

    name: str
    params: dict[str, Any] = field(default_factory=dict)
    logn: bool = False
    resonance: bool = False


@dataclass(frozen=True, kw_only=True)
class Config:
    """One cell: a model under a method at a length, on documents, by a protocol."""

    model: ModelSpec
    method: MethodSpec
    data: DataSpec
    protocol: Protocol
    engine: EngineSpec
    ctx: int
    seed: int
    results_dir: Path
    plots_dir: Path
    experiment: str
    force: bool
    dry_run: bool
    save_tokens: bool
    cluster: ClusterSpec = field(default_factory=ClusterSpec)  # where, without influence on what
    overrides: tuple[str, ...] = ()  # as the user gave them for this cell

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UserError(f"seed must be at least 0, got {self.seed}.")
        self.protocol.check(self.ctx)
        if self.engine.compile and self.model.device_map is not None:
            raise UserError("engine.compile=true needs a model on one device: model.device_map must be null.")
        if self.engine.parallel == "context":
            self._check_context()

    def _check_context(self) -> None:
        name = self.method.name
        if methods.METHODS[name].kind == "attention":
            raise UserError(f"engine.parallel=context cannot run method={name}, which changes attention.")
        if self.method.logn:
            raise UserError("engine.parallel=context cannot run method.logn=true, which changes attention.")
        if self.model.device_map is not None:
            raise UserError("engine.parallel=context puts a whole model on every GPU: model.device_map must be null.")


def parse(composed: DictConfig, overrides: Sequence[str] = ()) -> Config:
    """The configuration of one cell, checked. Raises UserError for anything missing, mistyped or out of range."""
    values = plain(composed)
    _check_keys(values)
    top = {k: _typed(k, values.get(k), kind) for k, kind in _TOP.items()}
    return Config(
        model=section(ModelSpec, values, "model"),
        method=_method(values.get("method") or {}),
        data=section(DataSpec, values, "data"),
        protocol=section(Protocol, values, "protocol"),
        engine=section(EngineSpec, values, "engine"),
        cluster=section(ClusterSpec, values, "cluster"),
        overrides=tuple(overrides),
        experiment=str(values.get("experiment_name") or ""),
        results_dir=Path(str(values["results_dir"])).expanduser().absolute(),
        plots_dir=Path(str(values["plots_dir"])).expanduser().absolute(),
        **top,
    )


_TOP: dict[str, type] = {"ctx": int, "seed": int, "force": bool, "dry_run": bool, "save_tokens": bool}


def plain(composed: DictConfig) -> dict[str, Any]:
    """A composed configuration as plain Python, interpolations resolved, Hydra's own part left out."""
    try:
        ours = OmegaConf.masked_copy(composed, [str(k) for k in composed if k != "hydra"])
        values = OmegaConf.to_container(ours, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(f"configuration: {str(error).splitlines()[0]}") from error
    assert isinstance(values, dict)
    return {str(k): v for k, v in values.items()}


_SECTIONS: dict[str, type] = {
    "model": ModelSpec,
    "data": DataSpec,
    "protocol": Protocol,
    "engine": EngineSpec,
    "cluster": ClusterSpec,
}
_TEXT = ("results_dir", "plots_dir", "experiment_name")


def _check_keys(values: dict[str, Any]) -> None:
    known = {*_TOP, *_SECTIONS, *_TEXT, "method", "experiment"}
    for key in values:
        if key not in known:
            raise unknown("key", key, known)


def override_keys() -> list[str]:
    """Every key that an override may name."""
    sections = [f"{s}.{f.name}" for s, spec in _SECTIONS.items() for f in dataclasses.fields(spec)]
    params = {f"method.{f.name}" for m in methods.METHODS.values() for f in dataclasses.fields(m)}
    return sorted({*_TOP, *_TEXT, *sections, *params, *(f"method.{m}" for m in MODIFIERS)})


def _typed(key: str, value: Any, kind: type) -> Any:
    """`value` if it is of this kind; numbers are not rounded and words are not guessed."""
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        wanted = {int: "an integer", float: "a number", bool: "true or false", str: "text"}.get(kind, kind.__name__)
        raise UserError(f"{key} must be {wanted}, got {value!r}.")
    return value


def section(spec: type, values: dict[str, Any], name: str) -> Any:
    """One group of the configuration as its dataclass, every key and type checked against it."""
    given = values.get(name) or {}
    hints = dataclass_types(spec)
    for key, value in given.items():
        if key not in hints:
            raise unknown("key", f"{name}.{key}", [f"{name}.{k}" for k in hints])
        kinds = hints[key]
        if value is None and type(None) in kinds:
            continue
        if len(kinds - {type(None)}) == 1:
            _typed(f"{name}.{key}", value, next(iter(kinds - {type(None)})))
    return spec(**given)


def dataclass_types(spec: type) -> dict[str, set[type]]:
    """The types that each field of a dataclass admits; empty for `Any`."""
    hints = get_type_hints(spec)
    return {k: {t for t in (get_args(h) or (h,)) if isinstance(t, type) and t is not Any} for k, h in hints.items()}


def _method(given: dict[str, Any]) -> MethodSpec:
    params = dict(given)
    name = str(params.pop("name", ""))
    modifiers = {m: _typed(f"method.{m}", params.pop(m, False), bool) for m in MODIFIERS}
    methods.construct(name, params)  # names, types and ranges; the factor is resolved when the model is known
    return MethodSpec(name=name, params=params, **modifiers)
