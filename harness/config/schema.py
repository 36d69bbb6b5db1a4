"""The schema of conf/: what one cell is made of, as far as it can be known without torch."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from omegaconf import DictConfig

from harness import methods
from harness.config.checks import chosen, folder, group, plain, section, typed
from harness.config.cluster import ClusterSpec
from harness.config.short_windows import ShortWindows
from harness.data.protocols import PROTOCOLS
from harness.data.sources import DataSpec
from harness.data.windows import Protocol, check_shorter
from harness.engine.spec import DtypeName, EngineSpec
from harness.errors import UserError, unknown
from harness.methods.modifiers.kv_cache import KvCache, kv_cache
from harness.methods.modifiers.layers import Layers, layers
from harness.methods.modifiers.query_scale import QueryScale, query_scale
from harness.models.checkpoint.spec import ModelSpec
from harness.statistics.format_names import Format, check_format

MODIFIERS = (
    "query_scale",
    "remove_query_scale",
    "kv_cache",
    "resonance",
    "layers",
)  # keys beside a method that combine with any method


@dataclass(frozen=True, kw_only=True)
class MethodSpec:
    """A method by name, its parameters as given, and the modifiers beside it."""

    name: str
    params: dict[str, Any] = field(default_factory=dict)
    query_scale: QueryScale | None = None
    remove_query_scale: bool = False  # that of the checkpoint
    kv_cache: KvCache | None = None
    resonance: bool = False
    layers: Layers | None = None  # None: those whose context grows

    @property
    def modifiers(self) -> dict[str, Any]:
        """What combines with the method, as JSON values; {} where nothing does."""
        scale = {} if self.query_scale is None else self.query_scale.parameters
        cache = {} if self.kv_cache is None else {"kv_cache": self.kv_cache}
        kind = {} if self.layers is None else {"layers": self.layers}
        removed = {"remove_query_scale": True} if self.remove_query_scale else {}
        return scale | removed | cache | ({"resonance": True} if self.resonance else {}) | kind


@dataclass(frozen=True, kw_only=True)
class BaseSpec:
    """What KL is taken to; None: as in the cell itself."""

    model: ModelSpec | None = None
    method: MethodSpec | None = None
    dtype: DtypeName | None = None
    at_once: bool | None = None  # both models in memory; False: the base's states on disk; None: where they fit


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
    format: Format = "text"  # of the printed table
    base: BaseSpec | None = None  # None: no KL
    cluster: ClusterSpec = field(default_factory=ClusterSpec)  # where, without influence on what
    short_windows: ShortWindows | None = None  # that a sweep runs beside this cell
    overrides: tuple[str, ...] = ()  # as the user gave them for this cell

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UserError(f"seed must be at least 0, got {self.seed}.")
        self.protocol.check(self.ctx)
        check_shorter(self.protocol, self.data.shorter)
        if self.short_windows is not None and not self.save_tokens:
            raise UserError("short_windows are compared token by token: they need save_tokens=true.")
        self._check_targets()
        if self.engine.compile is True and self.model.device_map is not None:
            raise UserError("engine.compile=true needs a model on one device: model.device_map must be null.")
        if self.engine.parallel == "context":
            self._check_context()
        _ = self.of_base

    @property
    def of_base(self) -> "Config | None":
        """The cell of the base on the same windows; None where there is no base."""
        base = self.base
        if base is None:
            return None
        engine = replace(self.engine, dtype=base.dtype or self.engine.dtype)
        model, method = base.model or self.model, base.method or self.method
        return replace(
            self, model=model, method=method, engine=engine, save_tokens=False, base=None, short_windows=None
        )

    @property
    def has_base(self) -> bool:
        """Whether every scored token has a KL to a base."""
        return self.base is not None

    @property
    def keeps_tokens(self) -> bool:
        """Whether the cell has a row a token: percentiles of KL are taken over tokens."""
        return self.save_tokens or self.has_base

    def _check_targets(self) -> None:
        asks = "data.needles" if self.data.needles is not None else "data.target_column"
        if (self.data.needles or self.data.target_column) and not self.protocol.of_targets:
            raise UserError(f"{asks} says which tokens count: protocol must be targets, got {self.protocol.name}.")

    def _check_context(self) -> None:
        if self.base is not None:
            raise UserError("engine.parallel=context cannot run base.*, which needs whole windows.")
        name = self.method.name
        if methods.METHODS[name].kind == "attention":
            raise UserError(f"engine.parallel=context cannot run method={name}, which changes attention.")
        for modifier in ("query_scale", "kv_cache"):
            if getattr(self.method, modifier) is not None:
                raise UserError(f"engine.parallel=context cannot run method.{modifier}, which changes attention.")
        if self.protocol.ahead:
            raise UserError(
                f"engine.parallel=context cannot run protocol={self.protocol.name}, whose last token is not given."
            )
        if self.model.device_map is not None:
            raise UserError("engine.parallel=context puts a whole model on every GPU: model.device_map must be null.")


_OPTIONAL = ("short_windows",)
_GROUPS = ("model", "method", "data", "protocol", "engine", "cluster", "experiment", "base")
_TOP: dict[str, type] = {"ctx": int, "seed": int, "force": bool, "dry_run": bool, "save_tokens": bool}
_TEXT = ("results_dir", "plots_dir", "experiment_name", "format")


def parse(composed: DictConfig, overrides: Sequence[str] = ()) -> Config:
    """The configuration of one cell, checked. Raises UserError for anything missing, mistyped or out of range."""
    return config_of(plain(composed), overrides)


def config_of(values: dict[str, Any], overrides: Sequence[str] = ()) -> Config:
    """The same of plain values. Raises UserError."""
    known = {*_TOP, *_TEXT, *_OPTIONAL, *_GROUPS}
    for key in values:
        if key not in known:
            raise unknown("key", key, known)
    if values.get("experiment"):  # it would be ignored
        raise UserError("experiment: the file of a preset must begin with the line `# @package _global_`.")
    label = values.get("experiment_name")
    if isinstance(label, dict | list):
        raise UserError(f"experiment_name must be text, got {label!r}.")
    return Config(
        **{key: typed(key, values.get(key), kind) for key, kind in _TOP.items()},
        model=section(ModelSpec, values, "model"),
        method=method_spec(group(values, "method")),
        data=section(DataSpec, values, "data"),
        protocol=chosen(PROTOCOLS, values, "protocol"),
        engine=section(EngineSpec, values, "engine"),
        base=base_spec(group(values, "base")),
        cluster=section(ClusterSpec, values, "cluster"),
        short_windows=section(ShortWindows, values, "short_windows") if values.get("short_windows") else None,
        overrides=tuple(overrides),
        format=check_format(values.get("format")),
        experiment=typed("experiment_name", str(label or ""), str),
        results_dir=folder(values, "results_dir"),
        plots_dir=folder(values, "plots_dir"),
    )


def method_spec(given: dict[str, Any]) -> MethodSpec:
    """The group `method` of a configuration, its parameters checked as far as they can be without a model."""
    params = dict(given)
    name = str(params.pop("name", ""))
    scale = query_scale(params.pop("query_scale", None))
    cache = kv_cache(params.pop("kv_cache", None))
    resonance, removed = (
        typed(f"method.{key}", params.pop(key, False), bool) for key in ("resonance", "remove_query_scale")
    )
    kind = layers(params.pop("layers", None))
    if name == "native" and (removed or kind is not None):
        key = "remove_query_scale" if removed else "layers"
        raise UserError(f"method.{key} cannot be combined with native, which is the checkpoint as it is.")
    methods.construct(name, params)  # names, types and ranges; the factor is resolved when the model is known
    return MethodSpec(
        name=name,
        params=params,
        query_scale=scale,
        remove_query_scale=removed,
        kv_cache=cache,
        resonance=resonance,
        layers=kind,
    )


def base_spec(given: dict[str, Any]) -> BaseSpec | None:
    """The section `base` of a configuration; None where it names neither a model nor a method nor a precision."""
    known = ("model", "method", "dtype", "at_once")
    for key in given:
        if key not in known:
            raise unknown("key", f"base.{key}", [f"base.{k}" for k in known])
    dtype, at_once = given.get("dtype"), given.get("at_once")
    if dtype is not None and dtype not in get_args(DtypeName):
        raise unknown("base.dtype", str(dtype), get_args(DtypeName))
    if at_once is not None:
        typed("base.at_once", at_once, bool)
    method = group({"base.method": given.get("method")}, "base.method")
    set_alone = [key for key in MODIFIERS if method.get(key)] if "name" not in method else []
    if set_alone:
        raise UserError(f"base.method.{set_alone[0]} needs base.method=..., which method it goes with.")
    model = section(ModelSpec, {"base.model": given["model"]}, "base.model") if given.get("model") else None
    named = method_spec(method) if "name" in method else None
    if model is None and named is None and dtype is None:
        if at_once is not None:
            raise UserError("base.at_once needs a base: base.model=... or base.method=...")
        return None
    return BaseSpec(model=model, method=named, dtype=dtype, at_once=at_once)
