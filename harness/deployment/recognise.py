"""From rope parameters to the method that they are, every parameter named."""

import math

from harness.deployment.settings import RopeSettings
from harness.errors import UserError
from harness.methods.base import Method, RopeGeometry
from harness.methods.frequency.abf import Abf
from harness.methods.frequency.dynamic_ntk import DynamicNtk
from harness.methods.frequency.linear import Linear
from harness.methods.frequency.llama3 import Llama3
from harness.methods.frequency.longrope import LongRope
from harness.methods.frequency.none import Unscaled
from harness.methods.frequency.ntk_fixed import NtkFixed
from harness.methods.frequency.yarn import Yarn


def geometry_of(settings: RopeSettings, rotary_dim: int, max_position_embeddings: int) -> RopeGeometry:
    """The rotations that the settings scale; the trained length is the original one where it is said."""
    trained = settings.original_max_position_embeddings or max_position_embeddings
    return RopeGeometry(rotary_dim=rotary_dim, rope_theta=settings.rope_theta, original_max_position_embeddings=trained)


def is_ntk_fixed(settings: RopeSettings, trained: RopeGeometry | None) -> bool:
    """Whether a raised base and a linear factor are NTK-fixed together: base x f and factor f^(2 / rotary_dim)."""
    if settings.rope_type != "linear" or trained is None or settings.factor is None:
        return False
    raised = settings.rope_theta / trained.rope_theta
    return math.isclose(settings.factor ** (trained.rotary_dim / 2), raised, rel_tol=1e-6) and raised > 1


def recognise(
    settings: RopeSettings, max_position_embeddings: int | None, trained: RopeGeometry | None = None
) -> Method:
    """The method that transformers runs under these settings, resolved.

    `max_position_embeddings` (tokens) gives the factor where a yarn or longrope leaves it open. `trained`: the model
    before any scaling where it is known: its base may differ. Raises UserError where a field that the type needs is
    missing.
    """
    kind = settings.rope_type
    if kind == "default":
        raised = trained is not None and trained.rope_theta != settings.rope_theta
        return Abf(rope_theta=settings.rope_theta) if raised else Unscaled()
    if is_ntk_fixed(settings, trained):
        assert trained is not None, "known where it was compared"
        return NtkFixed(factor=settings.rope_theta / trained.rope_theta)
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
    pair = settings.mscale is not None and settings.mscale_all_dim is not None
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
        factor=factor,
        temperature="su" if settings.attention_factor is None else settings.attention_factor,
        unscaled_prefix=0,
    )


def _implied_factor(settings: RopeSettings, max_position_embeddings: int | None) -> float:
    original = settings.original_max_position_embeddings
    if max_position_embeddings is None or original is None:
        raise UserError(
            f"rope_type {settings.rope_type} without factor needs max_position_embeddings and the original."
        )
    return max(1.0, max_position_embeddings / original)


def _needed(settings: RopeSettings, name: str, value: float | None) -> float:
    if value is None:
        raise UserError(f"rope_type {settings.rope_type} needs {name}, a number; the settings have none.")
    return value
