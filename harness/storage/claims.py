"""A directory belongs to the run whose recipe lies in it, and is refused to any other."""

import json
from collections.abc import Mapping
from pathlib import Path

from harness.errors import UserError, first_line
from harness.storage.files import write_text

RECIPE = "recipe.json"
SHOWN = 40  # characters of a value in a message


def check_unclaimed(folder: Path, recipe: Mapping[str, object], what: str, key: str) -> bool:
    """Whether `folder` is claimed by this recipe already; False where nobody claims it.

    `what` names a run of this kind, `key` the option that chose the folder.
    Raises UserError where another run lies there, naming what differs.
    """
    file = folder / RECIPE
    if not file.is_file():
        return False
    try:
        found = _flat(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, AttributeError) as error:
        raise UserError(
            f"{key}: {file} is damaged ({first_line(error)}); delete {folder} or choose another."
        ) from error
    wanted = _flat(json.loads(json.dumps(recipe)))
    changed = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
    if changed:
        differences = ", ".join(
            f"{name} ({str(found.get(name))[:SHOWN]} there, {str(wanted.get(name))[:SHOWN]} now)" for name in changed
        )
        raise UserError(
            f"{key}: {folder} holds another {what}; it differs in {differences}. "
            f"Choose another {key} or delete this one."
        )
    return True


def claim(folder: Path, recipe: Mapping[str, object]) -> None:
    """Mark `folder` as this run's. Raises StorageError."""
    write_text(folder / RECIPE, json.dumps(recipe, indent=1) + "\n")


def disclaim(folder: Path) -> None:
    """Leave `folder` to any run."""
    (folder / RECIPE).unlink(missing_ok=True)


def _flat(tree: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in tree.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value})
    return flat
