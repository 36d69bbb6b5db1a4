"""Whether weights and configuration belong together: known from the headers of safetensors, before anything is read."""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from safetensors import safe_open
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from harness.errors import UserError, first_line
from harness.models.checkpoint.classes import auto_class
from harness.models.checkpoint.families import SPARE_WEIGHTS
from harness.models.checkpoint.files import directory
from harness.models.checkpoint.geometry import text_config
from harness.models.checkpoint.spec import ModelSpec
from harness.models.checkpoint.weights import tensor_files

log = logging.getLogger(__name__)
NAMED = 3  # tensors that a message names


def rows_of_embedding(spec: ModelSpec, config: PretrainedConfig) -> int:
    """How many token ids the model knows, its weights having been found to fit its configuration.

    Raises UserError where a configuration describes no model, and where the loader would make weights up, cut them or
    leave them out. Nothing is read but the headers of files; what other containers hold is seen when they are loaded.
    """
    model = _described(spec, config)
    if spec.gguf_file is None and not _is_quantized(config) and (files := _tensors(spec)):
        _check_declared(spec, model, files)
    embedding: Any = model.get_input_embeddings()
    return int(embedding.weight.shape[0])


def check_report(name: str, report: Mapping[str, Collection[Any]]) -> None:
    """Raise UserError unless the loader found all weights of a model, of its shapes, and no others.

    `report`: its loading info: `missing_keys`, `unexpected_keys`, `mismatched_keys` (name, shape there, shape wanted).
    """
    missing, mismatched = sorted(report["missing_keys"]), sorted(report["mismatched_keys"])
    spare = sorted(key for key in report["unexpected_keys"] if not SPARE_WEIGHTS.search(key))
    if missing:  # they would be random
        raise UserError(f"model {name}: {len(missing)} weights are not in the checkpoint, as {missing[0]}.")
    if mismatched:
        key, found, wanted = mismatched[0]
        raise UserError(
            f"model {name}: {len(mismatched)} weights have other shapes than the config says, as {key}: "
            f"{tuple(found)}, not {tuple(wanted)}."
        )
    if spare:
        raise UserError(
            f"model {name}: the checkpoint holds {len(spare)} weights that its config has no place for, as "
            f"{', '.join(spare[:NAMED])}: it would be evaluated without them."
        )


@contextmanager
def without_report() -> Iterator[None]:
    """Let the loader neither draw a bar nor log what it found as a table: `check_report` says it in one line."""
    disable_progress_bar()
    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(_nothing)
    try:
        yield
    finally:
        logger.removeFilter(_nothing)


def _nothing(record: logging.LogRecord) -> bool:
    return False


def _described(spec: ModelSpec, config: PretrainedConfig) -> PreTrainedModel:
    """The model without numbers. Raises UserError for a configuration that makes none."""
    text = text_config(config)
    pad, rows = getattr(text, "pad_token_id", None), getattr(text, "vocab_size", None)
    if isinstance(pad, int) and isinstance(rows, int) and not -rows <= pad < rows:
        raise UserError(f"model {spec.name}: pad_token_id must lie below the vocab_size of {rows}, got {pad}.")
    try:
        with torch.device("meta"):
            made: PreTrainedModel = auto_class(config).from_config(config, trust_remote_code=spec.trust_remote_code)
    except Exception as error:  # a configuration can be wrong in any way
        raise UserError(f"model {spec.name}: its config describes no model: {first_line(error)}") from error
    return made


def _is_quantized(config: PretrainedConfig) -> bool:
    return any(getattr(c, "quantization_config", None) for c in (config, text_config(config)))


class _Declared:
    """A tensor of which its shape is known; to the loader one that is still to be read."""

    def __init__(self, shape: Iterable[int]) -> None:
        self.tensor = torch.empty(tuple(shape), device="meta")

    def __getitem__(self, everything: object) -> "_Declared":
        return self

    def to(self, device: object = None, dtype: torch.dtype | None = None) -> torch.Tensor:
        return self.tensor.to(dtype=dtype)


def _tensors(spec: ModelSpec) -> dict[str, _Declared]:
    """The tensors of a checkpoint; none where it is not of safetensors. Raises UserError for a file that is damaged."""
    folder = directory(spec)
    found: dict[str, _Declared] = {}
    for file in tensor_files(spec.name, folder):
        if spec.allow_pickle and not file.is_file():
            return {}
        try:
            with safe_open(file, framework="pt") as opened:
                here = {key: _Declared(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118
        except Exception as error:  # SafetensorError, OSError, and those of its bindings
            raise UserError(f"model {spec.name}: cannot read its weights from {file}: {first_line(error)}") from error
        if twice := sorted(found.keys() & here.keys()):  # the loader takes the last one, whatever an index says
            raise UserError(
                f"model {spec.name}: {len(twice)} weights are in two files, as {twice[0]}: keep one of them."
            )
        found |= here
    return found


def _check_declared(spec: ModelSpec, model: PreTrainedModel, tensors: dict[str, _Declared]) -> None:
    """Let the loader itself, which renames and merges what older checkpoints hold, go over the names and shapes."""
    read: Any = type(model).from_pretrained
    try:
        with without_report():
            _, report = read(
                None, config=model.config, state_dict=tensors, dtype=torch.float32,
                output_loading_info=True, ignore_mismatched_sizes=True,
            )  # fmt: skip
    except Exception as error:  # what it does with real tensors only; it is seen when they are loaded
        log.debug("the weights of %s are looked at when they are loaded: %s", spec.name, first_line(error))
        return
    check_report(spec.name, report)
