"""The configurations of a sweep: composed by Hydra once for each choice of groups, plain values set in a copy of it.

Hydra reads and merges every YAML file anew for every cell, a tenth of a second each. What comes out is the same: a
plain value (`ctx=64`, `method.factor=4`) changes nothing but itself, and Hydra too sets it when all else is composed.
Whatever is not as plain as that is left to Hydra, and so is every mistake.
"""

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf

from harness.config.checks import plain

Compose = Callable[[list[str]], DictConfig]  # Hydra's, of overrides
Values = dict[str, Any]


class Plain(NamedTuple):
    """An override that sets one value which is there."""

    key: str
    value: object


class Composer:
    """Composes cells that have much in common."""

    def __init__(self, compose: Compose, is_group: Callable[[str], bool]) -> None:
        self._compose, self._is_group = compose, functools.cache(is_group)
        self._parser = OverridesParser.create()
        self._read: dict[str, Plain | Override] = {}
        self._trees: dict[tuple[str, ...], DictConfig] = {}
        self._values: dict[tuple[str, ...], _Raw | None] = {}

    def tree(self, overrides: Sequence[str]) -> DictConfig:
        """What Hydra composes of the overrides that are no plain values."""
        chosen = tuple(o for o in overrides if not isinstance(self._parsed(o), Plain))
        if chosen not in self._trees:
            self._trees[chosen] = self._compose(list(chosen))
        return self._trees[chosen]

    def values(self, overrides: Sequence[str]) -> Values:
        """The configuration of a cell, as `plain` of what Hydra composes of all overrides."""
        read = {o: self._parsed(o) for o in overrides}
        chosen = tuple(o for o, one in read.items() if isinstance(one, Override))
        settings = [one for one in read.values() if isinstance(one, Plain)]
        keys = [one.key_or_group for one in read.values() if isinstance(one, Override)]
        odd = [key for key in keys if not self._is_group(key)]  # where they meet a plain value, their order matters
        found = None
        if len(read) == len(overrides) and not any(_meet(key, one.key) for key in odd for one in settings):
            found = self._set(chosen, settings)
        return plain(self._compose(list(overrides))) if found is None else found

    def _parsed(self, override: str) -> Plain | Override:
        if override not in self._read:
            parsed = self._parser.parse_override(override)
            value = _plain_value(parsed)
            is_plain = value is not _NOT_PLAIN and not self._is_group(parsed.key_or_group)
            self._read[override] = Plain(parsed.key_or_group, value) if is_plain else parsed
        return self._read[override]

    def _set(self, chosen: tuple[str, ...], settings: Sequence[Plain]) -> Values | None:
        """Values set in a copy of what was composed; None where that is not for us to do."""
        tree = self.tree(chosen)
        if chosen not in self._values:
            self._values[chosen] = _raw(tree)
        raw = self._values[chosen]
        if raw is None:
            return None
        values = _copied(raw.values)
        if not all(_put(values, setting) for setting in settings) or (raw.lacks and _mentions(values, "???")):
            return None
        return plain(OmegaConf.create(values)) if raw.refers and _mentions(values, "${") else values


_NOT_PLAIN = object()


def _plain_value(override: Override) -> object:
    """The value that an override sets, or _NOT_PLAIN: it adds, deletes, sweeps, names a package or is Hydra's own."""
    key = override.key_or_group
    is_change = override.type == OverrideType.CHANGE and override.package is None
    if not is_change or override.is_sweep_override() or key.partition(".")[0] == "hydra":
        return _NOT_PLAIN
    value = override.value()
    parts = value if isinstance(value, list) else [value]
    if not all(part is None or isinstance(part, bool | int | float | str) for part in parts):
        return _NOT_PLAIN
    return _NOT_PLAIN if any(_mentions(part, mark) for part in parts for mark in ("${", "???")) else value


class _Raw(NamedTuple):
    """A composed tree before values are set, which bring no marks of their own."""

    values: Values
    lacks: bool  # a value must be given
    refers: bool  # a value is that of another key


def _copied(value: Any) -> Any:
    """Plain values, dicts and lists as new ones; many times faster than a deep copy of anything."""
    if isinstance(value, dict):
        return {key: _copied(one) for key, one in value.items()}
    return [_copied(one) for one in value] if isinstance(value, list) else value


def _raw(tree: DictConfig) -> _Raw | None:
    """Our part of a composed tree, interpolations as they stand; None where one leads beyond it."""
    ours = OmegaConf.masked_copy(tree, [str(key) for key in tree if key != "hydra"])
    values = OmegaConf.to_container(ours, resolve=False)
    assert isinstance(values, dict)
    leads_beyond = _mentions(values, "${hydra") or _mentions(values, ":")
    if _mentions(values, "${") and leads_beyond:
        return None
    ours_alone = {str(key): value for key, value in values.items()}
    return _Raw(ours_alone, _mentions(values, "???"), _mentions(values, "${"))


def _put(values: Values, setting: Plain) -> bool:
    """Set one value; False where there is none of that key, or more than a value."""
    *above, last = setting.key.split(".")
    node: Any = values
    for name in above:
        node = node.get(name) if isinstance(node, dict) else None
    if not isinstance(node, dict) or last not in node or isinstance(node[last], dict):
        return False
    node[last] = copy.copy(setting.value)
    return True


def _mentions(value: object, mark: str) -> bool:
    """Whether a text anywhere in a value holds a mark."""
    if isinstance(value, dict):
        return any(_mentions(one, mark) for one in value.values())
    if isinstance(value, list):
        return any(_mentions(one, mark) for one in value)
    return isinstance(value, str) and mark in value


def _meet(one: str, other: str) -> bool:
    """Whether two keys are one, or one lies below the other."""
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")
