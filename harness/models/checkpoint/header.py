"""What is known of a model before its weights are read: enough to name its cells and to tokenize its documents.

It is remembered by the content of the files that it was read from, so that a cell which is finished, and a mistake,
need not wait for transformers to be imported.
"""

import copy
import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from harness.errors import UserError
from harness.methods.base import RopeGeometry
from harness.methods.encoding.trained_with import TrainedWith
from harness.models.checkpoint.families import ENCODING
from harness.models.checkpoint.files import (
    config_fingerprint,
    directory,
    model_fingerprint,
    tokenizer_files_fingerprint,
)
from harness.models.checkpoint.spec import ModelSpec
from harness.storage import cache

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

READERS = ("transformers", "tokenizers", "torch", "gguf", "sentencepiece", "protobuf", "tiktoken")  # what reads files
OF_ENCODING = (ENCODING, "max_position_embeddings", "hidden_size")  # fields of a configuration


@dataclass(frozen=True, kw_only=True)
class Header:
    """A model without its weights."""

    spec: ModelSpec
    geometry: RopeGeometry | None  # None: no rotary embedding
    fingerprint: str  # of every file that its weights and configuration are read from
    vocabulary: int  # token ids that it knows
    tokenizer_fingerprint: str
    bos_token_id: int | None  # the token that a BOS policy puts in front
    prefix_token_id: int | None  # the BOS; where there is none, the EOS that `protocol=rolling` takes for it
    adds_bos: bool  # the tokenizer puts a BOS in front of a text by itself: what `protocol.bos=auto` follows
    encoding: dict[str, Any] | None = None  # what the configuration says of an encoding of ours; None: it has none
    revision: str = ""  # of a hub id: the commit

    @cached_property
    def config(self) -> "PretrainedConfig":
        """The checkpoint's configuration. Raises UserError where it is no longer the one that was identified."""
        from harness.models.checkpoint.load import load_config

        if model_fingerprint(self.spec) != self.fingerprint:
            raise UserError(f"model {self.spec.name} changed while it was read; start the run again.")
        return load_config(self.spec)

    @cached_property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The checkpoint's tokenizer. Raises UserError where it is no longer the one that was identified."""
        from harness.models.checkpoint.load import load_tokenizer
        from harness.models.checkpoint.tokenizer_state import tokenizer_fingerprint

        found = load_tokenizer(self.spec)
        if tokenizer_fingerprint(found) != self.tokenizer_fingerprint:
            raise UserError(f"model {self.spec.name}: its tokenizer changed while it was read; start the run again.")
        return found

    @property
    def trained_with(self) -> TrainedWith | None:
        """An encoding of ours that the model was trained with."""
        return None if self.encoding is None else TrainedWith.of(SimpleNamespace(**self.encoding))


def header(spec: ModelSpec) -> Header:
    """Everything but the weights.

    Raises UserError for anything missing, for a model that is no causal language model, and for weights that do not fit
    the configuration.
    """
    fingerprint = model_fingerprint(spec)  # first: it knows of an adapter alone, and of what may not be read
    if spec.trust_remote_code:  # which may do anything
        return _read(spec, fingerprint)
    kept = cache.path("headers", cache.digest(_made_of(spec, fingerprint)), ".json")
    with suppress(OSError, ValueError, KeyError, TypeError):  # not there, or damaged
        return _remembered(spec, json.loads(cache.read(kept)))
    found = _read(spec, fingerprint)
    values = {name: value for name, value in asdict(found).items() if name != "spec"}
    with suppress(TypeError, ValueError):  # a configuration that is no JSON
        content = json.dumps(values, allow_nan=False).encode()
        cache.write(kept, lambda stream: stream.write(content))
    return found


def of_tokenizer(tokenizer: "PreTrainedTokenizerBase") -> dict[str, Any]:
    """The fields of a header that a tokenizer says."""
    from harness.models.checkpoint.tokenizer_state import tokenizer_fingerprint

    bos = tokenizer.bos_token_id
    return {
        "tokenizer_fingerprint": tokenizer_fingerprint(tokenizer),
        "bos_token_id": bos,
        "prefix_token_id": tokenizer.eos_token_id if bos is None else bos,
        "adds_bos": bos is not None and tokenizer("a")["input_ids"][:1] == [bos],
    }


def of_config(config: "PretrainedConfig") -> dict[str, Any] | None:
    """What a configuration says of an encoding of ours."""
    if not isinstance(getattr(config, ENCODING, None), dict):
        return None
    return {field: getattr(config, field) for field in OF_ENCODING}


def _read(spec: ModelSpec, fingerprint: str) -> Header:
    from harness.models.checkpoint.fits import rows_of_embedding
    from harness.models.checkpoint.load import load_config, load_geometry, load_tokenizer
    from harness.models.checkpoint.sliding_window import set_window

    config, tokenizer = load_config(spec), load_tokenizer(spec)
    if not isinstance(spec.sliding_window, str):
        set_window(copy.deepcopy(config), spec.sliding_window)  # refused before any cell
    found = Header(
        spec=spec,
        geometry=load_geometry(spec),
        fingerprint=fingerprint,
        vocabulary=rows_of_embedding(spec, config),
        encoding=of_config(config),
        revision=_revision(directory(spec)),
        **of_tokenizer(tokenizer),
    )
    found.__dict__.update(config=config, tokenizer=tokenizer)  # of its cached properties: read once
    return found


def _remembered(spec: ModelSpec, values: dict[str, Any]) -> Header:
    geometry = values.pop("geometry")
    return Header(spec=spec, geometry=None if geometry is None else RopeGeometry(**geometry), **values)


def _made_of(spec: ModelSpec, fingerprint: str) -> list[object]:
    """All that a header follows from: the model's files and settings, and the programs that read them."""
    code = [[file.name, cache.file_hash(file)] for file in sorted(Path(__file__).parent.glob("*.py"))]
    files = [fingerprint, config_fingerprint(spec), tokenizer_files_fingerprint(spec), _revision(directory(spec))]
    return [asdict(spec) | {"name": ""}, files, code, [_version(package) for package in READERS]]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _revision(folder: Path) -> str:
    """The commit of a snapshot in the hub's local cache (.../snapshots/<commit>)."""
    return folder.name if folder.parent.name == "snapshots" else ""
