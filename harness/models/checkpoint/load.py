"""Loading a model, its tokenizer and its geometry from what a spec names."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import torch
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import is_accelerate_available

import harness.models.encoded.model  # noqa: F401  # makes its checkpoints known to transformers
from harness.errors import UserError, install
from harness.methods.base import RopeGeometry
from harness.models.checkpoint.adapter import CONFIG, NOWHERE, merged
from harness.models.checkpoint.classes import architectures, auto_class, known_classes
from harness.models.checkpoint.families import GENERATIVE, RENAMED_TYPES
from harness.models.checkpoint.fields import check_fields
from harness.models.checkpoint.files import (
    config_fingerprint,
    directory,
    model_fingerprint,
    tokenizer_files_fingerprint,
)
from harness.models.checkpoint.fits import check_report, without_report
from harness.models.checkpoint.geometry import geometry, has_rope, text_config
from harness.models.checkpoint.sliding_window import set_window
from harness.models.checkpoint.spec import ModelSpec
from harness.models.checkpoint.weights import read_json
from harness.models.probe import check_window

T = TypeVar("T")
MOST_LAYERS = 10_000


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to be scored, and what is known of it."""

    model: PreTrainedModel  # in eval mode
    tokenizer: PreTrainedTokenizerBase
    geometry: RopeGeometry | None  # None: the model has no rotary embedding
    fingerprint: str  # of the files that it was read from


def load(
    spec: ModelSpec,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    attn_implementation: str | None = None,
) -> LoadedModel:
    """The model that a spec names, in eval mode on `device`; None lets transformers choose the attention.

    Raises UserError where files are missing, or are not those of a causal language model.
    """
    if spec.device_map is not None and not is_accelerate_available():
        raise UserError(f"model.device_map needs accelerate: {install('device_map')}.")
    config = load_config(spec)
    if not isinstance(spec.sliding_window, str):
        set_window(config, spec.sliding_window)
    identity = model_fingerprint(spec)  # it knows which files may be read, too
    model = _load_weights(spec, config, dtype=dtype, attn_implementation=attn_implementation)
    if spec.device_map is None:
        _detach_from_files(model)
        model = model.to(device)  # type: ignore[arg-type]  # it is wrapped
    if isinstance(spec.sliding_window, int):
        check_window(model, spec.sliding_window)
    if model_fingerprint(spec) != identity:
        raise UserError(f"model {spec.name} changed while it was read; start the run again.")
    return LoadedModel(
        model=model.eval(),
        tokenizer=load_tokenizer(spec),
        geometry=load_geometry(spec),
        fingerprint=identity,
    )


def load_config(spec: ModelSpec) -> PretrainedConfig:
    """The checkpoint's own configuration, a new copy; UserError unless it is that of a causal language model."""
    return copy.deepcopy(_read_config(spec, config_fingerprint(spec)))


def load_geometry(spec: ModelSpec) -> RopeGeometry | None:
    """The rotary geometry, read from the configuration alone; None where the model has no rotary embedding."""
    config = load_config(spec)
    if not has_rope(text_config(config)):
        return None
    return geometry(config, spec.original_max_position_embeddings)


def load_tokenizer(spec: ModelSpec) -> PreTrainedTokenizerBase:
    """The checkpoint's tokenizer, the same object as long as its files are."""
    return _read_tokenizer(spec, tokenizer_files_fingerprint(spec))


@cache
def _read_tokenizer(spec: ModelSpec, state: str) -> PreTrainedTokenizerBase:
    def read() -> PreTrainedTokenizerBase:
        with _alone(spec) as (folder, source):
            tokenizer = AutoTokenizer.from_pretrained(folder, **source)
        tokenizer("a")  # what is wrong in its files shows in use
        return tokenizer

    return _reading(spec, "tokenizer", read)


@cache
def _read_config(spec: ModelSpec, state: str) -> PretrainedConfig:
    config = _reading(spec, "config", lambda: _config_of(spec))
    _check_causal(spec, config)
    layers = getattr(text_config(config), "num_hidden_layers", 0)
    if type(layers) is not int or layers > MOST_LAYERS:  # building them would not end
        raise UserError(f"model {spec.name}: its config.json must have at most {MOST_LAYERS} layers, got {layers!r}.")
    check_fields(spec.name, text_config(config))
    return config


def _config_of(spec: ModelSpec) -> PretrainedConfig:
    """As transformers reads it; a rope type that it reads under its later name alone is given that one first."""
    file = directory(spec) / "config.json"
    said = read_json(spec.name, file) if spec.gguf_file is None and file.is_file() else {}
    scaling = said.get("rope_scaling")
    if not isinstance(scaling, dict) or scaling.get("type") not in RENAMED_TYPES or spec.trust_remote_code:
        config: PretrainedConfig = AutoConfig.from_pretrained(directory(spec), **_source(spec))
        return config
    renamed: PretrainedConfig = AutoConfig.for_model(
        **said | {"rope_scaling": scaling | {"type": RENAMED_TYPES[scaling["type"]]}}
    )
    return renamed


def _load_weights(spec: ModelSpec, config: PretrainedConfig, **settings: object) -> PreTrainedModel:
    from_pretrained: Any = auto_class(config).from_pretrained

    def read() -> Any:
        return from_pretrained(
            directory(spec),
            config=config,
            device_map=spec.device_map,
            use_safetensors=None if spec.allow_pickle or spec.gguf_file else True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, in one line
            adapter_kwargs={"subfolder": NOWHERE},
            **_source(spec),
            **settings,
        )

    with without_report():
        model, report = _reading(spec, "weights", read)
    check_report(spec.name, report)
    folder = directory(spec)
    has_adapter = spec.gguf_file is None and (folder / CONFIG).is_file()
    return merged(spec.name, model, folder) if has_adapter else model


def _detach_from_files(model: PreTrainedModel) -> None:
    """Copy weights: read in their own precision they are pages of their file, and change when it is written to."""
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.device.type == "cpu":
            tensor.data = tensor.data.clone()


def _check_causal(spec: ModelSpec, config: PretrainedConfig) -> None:
    saved = architectures(config)
    brings_its_own = spec.trust_remote_code and "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    made = known_classes(config)
    known = bool(made) and (not saved or any(name in made or GENERATIVE.search(name) for name in saved))
    if not (known or brings_its_own) or getattr(config, "is_encoder_decoder", False):
        given = ", ".join(saved) or config.model_type
        raise UserError(f"model {spec.name} is no causal language model, got {given}.")


def _source(spec: ModelSpec) -> dict[str, Any]:
    gguf = {} if spec.gguf_file is None else {"gguf_file": spec.gguf_file}
    return {**gguf, "trust_remote_code": spec.trust_remote_code, "local_files_only": True}


@contextmanager
def _alone(spec: ModelSpec) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Where a tokenizer is read from, and how; for a GGUF file a folder that holds nothing else.

    Transformers mixes the file's tokenizer with files of another one that lie beside it, and loses BOS and EOS.
    """
    if spec.gguf_file is None:
        yield directory(spec), _source(spec)
        return
    file = (directory(spec) / spec.gguf_file).resolve()
    with TemporaryDirectory() as folder:
        (Path(folder) / file.name).symlink_to(file)
        yield Path(folder), _source(spec) | {"gguf_file": file.name}


def _reading(spec: ModelSpec, what: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except (UserError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a file can be wrong in any way
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = " ".join(lines) if lines[0].rstrip().endswith(":") else lines[0]
        if "trust_remote_code" in str(error):
            reason = "it brings Python code of its own; model.trust_remote_code=true runs it."
        raise UserError(f"model {spec.name}: cannot read its {what} from {directory(spec)}: {reason}") from error
