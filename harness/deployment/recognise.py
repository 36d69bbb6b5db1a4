"""From rope parameters to the method that they are, every parameter named."""

from harness.deployment.settings import RopeSettings
from harness.errors import UserError
from harness.methods.base import Method, RopeGeometry
from harness.methods.frequency.abf import Abf
from harness.methods.frequency.dynamic_ntk import DynamicNtk
from harness.methods.frequency.linear import Linear
from harness.methods.frequency.llama3 import Llama3
from harness.methods.frequency.longrope import LongRope
from harness.methods.frequency.none import Unscaled
from harness.methods.frequency.yarn import Yarn


def geometry_of(settings: RopeSettings, rotary_dim: int, max_position_embeddings: int) -> RopeGeometry:
    """The rotations that the settings scale; the trained length is the original one where it is said."""
    trained = settings.original_max_position_embeddings or max_position_embeddings
    return RopeGeometry(rotary_dim=rotary_dim, rope_theta=settings.rope_theta, original_max_position_embeddings=trained)


def recognise(settings: RopeSettings, max_position_embeddings: int, trained_theta: float | None = None) -> Method:
    """The method that transformers runs under these settings, resolved.

    `max_position_embeddings` (tokens) gives the factor where a yarn or longrope leaves it open. `trained_theta`: the
    base of training where it is known and may differ. Raises UserError where a field that the type needs is missing.
    """
    kind = settings.rope_type
    if kind == "default":
        raised = trained_theta is not None and trained_theta != settings.rope_theta
        return Abf(rope_theta=settings.rope_theta) if raised else Unscaled()
    if kind == "linear":
        return Linear(factor=_needed(settings, "factor", settings.factor))
    if kind == "dynamic":
        return DynamicNtk(factor=_needed(settings, "factor", settings.factor))
    if kind == "llama3":
        return Llama3(
            factor=_needed(settings, "factor", settings.factor),
            low_freq_factor=_needed(settings, "low_freq_factor", settings.low_freq_factor),
            high_freq_factor=_needed(settings, "high_freq_factor", settings.high_freq_factor),
        )
    factor = settings.factor or _implied_factor(settings, max_position_embeddings)
    return _yarn(settings, factor) if kind == "yarn" else _longrope(settings, factor)


def _yarn(settings: RopeSettings, factor: float) -> Yarn:
    pair = bool(settings.mscale and settings.mscale_all_dim) and settings.attention_factor is None
    return Yarn(
        factor=factor,
        beta_fast=settings.beta_fast or 32.0,
        beta_slow=settings.beta_slow or 1.0,
        truncate=settings.truncate is not False,
        attention_factor=settings.attention_factor,
        mscale=settings.mscale if pair else None,
        mscale_all_dim=settings.mscale_all_dim if pair else None,
    )


def _longrope(settings: RopeSettings, factor: float) -> LongRope:
    if settings.long_factor is None or settings.short_factor is None:
        absent = "long_factor" if settings.long_factor is None else "short_factor"
        raise UserError(f"rope_type longrope needs {absent}, a list of numbers; the settings have none.")
    switches = settings.short_factor != settings.long_factor
    return LongRope(
        long_factor=list(settings.long_factor),
        short_factor=list(settings.short_factor) if switches else None,
        factor=max(1.0, factor),
        temperature="su" if settings.attention_factor is None else settings.attention_factor,
        unscaled_prefix=0,
    )


def _implied_factor(settings: RopeSettings, max_position_embeddings: int) -> float:
    return max_position_embeddings / (settings.original_max_position_embeddings or max_position_embeddings)


def _needed(settings: RopeSettings, name: str, value: float | None) -> float:
    if value is None:
        raise UserError(f"rope_type {settings.rope_type} needs {name}, a number; the settings have none.")
    return value
