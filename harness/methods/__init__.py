"""Scaling methods: one file each, registered in METHODS."""

from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from numbers import Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from harness.errors import UserError, unknown
from harness.methods.attention.dca import Dca
from harness.methods.attention.leaky_rerope import LeakyReRope
from harness.methods.attention.rerope import ReRope
from harness.methods.attention.self_extend import SelfExtend
from harness.methods.attention.string import String
from harness.methods.attention.windowed import Windowed
from harness.methods.base import Method, RopeFrequencies, RopeGeometry
from harness.methods.encoding.alibi import Alibi
from harness.methods.encoding.fire import Fire
from harness.methods.encoding.kerple import Kerple
from harness.methods.encoding.learned import Learned
from harness.methods.encoding.nope import Nope
from harness.methods.encoding.permuteformer import Permuteformer
from harness.methods.encoding.random_padding import RandomPadding
from harness.methods.encoding.randomized import Randomized
from harness.methods.encoding.shape import ShapeEncoding
from harness.methods.encoding.sinusoidal import Sinusoidal
from harness.methods.encoding.t5_bias import T5Bias
from harness.methods.encoding.xpos import Xpos
from harness.methods.frequency.abf import Abf
from harness.methods.frequency.cope import Cope
from harness.methods.frequency.dynamic_linear import DynamicLinear
from harness.methods.frequency.dynamic_ntk import DynamicNtk
from harness.methods.frequency.dynamic_yarn import DynamicYarn
from harness.methods.frequency.linear import Linear
from harness.methods.frequency.llama3 import Llama3
from harness.methods.frequency.longrope import LongRope
from harness.methods.frequency.native import Native
from harness.methods.frequency.none import Unscaled
from harness.methods.frequency.ntk import Ntk
from harness.methods.frequency.ntk_by_parts import NtkByParts
from harness.methods.frequency.ntk_fixed import NtkFixed
from harness.methods.frequency.ntk_mixed import NtkMixed
from harness.methods.frequency.p_rope import PRope
from harness.methods.frequency.power import Power
from harness.methods.frequency.truncated import Truncated
from harness.methods.frequency.yarn import Yarn

__all__ = ["AS_IT_IS", "METHODS", "Method", "RopeFrequencies", "RopeGeometry", "build", "construct"]

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        Abf,
        Alibi,
        Cope,
        Dca,
        DynamicLinear,
        DynamicNtk,
        DynamicYarn,
        Fire,
        Kerple,
        LeakyReRope,
        Learned,
        Linear,
        Llama3,
        LongRope,
        Native,
        Unscaled,
        Nope,
        Ntk,
        NtkByParts,
        NtkFixed,
        NtkMixed,
        Permuteformer,
        Power,
        PRope,
        RandomPadding,
        Randomized,
        ReRope,
        SelfExtend,
        ShapeEncoding,
        Sinusoidal,
        String,
        T5Bias,
        Truncated,
        Windowed,
        Xpos,
        Yarn,
    )
}
AS_IT_IS = tuple(name for name, method in METHODS.items() if method.as_it_is)


def build(name: str, params: Mapping[str, Any], geometry: RopeGeometry, length: int) -> Method:
    """The method `name` for windows of up to `length` tokens, its parameters checked and its factor resolved.

    Raises UserError on an unknown name or parameter, a value of the wrong type, or one out of range.
    """
    return construct(name, params).resolved(geometry, length)


def construct(name: str, params: Mapping[str, Any]) -> Method:
    """The method `name` with these parameters, `factor` as given; UserError as `build`."""
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    return METHODS[name](**_typed(name, params))


def _typed(name: str, params: Mapping[str, Any]) -> dict[str, Any]:
    allowed = _parameters(METHODS[name])
    for param, value in params.items():
        if param not in allowed:
            raise (
                unknown(f"parameter of {name}", param, allowed)
                if allowed
                else UserError(f"{name} has no parameters, got {param!r}.")
            )
        if not _fits(value, allowed[param]):
            raise UserError(f"{name}: {param} must be of type {_words(allowed[param])}, got {value!r}.")
    return {param: _as_float(value, allowed[param]) for param, value in params.items()}


@cache
def _parameters(method: type[Method]) -> dict[str, Any]:
    """The names of a method's parameters, and what may stand there."""
    hints = get_type_hints(method)
    return {field.name: hints[field.name] for field in fields(method)}


def _fits(value: object, hint: object) -> bool:
    if hint is Any:
        return True
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    if get_origin(hint) is Literal:
        return isinstance(value, str)  # which of them, the method says
    if get_args(hint):  # list[float]
        return isinstance(value, list | tuple) and all(_fits(item, get_args(hint)[0]) for item in value)
    if hint is float:
        return isinstance(value, Real) and not isinstance(value, bool)
    return type(value) is hint


def _words(hint: object) -> str:
    if get_origin(hint) in (Union, UnionType):
        return " | ".join("None" if option is NoneType else _words(option) for option in get_args(hint))
    if get_origin(hint) is Literal:
        return "str"
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)


def _as_float(value: object, hint: object) -> object:
    # a factor of 8 and one of 8.0 are the same method, also where parameters are compared as text
    options = get_args(hint) or (hint,)
    if list[float] in options and isinstance(value, list | tuple):
        return [float(item) for item in value]
    return float(value) if float in options and isinstance(value, int) and not isinstance(value, bool) else value
