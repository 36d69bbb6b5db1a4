"""Putting a method's frequencies into a model for the length of a `with` block, and taking them out again."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np

from harness.errors import UserError
from harness.methods.attention.base import AttentionMethod
from harness.methods.base import Method, RopeFrequencies, RopeGeometry
from harness.methods.encoding.trained_with import TrainedWith, not_trained_with
from harness.methods.modifiers.kv_cache import KvCache
from harness.methods.modifiers.layers import Layers
from harness.methods.modifiers.query_scale import QueryScale
from harness.models.acted_on import check_kinds, is_acted_on
from harness.models.attention import by_regions
from harness.models.attention.kv_cache import few_bits
from harness.models.attention.own_scale import scales_queries, without_own_scale
from harness.models.attention.scaled_queries import scaled_queries
from harness.models.checkpoint.families import DUAL_CHUNK
from harness.models.checkpoint.geometry import (
    declares_scaling,
    dual_chunk,
    geometry,
    no_rotary,
    text_config,
    trained_length,
)
from harness.models.checkpoint.sliding_window import windowed_layers
from harness.models.encoded.apply import encoded_as
from harness.models.installed import Installed
from harness.models.parts import CausalLM
from harness.models.positions import last_position
from harness.models.proved_attention import check_regions
from harness.models.rotary.find import Rotary, rotaries
from harness.models.rotary.modules import Wanted
from harness.models.rotary.softmax_scale import softmax_multiplier, softmax_scaled


@dataclass(frozen=True)
class Patch:
    """What was done to a model, and what its reader should know."""

    installed: tuple[Installed, ...]  # empty: the model computes its own rotations
    warnings: tuple[str, ...]


@contextmanager
def applied(
    model: CausalLM,
    method: Method,
    length: int,
    trained: int | None = None,
    *,
    query_scale: QueryScale | None = None,
    remove_query_scale: bool = False,
    kv_cache: KvCache | None = None,
    layers: Layers | None = None,
    passed: set[int | None] | None = None,
) -> Iterator[Patch]:
    """Until the block ends, the model runs windows of up to `length` tokens under `method` (factor resolved).

    Frequencies go in through the rotary modules, the checkpoint's own scaling switched off; where a method asks
    for exactly what the model does anyway, the model is left alone. `trained` overrides the trained length, in tokens.
    `query_scale` scales queries by their position, `kv_cache` rounds keys and values, under any method;
    `remove_query_scale` takes the checkpoint's own scale out, `layers` says which kind of layer the method acts on.
    `passed`: what the caller keeps for `check_regions` as long as it does not change the model.
    Raises UserError, by name, for models that the method cannot run on.
    """
    trained_with = TrainedWith.of(model.config)
    if trained_with is not None:
        if query_scale is not None or kv_cache is not None or remove_query_scale or layers is not None:
            raise UserError(trained_with.no_modifiers)
        with encoded_as(model, trained_with, method, length) as installed:
            yield Patch(installed, ())
        return
    if method.kind == "encoding":
        raise not_trained_with(method)
    with ExitStack() as stack:
        check_kinds(model, layers)
        if remove_query_scale:  # another model, which has not passed yet
            passed = None
            stack.enter_context(without_own_scale(model))
        installed = stack.enter_context(_rotating(model, method, length, trained, layers, passed))
        if query_scale is not None:
            base = trained or trained_length(text_config(model.config))
            stack.enter_context(scaled_queries(model, partial(query_scale, trained=base), "method.query_scale"))
        if kv_cache is not None:
            stack.enter_context(few_bits(model, kv_cache))
        warnings = [*_warnings(model, method, length, trained), *_twice_scaled(model, query_scale)]
        yield Patch(installed, tuple(warnings))


@contextmanager
def applied_to_rows(
    model: CausalLM, methods: Sequence[Method], length: int, trained: int | None = None
) -> Iterator[None]:
    """As `applied`, for several methods that change frequencies alone: each for rows of a batch of its own.

    `harness.models.rotary.angles.rotated_by` says which rows. Raises UserError where the model keeps one table for all
    rows; other models may not take rotations that differ by row, which only comparing losses shows.
    """
    with ExitStack() as stack:
        stack.enter_context(softmax_scaled(model))
        for module in rotaries(model):
            stack.enter_context(module.rotated(_wanted(module, methods, length, trained), length))
        yield


@contextmanager
def _rotating(
    model: CausalLM,
    method: Method,
    length: int,
    trained: int | None,
    layers: Layers | None,
    passed: set[int | None] | None,
) -> Iterator[tuple[Installed, ...]]:
    """The model rotates, or attends, as the method says."""
    rotary = rotaries(model)
    with ExitStack() as stack:
        installed: tuple[Installed, ...] = ()
        if not rotary:
            _check_runs_without_rotary(model, method, length)
        elif isinstance(method, AttentionMethod):
            check_regions(model, trained, passed)
            installed = stack.enter_context(by_regions.applied(model, method, length, trained, layers))
        elif method.kind == "native":
            for module in rotary:
                stack.enter_context(module.stateless())
        else:
            installed = _enter_frequencies(
                stack,
                model,
                rotary,
                method,
                length,
                [_wanted(module, [method], length, trained, layers) for module in rotary],
            )
        yield installed


def _enter_frequencies(
    stack: ExitStack, model: CausalLM, rotary: list[Rotary], method: Method, length: int, wanted: list[Wanted]
) -> tuple[Installed, ...]:
    if not declares_scaling(text_config(model.config)) and all(
        module.reaches(length) and all(_is_unscaled(*one) for one in kinds.values())
        for module, kinds in zip(rotary, wanted, strict=True)
    ):
        return ()
    stack.enter_context(softmax_scaled(model, softmax_multiplier(method)))
    found = [stack.enter_context(module.rotated(kinds, length)) for module, kinds in zip(rotary, wanted, strict=True)]
    _enter_logit_scaling(stack, model, wanted)
    return tuple(one for each in found for one in each)


def _enter_logit_scaling(stack: ExitStack, model: CausalLM, wanted: Sequence[Wanted]) -> None:
    """All logits multiplied, by way of the queries; where it is one number for all layers."""
    scalings = {one.logit_scaling for kinds in wanted for _, sets in kinds.values() for one in sets}
    if scalings == {1.0}:
        return
    if len(scalings) > 1:
        raise UserError(
            f"method.temperature_on=logits: {text_config(model.config).model_type} has layers that are not "
            "scaled beside those that are; use rotated."
        )
    (scaling,) = scalings
    stack.enter_context(scaled_queries(model, lambda length: np.full(length, scaling), "method.temperature_on=logits"))


def _warnings(model: CausalLM, method: Method, length: int, trained: int | None) -> Iterator[str]:
    yield from windowed_layers(model.config, length)
    yield from _beyond_limit(model, method, length, trained)
    text = text_config(model.config)
    if method.kind == "native" and dual_chunk(text) and length > (trained or trained_length(text)):
        yield (
            f"the checkpoint declares {DUAL_CHUNK}, which transformers does not compute: method=dca "
            "method.form=declared does."
        )


def _twice_scaled(model: CausalLM, query_scale: QueryScale | None) -> Iterator[str]:
    if query_scale is not None and scales_queries(model):
        yield (
            "the checkpoint scales queries by their position itself, and method.query_scale multiplies beside it; "
            "method.remove_query_scale=true leaves that one alone."
        )


def _beyond_limit(model: CausalLM, method: Method, length: int, trained: int | None) -> list[str]:
    if not isinstance(method, AttentionMethod):
        return []
    limit = method.limit(geometry(model.config, trained))
    if limit is None or length <= limit:
        return []
    return [
        f"with its parameters the method reaches {limit} tokens; ctx={length} has relative positions never trained."
    ]


def _wanted(
    module: Rotary, methods: Sequence[Method], length: int, trained: int | None, layers: Layers | None = None
) -> Wanted:
    """What methods ask of each layer type; those that they do not act on stay unscaled."""
    wanted = {}
    for kind in module.layer_types:
        own = module.geometry(kind, trained)
        scaled = is_acted_on(module.config, kind, layers)
        unscaled = RopeFrequencies(own.inv_freq)
        wanted[kind] = own, [method(own, length) if scaled else unscaled for method in methods]
    return wanted


def _is_unscaled(own: RopeGeometry, sets: Sequence[RopeFrequencies]) -> bool:
    scalings = [(one.attention_scaling, one.logit_scaling) for one in sets]
    return set(scalings) == {(1.0, 1.0)} and all(np.array_equal(one.inv_freq, own.inv_freq) for one in sets)


def _check_runs_without_rotary(model: CausalLM, method: Method, length: int) -> None:
    text = text_config(model.config)
    if not method.as_it_is:
        raise no_rotary(text)
    positions = last_position(model)
    if positions is not None and length > positions:
        raise UserError(f"{text.model_type} has no positions beyond {positions} tokens, got ctx={length}.")
