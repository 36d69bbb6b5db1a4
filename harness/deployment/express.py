"""From a method to rope parameters: its own type where there is one, otherwise its frequencies as a list."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from harness.deployment.settings import RopeSettings
from harness.methods.base import Method, RopeFrequencies, RopeGeometry, growth, resolved_factor
from harness.methods.frequency.abf import Abf
from harness.methods.frequency.dynamic_linear import DynamicLinear
from harness.methods.frequency.dynamic_ntk import DynamicNtk
from harness.methods.frequency.dynamic_yarn import DynamicYarn
from harness.methods.frequency.linear import Linear
from harness.methods.frequency.llama3 import Llama3
from harness.methods.frequency.longrope import LongRope
from harness.methods.frequency.none import Unscaled
from harness.methods.frequency.ntk import Ntk
from harness.methods.frequency.ntk_fixed import NtkFixed
from harness.methods.frequency.yarn import Yarn, temperature

STILL = 1e20  # a rescale factor that stands for a frequency of zero: no position turns by more than rounding


class Expression(NamedTuple):
    """A method in rope parameters."""

    settings: RopeSettings  # for windows of the length asked for; at every length, where it does not depend on it
    frequencies: RopeFrequencies  # of that length
    by_length: RopeSettings | None = None  # the method with its switch by length, where transformers has it
    depends_on_length: bool = False
    nearest: Method | None = None  # what the settings are, where the method itself has none
    lost: tuple[str, ...] = ()  # what the settings lack of the method, in words


def express(
    method: Method, geometry: RopeGeometry, length: int, *, scaled_queries: bool = False, all_rotate: bool = True
) -> Expression:
    """The rope parameters of a resolved method for windows of up to `length` tokens, or of the nearest that has some.

    `scaled_queries`: queries are scaled by position, which no rope parameter says. `all_rotate`: every channel of a
    head does, so that a scale of all logits is one of cos and sin. TypeError for native, which has none of ours.
    """
    if method.kind == "frequency":
        expression = _of_frequencies(method, geometry, length)
    else:
        expression = _nearest(method, geometry, length)
    if expression.frequencies.logit_scaling != 1 and not all_rotate:
        assert isinstance(method, Yarn), "the one that scales logits"
        lost = (*expression.lost, "a scale of all logits (temperature_on=logits) where some channels do not rotate")
        expression = expression._replace(lost=lost, nearest=replace(method, temperature_on="rotated"))
    if scaled_queries:
        lost = (*expression.lost, "scaling of queries by position (method.query_scale)")
        expression = expression._replace(lost=lost, nearest=expression.nearest or method)
    return expression


def _of_frequencies(method: Method, geometry: RopeGeometry, length: int) -> Expression:
    frequencies = method(geometry, length)
    own = _SETTINGS.get(type(method))
    settings = own(method, geometry, length) if own else None
    if settings is None:
        settings = rescaled(geometry, frequencies, length)
        if isinstance(method, Yarn) and method.mscale_all_dim:  # still scales the softmax of some models
            settings = replace(settings, factor=method.factor, mscale_all_dim=method.mscale_all_dim)
    expression = Expression(
        settings,
        frequencies,
        _switch(method, geometry),
        method.depends_on_length,
    )
    if frequencies.unscaled_prefix:
        what = f"the unscaled first {frequencies.unscaled_prefix} tokens (unscaled_prefix)"
        return expression._replace(nearest=_without_prefix(method), lost=(what,))
    return expression


def rescaled(geometry: RopeGeometry, frequencies: RopeFrequencies, length: int) -> RopeSettings:
    """Any frequencies and attention scaling as rescale factors, the same for short and long windows."""
    factors = tuple(rescale_factors(geometry, frequencies).tolist())
    return RopeSettings(
        rope_type="longrope",
        rope_theta=geometry.rope_theta,
        factor=growth(geometry, length),
        original_max_position_embeddings=geometry.original_max_position_embeddings,
        attention_factor=attention_scaling(frequencies),
        short_factor=factors,
        long_factor=factors,
    )


def attention_scaling(frequencies: RopeFrequencies) -> float:
    """What cos and sin are multiplied by so that logits of channels that rotate are scaled as the method asks."""
    return float(frequencies.attention_scaling * math.sqrt(frequencies.logit_scaling))


def rescale_factors(geometry: RopeGeometry, frequencies: RopeFrequencies) -> np.ndarray:
    """What the unscaled frequencies are divided by, (rotary_dim // 2,); STILL where they are zero."""
    still = frequencies.inv_freq <= geometry.inv_freq / STILL
    return np.where(still, STILL, geometry.inv_freq / np.where(still, 1.0, frequencies.inv_freq))


def _without_prefix(method: Method) -> Method:
    return replace(method, unscaled_prefix=0) if isinstance(method, LongRope) else method


def _nearest(method: Method, geometry: RopeGeometry, length: int) -> Expression:
    """What rope parameters can do in the place of a method that changes more than frequencies."""
    if method.kind == "attention" and method.name != "windowed":
        near: Method = Yarn(factor=growth(geometry, length))  # near positions as trained, far ones closer together
    else:
        near = Unscaled()
    expression = _of_frequencies(near, geometry, length)
    return expression._replace(nearest=near, lost=(f"{method.name} ({method.changes})",))


# Types with parameters of their own ----------------------------------------------------------------------------------


def _none(method: Method, geometry: RopeGeometry, length: int) -> RopeSettings:
    return RopeSettings(rope_theta=geometry.rope_theta)


def _abf(method: Method, geometry: RopeGeometry, length: int) -> RopeSettings:
    assert isinstance(method, Abf)
    return RopeSettings(rope_theta=method.rope_theta)


def _ntk(method: Method, geometry: RopeGeometry, length: int) -> RopeSettings:
    return RopeSettings(rope_theta=_ntk_theta(geometry, resolved_factor(method)))


def _dynamic_ntk(method: Method, geometry: RopeGeometry, length: int) -> RopeSettings:
    assert isinstance(method, DynamicNtk)
    return RopeSettings(rope_theta=_ntk_theta(geometry, method.factor * growth(geometry, length) - (method.factor - 1)))


def _ntk_theta(geometry: RopeGeometry, factor: float) -> float:
    return geometry.rope_theta * factor ** (geometry.rotary_dim / (geometry.rotary_dim - 2))


def _ntk_fixed(method: Method, geometry: RopeGeometry, length: int) -> RopeSettings:
    factor = resolved_factor(method)  # (theta factor)^(-2i/d) / factor^(2/d): a base, and position interpolation
    return _linear_by(factor ** (2 / geometry.rotary_dim), geometry.rope_theta * factor)


def _linear(method: Method, geometry: RopeGeometry, length: int) -> RopeSettings:
    return _linear_by(resolved_factor(method), geometry.rope_theta)


def _dynamic_linear(method: Method, geometry: RopeGeometry, length: int) -> RopeSettings:
    return _linear_by(max(resolved_factor(method), growth(geometry, length)), geometry.rope_theta)


def _linear_by(factor: float, theta: float) -> RopeSettings:
    return RopeSettings(rope_type="linear", rope_theta=theta, factor=factor)


def _llama3(method: Method, geometry: RopeGeometry, length: int) -> RopeSettings:
    assert isinstance(method, Llama3)
    return RopeSettings(
        rope_type="llama3",
        rope_theta=geometry.rope_theta,
        factor=resolved_factor(method),
        original_max_position_embeddings=geometry.original_max_position_embeddings,
        low_freq_factor=method.low_freq_factor,
        high_freq_factor=method.high_freq_factor,
    )


def _yarn(method: Method, geometry: RopeGeometry, length: int) -> RopeSettings | None:
    assert isinstance(method, Yarn)
    if (method.ramp, method.blend, method.extrapolation_factor) != ("dimension", "arithmetic", 1.0):
        return None
    factor = resolved_factor(method)
    pair = bool(method.mscale and method.mscale_all_dim and method.attention_factor is None)
    scaling = attention_scaling(Yarn.__call__(method, geometry, length))
    return RopeSettings(
        rope_type="yarn",
        rope_theta=geometry.rope_theta,
        factor=factor,
        original_max_position_embeddings=geometry.original_max_position_embeddings,
        attention_factor=None if pair or scaling == temperature(factor) else scaling,
        beta_fast=None if method.beta_fast == 32 else method.beta_fast,
        beta_slow=None if method.beta_slow == 1 else method.beta_slow,
        mscale=method.mscale,
        mscale_all_dim=method.mscale_all_dim,  # beside an attention_factor it still scales the softmax of some models
        truncate=None if method.truncate else False,
    )


def _dynamic_yarn(method: Method, geometry: RopeGeometry, length: int) -> RopeSettings | None:
    assert isinstance(method, Yarn)
    return _yarn(replace(method, factor=max(resolved_factor(method), growth(geometry, length))), geometry, length)


def _longrope(method: Method, geometry: RopeGeometry, length: int) -> RopeSettings | None:
    assert isinstance(method, LongRope)
    assert method.long_factor is not None, "longrope: resolve factors first"
    within = length <= geometry.original_max_position_embeddings
    if method.dynamic or (within and not _one_temperature(method)):
        return None
    factors = method.short_factor if within and method.short_factor is not None else method.long_factor
    return _longrope_of(method, geometry, factors, factors)


def _one_temperature(method: LongRope) -> bool:
    return method.short_temperature and method.short_mscale == method.long_mscale


def _longrope_of(method: LongRope, geometry: RopeGeometry, short: list[float], long: list[float]) -> RopeSettings:
    usual = method.temperature in (None, "su") and method.long_mscale is None
    return RopeSettings(
        rope_type="longrope",
        rope_theta=geometry.rope_theta,
        factor=resolved_factor(method),
        original_max_position_embeddings=geometry.original_max_position_embeddings,
        attention_factor=None if usual else method(geometry, 2**40).attention_scaling,
        short_factor=tuple(short),
        long_factor=tuple(long),
    )


def _switch(method: Method, geometry: RopeGeometry) -> RopeSettings | None:
    """The types of transformers that look at the length: dynamic, and longrope with two lists."""
    if isinstance(method, DynamicNtk):
        return RopeSettings(rope_type="dynamic", rope_theta=geometry.rope_theta, factor=method.factor)
    if not isinstance(method, LongRope) or method.dynamic or not _one_temperature(method):
        return None
    if method.short_factor is None or method.long_factor is None:
        return None
    return _longrope_of(method, geometry, method.short_factor, method.long_factor)


_SETTINGS: dict[type[Method], Callable[[Method, RopeGeometry, int], RopeSettings | None]] = {
    Unscaled: _none,
    Abf: _abf,
    Ntk: _ntk,
    NtkFixed: _ntk_fixed,
    DynamicNtk: _dynamic_ntk,
    Linear: _linear,
    DynamicLinear: _dynamic_linear,
    Llama3: _llama3,
    Yarn: _yarn,
    DynamicYarn: _dynamic_yarn,
    LongRope: _longrope,
}
