"""The schema of conf/search.yaml, and the check of what can be known without a model."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from harness.config.checks import chosen, folder, section, typed
from harness.data.needle_spec import NeedleSpec
from harness.data.protocols import PROTOCOLS, Targets
from harness.data.sources import DataSpec
from harness.data.windows import Protocol
from harness.engine.spec import EngineSpec
from harness.errors import UserError, unknown
from harness.longrope_search.evolution import Evolution
from harness.longrope_search.space import N_HATS, Space, Variant, critical_pair
from harness.methods.base import RopeGeometry, check_choice
from harness.methods.frequency.longrope import LongRope
from harness.models.checkpoint.spec import ModelSpec

Aim = Literal["perplexity", "needle"]
NEEDLES = NeedleSpec(depths=[0, 0.25, 0.5, 0.75, 1], repeats=4)  # of a search whose search_data names none


@dataclass(frozen=True, kw_only=True)
class SearchSpec(Evolution):
    """What is searched for, and how long."""

    variant: Variant = "longrope"
    objective: Aim = "perplexity"  # needle: the loss of answers to needles in the search documents, as in LongRoPE2
    n_hat: bool = True  # false: every position is rescaled
    temperature: str | float = "su"  # su | yarn | none | a number: of the search and of the factors it finds
    critical_pair: Literal["search"] | int | None = None  # longrope2: null (from the geometry) | an index | search
    batch: int | None = None  # individuals judged together; None: 1 on a CPU, 16 on a GPU
    finetuned: bool = False  # the model was extended by training: windows within that length are searched, too

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("search", "variant", self.variant, get_args(Variant))
        check_choice("search", "objective", self.objective, get_args(Aim))
        if self.batch is not None and self.batch < 1:
            raise UserError(f"search.batch must be null or at least 1, got {self.batch}.")
        LongRope(long_factor=[1.0], temperature=self.temperature)  # checks it
        critical = self.critical_pair
        if critical is not None and critical != "search" and not (type(critical) is int and critical >= 1):
            raise UserError(f"search.critical_pair must be null, search or an integer >= 1, got {critical!r}.")
        if critical is not None and self.variant != "longrope2":
            raise UserError(f"search.critical_pair is of search.variant=longrope2, got variant={self.variant}.")

    def space(self, geometry: RopeGeometry, ctx: int) -> Space:
        """The search space of a model at windows of `ctx` tokens. Raises UserError where there is none."""
        trained = geometry.original_max_position_embeddings
        least = trained if self.finetuned else trained + 1
        if ctx < least:
            raise UserError(
                f"ctx must be at least {least} tokens, got {ctx}: within the trained length ({trained}) of a model "
                "that was not fine-tuned all factors are 1 (search.finetuned=true searches there, too)."
            )
        return Space(
            geometry=geometry,
            factor=ctx / trained,
            variant=self.variant,
            n_hats=tuple(n for n in N_HATS if n < ctx) if self.n_hat else (0,),
            critical_pairs=self._critical_pairs(geometry) if self.variant == "longrope2" else (),
        )

    def _critical_pairs(self, geometry: RopeGeometry) -> tuple[int, ...]:
        """The given one, the theoretical one, or, to be searched, all up to the theoretical one."""
        theory, pairs = critical_pair(geometry), geometry.rotary_dim // 2
        if self.critical_pair is None:
            return (theory,)
        if isinstance(self.critical_pair, str):  # search
            return tuple(range(1, theory + 1))
        if self.critical_pair >= pairs:
            raise UserError(f"search.critical_pair must be below {pairs}, the pairs, got {self.critical_pair}.")
        return (self.critical_pair,)


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """One search: a model, the lengths it is extended to, the documents that judge it and those it must not see."""

    model: ModelSpec
    data: DataSpec  # evaluation documents, kept out of the search
    search_data: DataSpec
    protocol: Protocol
    engine: EngineSpec
    search: SearchSpec
    ctx: tuple[int, ...]  # tokens, ascending: one search each
    seed: int
    output_dir: Path
    plots_dir: Path
    command: str = field(default="", compare=False)


_SECTIONS = ("model", "data", "search_data", "protocol", "engine", "search")
_TOP = ("ctx", "seed", "output_dir", "plots_dir")


def parse(values: dict[str, Any]) -> SearchConfig:
    """The configuration of a search, checked. Raises UserError for anything missing, mistyped or out of range."""
    for key in values:
        if key not in {*_TOP, *_SECTIONS}:
            raise unknown("key", key, {*_TOP, *_SECTIONS})
    parsed = SearchConfig(
        model=section(ModelSpec, values, "model"),
        data=section(DataSpec, values, "data"),
        search_data=section(DataSpec, values, "search_data"),
        protocol=chosen(PROTOCOLS, values, "protocol"),
        engine=section(EngineSpec, values, "engine"),
        search=section(SearchSpec, values, "search"),
        ctx=_lengths(values["ctx"]),
        seed=typed("seed", values["seed"], int),
        output_dir=folder(values, "output_dir"),
        plots_dir=folder(values, "plots_dir"),
    )
    parsed = _of_objective(parsed)
    for ctx in parsed.ctx:
        parsed.protocol.check(ctx)
    return parsed


def _of_objective(config: SearchConfig) -> SearchConfig:
    """With the protocol and the needles that the objective needs. Raises UserError where others are asked for."""
    if config.search.objective == "perplexity":
        if config.search_data.needles is not None:
            raise UserError("search_data.needles are what search.objective=needle judges by, got objective=perplexity.")
        return config
    if config.protocol.name not in ("single_pass", "targets"):
        raise UserError(
            "search.objective=needle scores answers in one window: protocol must be single_pass or targets, "
            f"got {config.protocol.name}."
        )
    hidden = dataclasses.replace(config.search_data, needles=config.search_data.needles or NEEDLES)
    return dataclasses.replace(config, protocol=Targets(bos=config.protocol.bos), search_data=hidden)


def _lengths(given: object) -> tuple[int, ...]:
    lengths = given if isinstance(given, list) else [given]
    if not lengths or any(type(ctx) is not int or ctx < 2 for ctx in lengths):
        raise UserError(f"ctx must be an integer of at least 2 tokens or a list of such, got {given!r}.")
    return tuple(sorted(set(lengths)))


def parameters(spec: SearchSpec) -> dict[str, object]:
    """What determines the course of a search; how long it goes on is not part of it, nor the usual objective."""
    left_out = {"iterations"} | ({"objective"} if spec.objective == "perplexity" else set())
    return {f.name: getattr(spec, f.name) for f in dataclasses.fields(spec) if f.name not in left_out}
