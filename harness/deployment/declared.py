"""What a file says of rotations: a checkpoint's config.json, overrides for vLLM or SGLang, or a GGUF file."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.deployment import gguf_file
from harness.deployment.engine_words import in_common_words
from harness.deployment.settings import RopeSettings
from harness.errors import UserError
from harness.models.checkpoint.families import FULL_ATTENTION, LATENT_ROTARY_DIM

Fields = Mapping[str, object]
THETA = ("rope_theta", "rotary_emb_base", "rope_base")  # names of the base beside the rope parameters
PARTIAL = ("partial_rotary_factor", "rotary_pct", "rotary_emb_fraction")


@dataclass(frozen=True)
class Declared:
    """What is declared, as it stands in the file."""

    kind: str  # config | GGUF
    rope: Fields  # the rope parameters of the layers that see everything
    rope_theta: float
    rotary_dim: int | None  # None: the file does not say
    max_position_embeddings: int | None  # tokens; None: the file does not say
    beside: Fields = field(default_factory=dict)  # the text configuration around it, or all keys of a GGUF
    doubled: tuple[str, ...] = ()  # where a scaling stands a second time, in words

    @property
    def model_type(self) -> str:
        """The family, or the architecture of a GGUF; empty: the file does not say."""
        return str(self.beside.get("model_type") or self.beside.get(gguf_file.ARCHITECTURE) or "")

    @property
    def original(self) -> int | None:
        """The original length as declared, in tokens; None: it is not."""
        given = self.rope.get("original_max_position_embeddings", self.beside.get("original_max_position_embeddings"))
        return int(given) if isinstance(given, int | float) else None

    def number(self, name: str) -> float | None:
        """A rope parameter that is a number; None where there is none."""
        value = self.rope.get(name)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def settings(self) -> RopeSettings:
        """In transformers' terms. Raises UserError for what is no setting."""
        original = {} if self.original is None else {"original_max_position_embeddings": self.original}
        return in_common_words({**self.rope, **original}, self.rope_theta, self.rotary_dim)


def read(path: Path) -> Declared:
    """What a file declares, or a folder's config.json. Raises UserError where nothing is said of rotations."""
    file = path / "config.json" if os.path.isdir(path) else path
    if not os.path.isfile(file):
        raise UserError(f"config must be a config.json, a folder with one, or a GGUF file, got {path}: no such file.")
    if file.suffix == ".gguf":
        return _of_gguf(file)
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} is not JSON: {error}.") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} must hold a JSON object, got a {type(content).__name__}.")
    return of_config(content, str(file))


def of_config(content: Fields, name: str = "config") -> Declared:
    """What a configuration or a set of overrides declares."""
    text = _text(content)
    found = {key: text.get(key) for key in ("rope_scaling", "rope_parameters")}
    given = {key: _main(value) for key, value in found.items() if isinstance(value, dict) and value}
    theta = next((value for key in THETA if isinstance(value := text.get(key), int | float)), None)
    if not given and theta is None:
        raise UserError(
            f"{name} says nothing of rotations: it has neither rope_parameters, rope_scaling nor rope_theta."
        )
    rope = next(iter(given.values()), {})  # transformers reads rope_scaling where there is one
    own = rope.get("rope_theta")
    maximum = text.get("max_position_embeddings")
    return Declared(
        "config",
        rope,
        float(own if isinstance(own, int | float) else theta or 10_000.0),
        _rotary_dim(text, rope),
        maximum if isinstance(maximum, int) else None,
        text,
        _both(given),
    )


def _text(content: Fields) -> Fields:
    """The part of a configuration that describes the language model."""
    own = {"rope_parameters", "rope_scaling", *THETA}
    inner = (value for name, value in content.items() if name.endswith("config") and isinstance(value, dict))
    return content if own & content.keys() else next((value for value in inner if own & value.keys()), content)


def _main(rope: Fields) -> Fields:
    """Of parameters by layer type, those of the layers that see everything."""
    nested = [value for value in rope.values() if isinstance(value, dict)]
    full = rope.get(FULL_ATTENTION)
    return full if isinstance(full, dict) else nested[0] if nested else rope


def _both(given: Mapping[str, Fields]) -> tuple[str, ...]:
    scaled = {key: rope for key, rope in given.items() if rope.get("rope_type", rope.get("type")) != "default"}
    shared = ("factor", "original_max_position_embeddings")
    if len(scaled) < 2 or len({tuple(rope.get(name) for name in shared) for rope in scaled.values()}) == 1:
        return ()
    phrases = (f"{key} has factor {rope.get('factor')}" for key, rope in scaled.items())
    return (f"{' and '.join(phrases)}: transformers reads rope_scaling alone, other engines one or the other.",)


def _rotary_dim(text: Fields, rope: Fields) -> int | None:
    latent = text.get(LATENT_ROTARY_DIM)
    if isinstance(latent, int):
        return latent
    width, heads, head_dim = text.get("hidden_size"), text.get("num_attention_heads"), text.get("head_dim")
    if not isinstance(head_dim, int):
        if not isinstance(width, int) or not isinstance(heads, int):
            factors = rope.get("long_factor")
            return 2 * len(factors) if isinstance(factors, list) else None
        head_dim = width // heads
    shares = (place.get(key) for place in (rope, text) for key in PARTIAL)
    share = next((value for value in shares if isinstance(value, int | float)), 1.0)
    return int(head_dim * share)


# GGUF ----------------------------------------------------------------------------------------------------------------


def _of_gguf(file: Path) -> Declared:
    reader = gguf_file.open_file(file)
    keys = gguf_file.metadata(reader)
    tensors = {tensor.name: tensor.data.tolist() for tensor in reader.tensors if tensor.name.startswith("rope_fact")}
    tensors |= {t.name: t.data.tolist() for t in reader.tensors if t.name == gguf_file.TENSOR}
    return of_gguf(keys, tensors)


def of_gguf(keys: Fields, tensors: Mapping[str, list[float]]) -> Declared:
    """What the metadata of a GGUF file and its tensors on rotations (float32, one number a frequency) declare."""
    arch = keys.get(gguf_file.ARCHITECTURE)

    def value(name: str) -> float | None:
        found = keys.get(f"{arch}.{name}")
        return float(found) if isinstance(found, int | float) else None

    dims, heads, width = value("rope.dimension_count"), value("attention.head_count"), value("embedding_length")
    factor, older = value("rope.scaling.factor"), value("rope.scale_linear")
    kind = str(keys.get(f"{arch}.rope.scaling.type") or ("linear" if factor or older else "none"))
    rope, doubled = gguf_file.rope_of(kind, factor or older, value, tensors)
    if factor and older:
        doubled += (f"rope.scaling.factor {factor:g} and rope.scale_linear {older:g} both stand in the file.",)
    length = value("context_length")
    return Declared(
        "GGUF",
        rope,
        value("rope.freq_base") or 10_000.0,
        int(dims) if dims else int(width / heads) if width and heads else None,
        int(length) if length else None,
        keys,
        doubled,
    )
