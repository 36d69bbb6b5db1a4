"""Keys of a group that a sweep chooses from: each applies to every choice that has it, the others run without.

    -m method=none,yarn method.factor=4      yarn at 4, none as it is
Hydra applies a fixed key to the group's default before a sweep begins, so such keys wait outside its command line
until the choices of every cell are known.
"""

import re
import sys
from collections.abc import Callable, Sequence

from omegaconf import DictConfig

from harness.data.sources import WITHOUT_PATH
from harness.errors import UserError, unknown

_KEY = re.compile(r"(model|method|data|protocol)\.(\w+)[\w.]*=")
_CHOICE = re.compile(r"(?:model|method|data|protocol|experiment)=")
Compose = Callable[[list[str]], DictConfig]


_OR = {"path": "package", "package": "path"}  # where a model's files are
RENAMED = {"method.logn": "method.query_scale=log_n"}  # keys that older commands may hold
_typed: list[str] = []  # the command line of this process, where keys of it wait


def hold() -> None:
    """Take the keys of groups out of the command line of a sweep, until `release`."""
    _typed[:] = sys.argv[1:]
    if {"-m", "--multirun"} & set(_typed):
        sys.argv[1:] = [argument for argument in _typed if not _KEY.match(argument)]


def release(arguments: Sequence[str]) -> list[str]:
    """What Hydra took for overrides, and what waited, in the order as typed; the command line as it was."""
    held = set(_typed) - set(sys.argv[1:])
    sys.argv[1:] = _typed  # what results say of the command that made them
    return [a for a in _typed if a in held or a in arguments]


def applied(cells: Sequence[Sequence[str]], compose: Compose) -> tuple[list[list[str]], list[str]]:
    """The cells of a sweep without keys that their choices lack, each once; and a line for every key left out.

    `compose` makes a configuration of overrides. A key that no choice has is a UserError with the nearest name.
    """
    trees: dict[tuple[str, ...], DictConfig] = {}
    known: set[str] = set()
    taken: set[str] = set()
    without: dict[str, dict[str, DictConfig]] = {}  # by key: the choices that lack it, by their names
    lacked: list[set[str]] = []  # by cell
    for cell in cells:
        choices = tuple(o for o in cell if _CHOICE.match(o))
        if choices not in trees:
            trees[choices] = compose(list(choices))
        tree, lacked_here = trees[choices], set()
        for override in filter(_KEY.match, cell):
            key, group, name = _parts(override)
            known |= {key} if name in tree[group] else set()
            if name in tree[group] and _is_open(group, name, tree[group], cell):
                taken.add(key)
            else:
                lacked_here.add(override)
                without.setdefault(key, {})[_chosen(group, choices, tree)] = tree
        lacked.append(lacked_here)
    for key, lacking in without.items():
        if key not in known:
            raise _nowhere(key, list(lacking.values()))
    pairs = zip(cells, lacked, strict=True)
    kept = dict.fromkeys(tuple(o for o in c if o not in out or _parts(o)[0] not in taken) for c, out in pairs)
    lines = [_said(key, list(lacking)) for key, lacking in without.items() if key in taken]
    return [list(cell) for cell in kept], lines


def _is_open(group: str, name: str, values: DictConfig, cell: Sequence[str]) -> bool:
    """Whether a choice takes a key of its group: a model in a package has no path, nor have texts of a package's."""
    if group == "model" and name in _OR:
        return values.get(_OR[name]) is None
    if (group, name) == ("data", "path"):
        given = [o.partition("=")[2] for o in cell if o.startswith("data.source=")]
        return (given or [values.get("source")])[-1] not in WITHOUT_PATH
    return True


def _parts(override: str) -> tuple[str, str, str]:
    """Key, group, and the name below the group, which alone differs between choices."""
    found = _KEY.match(override)
    assert found
    return override.partition("=")[0], found[1], found[2]


def _chosen(group: str, choices: Sequence[str], tree: DictConfig) -> str:
    """What a cell chose in a group, as it was written; its name where nothing was."""
    named = [o.partition("=")[2] for o in choices if o.startswith(f"{group}=")]
    return named[-1] if named else str(tree[group].get("name"))


def _nowhere(key: str, trees: list[DictConfig]) -> UserError:
    if now := renamed(key):
        return UserError(now)
    group = key.partition(".")[0]
    return unknown("key", key, {f"{group}.{name}" for tree in trees for name in tree[group]})


def _said(key: str, lacking: list[str]) -> str:
    group = key.partition(".")[0]
    runs, have = ("runs", "it does") if len(lacking) == 1 else ("run", "they do")
    return f"{', '.join(f'{group}={name}' for name in lacking)} {runs} without {key}, which {have} not have"


def renamed(key: str) -> str | None:
    """What a key of older commands is called now."""
    return f"key {key!r} is now {RENAMED[key]}" if key in RENAMED else None
