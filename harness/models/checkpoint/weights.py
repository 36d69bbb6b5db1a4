"""Which files hold a checkpoint's weights, as the loader finds them; a name that leads elsewhere is refused."""

import json
from pathlib import Path, PurePosixPath
from typing import Any

from harness.errors import UserError, first_line
from harness.models.checkpoint.families import DUPLICATES

WEIGHTS, PICKLES = ("*.safetensors", "*.safetensors.index.json"), ("*.bin", "*.bin.index.json")
INDEX = ".index.json"
SAFE = ".safetensors"
DISTRIBUTED = ("*.distcp", ".metadata")  # a checkpoint of torch.distributed, which the loader prefers to any other


def weight_files(name: str, folder: Path, *, allow_pickle: bool) -> list[Path]:
    """Every file in `folder` that weights are read from, sorted: those at its top, and those that an index names.

    `name`: the model's, for errors. Raises UserError where there are none, and for an index that names what is not a
    safetensors file inside the folder (with `allow_pickle` an index of pickles may name pickles).
    """
    if matching(folder, DISTRIBUTED):
        raise UserError(f"model {name}: {folder} holds a distributed checkpoint; save it as safetensors first.")
    explicit = _explicit(name, folder)
    found = {*matching(folder, WEIGHTS), *([] if explicit is None else [folder / explicit])}
    pickles = () if found or not allow_pickle else matching(folder, PICKLES)
    if not found and not pickles:
        hint = "; model.allow_pickle=true reads its *.bin" if matching(folder, PICKLES) else ""
        raise UserError(f"model {name}: no safetensors in {folder}{hint}.")
    index = _index(name, folder, has_pickles=bool(pickles))
    named = [] if index is None else _named(name, folder, index, is_safe=not pickles)
    return sorted({*found, *pickles, *named})


def tensor_files(name: str, folder: Path) -> list[Path]:
    """The safetensors files that the loader reads, and no other. Raises UserError as `weight_files`."""
    index = _index(name, folder, has_pickles=False)
    if index is not None:
        return _named(name, folder, index, is_safe=True)
    return [folder / (_explicit(name, folder) or f"model{SAFE}")]


def matching(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    """The files at the top of a folder that fit one of these patterns, sorted; weights kept twice come once."""
    found = {path for pattern in patterns for path in folder.glob(pattern)}
    return sorted(path for path in found if not any(path.match(duplicate) for duplicate in DUPLICATES))


def read_json(name: str, file: Path) -> dict[str, Any]:
    """A JSON file of a checkpoint that holds an object. Raises UserError."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"model {name}: cannot read {file}: {first_line(error)}") from None
    if not isinstance(content, dict):
        raise UserError(f"model {name}: {file} must hold a JSON object, got {type(content).__name__}.")
    return content


def _explicit(name: str, folder: Path) -> str | None:
    """The file that the configuration names instead of the usual ones."""
    config = folder / "config.json"
    given = read_json(name, config).get("transformers_weights") if config.is_file() else None
    return None if given is None else _inside(name, config, given, (SAFE, SAFE + INDEX))


def _index(name: str, folder: Path, *, has_pickles: bool) -> Path | None:
    """The index that the loader reads: it prefers one file of all weights."""
    explicit = _explicit(name, folder)
    if explicit is not None:
        return folder / explicit if explicit.endswith(INDEX) else None
    whole = folder / ("pytorch_model.bin" if has_pickles else f"model{SAFE}")
    index = whole.with_name(whole.name + INDEX)
    return None if whole.is_file() or not index.is_file() else index


def _named(name: str, folder: Path, index: Path, *, is_safe: bool) -> list[Path]:
    weight_map = read_json(name, index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"model {name}: {index} has no weight_map, so it names no weights.")
    suffixes = (SAFE,) if is_safe else (".bin", ".pt", ".pth", SAFE)
    files = [
        folder / shard for shard in sorted({_inside(name, index, given, suffixes) for given in weight_map.values()})
    ]
    for file in files:
        if not file.is_file():
            raise UserError(f"model {name}: {index} names {file.relative_to(folder)}, which is not there.")
    return files


def _inside(name: str, where: Path, given: object, suffixes: tuple[str, ...]) -> str:
    path = PurePosixPath(given) if isinstance(given, str) else None
    if path is None or path.is_absolute() or ".." in path.parts or not path.name.endswith(suffixes):
        raise UserError(f"model {name}: {where} may name only *{suffixes[0]} files inside its folder, got {given!r}.")
    return str(path)
