"""Scaling methods: one file each, registered in METHODS."""

from collections.abc import Mapping
from dataclasses import fields, replace
from numbers import Real
from types import UnionType
from typing import Any, get_args, get_type_hints

from harness.errors import UserError, unknown
from harness.methods.base import Method, RopeFrequencies, RopeGeometry
from harness.methods.linear import Linear
from harness.methods.none import Unscaled
from harness.methods.ntk import Ntk
from harness.methods.yarn import Yarn

__all__ = ["METHODS", "Method", "RopeFrequencies", "RopeGeometry", "build", "construct", "resolve"]

METHODS: dict[str, type] = {
    "linear": Linear,
    "none": Unscaled,
    "ntk": Ntk,
    "yarn": Yarn,
}


def build(name: str, params: Mapping[str, Any], geometry: RopeGeometry, length: int) -> Any:
    """The method `name` for windows of up to `length` tokens, its parameters checked and its factor resolved.

    Raises UserError on an unknown name or parameter, a value of the wrong type, or one out of range.
    """
    return resolve(construct(name, params), geometry, length)


def construct(name: str, params: Mapping[str, Any]) -> Any:
    """The method `name` with these parameters, `factor` as given; UserError as `build`."""
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    _check_types(name, params)
    return METHODS[name](**params)


def resolve(method: Any, geometry: RopeGeometry, length: int) -> Any:
    """The method with a factor of None replaced by max(1, length / original_max_position_embeddings)."""
    if not hasattr(method, "factor") or method.factor is not None:
        return method
    return replace(method, factor=max(1.0, length / geometry.original_max_position_embeddings))


def _check_types(name: str, params: Mapping[str, Any]) -> None:
    hints = get_type_hints(METHODS[name])
    allowed = {field.name: hints[field.name] for field in fields(METHODS[name])}
    for param, value in params.items():
        if param not in allowed:
            raise (
                unknown(f"parameter of {name}", param, allowed)
                if allowed
                else UserError(f"{name} has no parameters, got {param!r}.")
            )
        if not _fits(value, allowed[param]):
            expected = getattr(allowed[param], "__name__", str(allowed[param]))
            raise UserError(f"{name}: {param} must be of type {expected}, got {value!r}.")


def _fits(value: Any, hint: Any) -> bool:
    if hint is Any:
        return True
    if isinstance(hint, UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    if get_args(hint):  # list[float]
        return isinstance(value, list | tuple) and all(_fits(item, get_args(hint)[0]) for item in value)
    if hint is float:
        return isinstance(value, Real) and not isinstance(value, bool)
    return type(value) is hint
