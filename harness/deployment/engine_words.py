"""Rope parameters that one engine alone knows, in the words that all share."""

from collections.abc import Mapping

from harness.deployment.express import express
from harness.deployment.settings import RopeSettings
from harness.errors import UserError
from harness.methods.base import RopeGeometry
from harness.methods.frequency.ntk import Ntk
from harness.methods.frequency.ntk_fixed import NtkFixed
from harness.methods.frequency.ntk_mixed import NtkMixed
from harness.methods.frequency.yarn import temperature


def in_common_words(rope: Mapping[str, object], rope_theta: float, rotary_dim: int | None) -> RopeSettings:
    """Declared rope parameters of transformers, vLLM or SGLang in transformers' terms.

    vLLM's "ntk" (with `mixed_b`: NTK-mixed) and "dynamic" with `alpha` are fixed NTK scalings; SGLang's `attn_factor`
    multiplies yarn's 0.1 ln(factor) + 1; `long_mscale` of both is longrope's attention_factor; "deepseek_yarn" is
    yarn. Raises UserError for what is no setting, or needs a rotary_dim where that is None.
    """
    given = dict(rope)
    kind = given.get("rope_type", given.get("type", "default"))
    if kind == "deepseek_yarn":
        given["rope_type"] = kind = "yarn"
    if kind == "ntk" or (kind == "dynamic" and "alpha" in given):
        return _fixed_ntk(given, rope_theta, rotary_dim)
    factor, multiplier, longer = (_number(given.get(name)) for name in ("factor", "attn_factor", "long_mscale"))
    if kind == "yarn" and multiplier is not None and factor is not None:
        given["attention_factor"] = multiplier * temperature(factor)
    if kind == "longrope" and longer is not None:
        given.setdefault("attention_factor", longer)
    return RopeSettings.of(given, rope_theta)


def _fixed_ntk(given: Mapping[str, object], rope_theta: float, rotary_dim: int | None) -> RopeSettings:
    if rotary_dim is None:
        raise UserError("rope_type ntk and dynamic with alpha need the size of a head: give model=... as well.")
    geometry = RopeGeometry(rotary_dim=rotary_dim, rope_theta=rope_theta, original_max_position_embeddings=2)
    alpha, factor, mixed = (_number(given.get(name)) for name in ("alpha", "factor", "mixed_b"))
    strength = alpha if alpha is not None else factor
    if strength is None:
        raise UserError("rope_type ntk needs factor, a number; the settings have none.")
    if alpha is not None:
        return express(Ntk(factor=strength), geometry, 2).settings
    if mixed is None:
        return express(NtkFixed(factor=strength), geometry, 2).settings
    return express(NtkMixed(factor=strength, beta=mixed), geometry, 2).settings


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
