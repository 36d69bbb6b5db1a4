"""A cell as a user writes it: by its overrides, and as the command that computes it."""

import dataclasses
import shlex
import sys
from collections.abc import Sequence

from harness.cells.cell import Cell
from harness.config.schema import MethodSpec


def label(cell: Cell) -> str:
    """A cell in the words of its overrides: `model=tiny method=yarn ctx=64`."""
    of_base = [] if cell.base is None else [f"base.{words}" for words in _words(cell.base)]
    return " ".join([*_words(cell), *of_base, f"ctx={cell.ctx}"])


def _words(cell: Cell) -> list[str]:
    """Model and method, and what is set of it."""
    method = cell.config.method
    usual = {f.name: f.default for f in dataclasses.fields(cell.method)}
    given = method.params | _modifiers(method)
    params = [f"method.{k}={v}" for k, v in given.items() if v != usual.get(k)]
    return [f"model={cell.config.model.name}", f"method={method.name}", *params]


def _modifiers(method: MethodSpec) -> dict[str, object]:
    """What combines with the method, by the keys that a user gives."""
    given = {
        "query_scale": method.query_scale,
        "remove_query_scale": method.remove_query_scale or None,
        "kv_cache": method.kv_cache,
        "resonance": method.resonance or None,
        "layers": method.layers,
    }
    return {key: value if isinstance(value, bool) else str(value) for key, value in given.items() if value is not None}


def command(overrides: Sequence[str], sweep: bool) -> str:
    """A line for the shell that computes one cell, with the configuration files of the present command."""
    return shlex.join(["python", "-m", "harness", *(["-m"] if sweep else []), *_config_flags(sys.argv), *overrides])


def _config_flags(arguments: Sequence[str]) -> list[str]:
    """Hydra's flags that say where configuration comes from, as given."""
    found = []
    for flag, value in zip(arguments, [*arguments[1:], ""], strict=True):
        name, is_joined, _ = flag.partition("=")
        if name in ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn"):
            found += [flag] if is_joined else [flag, value]
    return found
