"""From a composed configuration to dataclasses: every key, type and choice checked, a mistake said in one line."""

import dataclasses
import errno
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from harness.errors import UserError, first_line, unknown

T = TypeVar("T")
LARGEST = 2**63  # what tables and tensors hold
WANTED: dict[type, str] = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "text",
    list: "a list",
    dict: "keys with values",
}


def plain(composed: DictConfig) -> dict[str, Any]:
    """A composed configuration as plain Python, interpolations resolved, Hydra's own part left out."""
    if not all(isinstance(key, str) for key in composed):
        raise UserError(f"configuration: keys must be text, got {[k for k in composed if not isinstance(k, str)]}.")
    try:
        ours = OmegaConf.masked_copy(composed, [str(k) for k in composed if k != "hydra"])
        values = OmegaConf.to_container(ours, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(f"configuration: {first_line(error)}") from error
    assert isinstance(values, dict)
    return {str(k): v for k, v in values.items()}


def typed(key: str, value: object, kind: type[T]) -> T:
    """`value` if it is of this kind; numbers are not rounded and words are not guessed. Raises UserError."""
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise UserError(f"{key} must be {WANTED.get(kind, kind.__name__)}, got {value!r}.")
    if isinstance(value, int) and abs(value) >= LARGEST:
        raise UserError(f"{key} must be below {LARGEST}, got {value}.")
    if isinstance(value, str) and not value.isprintable():
        raise UserError(f"{key} must be printable text, got {value!r}.")
    return value


def check_kinds(values: Mapping[str, object], kinds: Mapping[str, Any]) -> None:
    """That the value of each key is of the kind that its annotation names, as `str | None`. Raises UserError."""
    for key, hint in kinds.items():
        allowed, given = admitted(hint), values.get(key)
        if type(given) in allowed or (float in allowed and type(given) is int):
            if given is not None:
                typed(key, given, type(given))
            continue
        names = [WANTED.get(kind, kind.__name__) for kind in allowed if kind is not type(None)]
        raise UserError(f"{key} must be {' or '.join(sorted(names))}, got {given!r}.")


def folder(values: Mapping[str, object], key: str) -> Path:
    """The directory that a key names, absolute. Raises UserError for what is no name."""
    return place(values, key).absolute()


def place(values: Mapping[str, object], key: str) -> Path:
    """The file or directory that a key names, ~ resolved. Raises UserError for what is no name."""
    given = values.get(key)
    if not isinstance(given, str) or not given.strip() or "\0" in given:
        raise UserError(f"{key} must be the name of a file or directory, got {given!r}.")
    path = os.path.expanduser(given)
    if path.startswith("~"):
        raise UserError(f"{key}: {given!r} begins with a home directory that is not known.")
    try:
        os.stat(path)
    except UnicodeEncodeError:
        raise UserError(f"{key} must be the name of a file or directory, got {given!r}.") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UserError(f"{key}: {path[:100]!r}... is too long for the name of a file or directory.") from None
    return Path(path)


def section(spec: type[T], values: dict[str, Any], name: str) -> T:
    """One group of the configuration as its dataclass, every key and type checked against it. Raises UserError.

    Cells of a sweep have most groups in common: what was checked once is the same object, frozen, for all of them.
    """
    given = group(values, name)
    key = spec, name, repr(given)
    if key not in _sections:
        if len(_sections) >= MOST_SECTIONS:
            _sections.clear()
        _sections[key] = _checked(spec, given, name)
    found: T = _sections[key]
    return found


MOST_SECTIONS = 10_000
_sections: dict[tuple[type, str, str], Any] = {}  # by dataclass, group and its values


def group(values: Mapping[str, object], name: str) -> dict[str, Any]:
    """One group of the configuration, its keys not looked at; {} where it is null. Raises UserError for a value."""
    given = values.get(name)
    if given is not None and not isinstance(given, dict):
        raise UserError(f"{name} must hold keys, got {given!r}.")
    return {str(key): value for key, value in (given or {}).items()}


def structured(spec: type[T], given: Mapping[str, object], name: str) -> T:
    """One group as its dataclass, dataclasses within it and members of lists checked, too. Raises UserError."""
    schema = OmegaConf.structured(spec)
    try:
        checked = OmegaConf.to_object(OmegaConf.merge(schema, dict(given)))
    except ConfigKeyError as error:
        key = str(error.full_key)
        above = key.rpartition(".")[0]
        known = OmegaConf.select(schema, above) if above else schema
        raise unknown("key", f"{name}.{key}", [".".join(filter(None, (name, above, str(k)))) for k in known]) from error
    except OmegaConfBaseException as error:
        raise UserError(f"{name}.{error.full_key}: {first_line(error)}") from error
    assert isinstance(checked, spec)
    return checked


def chosen(specs: Mapping[str, type[T]], values: dict[str, Any], name: str) -> T:
    """One group of the configuration whose `name` says which dataclass it is; otherwise as `section`."""
    given = group(values, name)
    choice = str(given.pop("name", ""))
    if choice not in specs:
        raise unknown(name, choice, specs)
    return _checked(specs[choice], given, name, ("name",))


def _checked(spec: type[T], given: dict[str, Any], name: str, beside: tuple[str, ...] = ()) -> T:
    hints = _hints(spec)  # type: ignore[arg-type]  # a class has a hash
    for key, value in given.items():
        if key not in hints:
            raise unknown("key", f"{name}.{key}", [f"{name}.{k}" for k in (*beside, *hints)])
        kinds = admitted(hints[key])
        if value is None and type(None) in kinds:
            continue
        (kind, *others) = kinds - {type(None)} or {type(None)}
        if isinstance(value, dict) and dataclasses.is_dataclass(kind) and not others:
            given = given | {key: _checked(kind, value, f"{name}.{key}")}
        elif len(kinds - {type(None)}) == 1:
            typed(f"{name}.{key}", value, next(iter(kinds - {type(None)})))
    known = dataclasses.fields(spec)  # type: ignore[arg-type]  # it is one
    missing = [f.name for f in known if f.init and f.default is f.default_factory is dataclasses.MISSING]
    if lacking := [f"{name}.{key}" for key in missing if key not in given]:
        raise UserError(f"{', '.join(lacking)} must be given.")
    return spec(**given)


@cache
def _hints(spec: type) -> dict[str, Any]:
    return {key: hint for key, hint in get_type_hints(spec).items() if get_origin(hint) is not ClassVar}


@cache
def admitted(hint: Any) -> set[type]:
    """The types of plain values that an annotation admits; empty for `Any`."""
    if get_origin(hint) in (Union, UnionType):
        return {kind for option in get_args(hint) for kind in admitted(option)}
    if get_origin(hint) is Literal:
        return {type(choice) for choice in get_args(hint)}
    if hint is Any:
        return set()
    return {get_origin(hint) or hint}
