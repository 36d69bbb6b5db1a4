"""The model that is to be deployed, as far as settings depend on it, and where in its configuration they lie."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from harness.deployment import gguf_file
from harness.deployment.settings import Parameters, RopeSettings
from harness.errors import UserError
from harness.methods.base import RopeGeometry
from harness.models.checkpoint.families import LATENT_ROTARY_DIM, WINDOW_FIELDS
from harness.models.checkpoint.files import directory
from harness.models.checkpoint.geometry import (
    geometry,
    has_rope,
    layer_types,
    main_layer_type,
    no_rotary,
    rope_parameters,
    text_config,
)
from harness.models.checkpoint.load import load_config
from harness.models.checkpoint.sliding_window import sees_everything, set_window
from harness.models.checkpoint.spec import ModelSpec

ORIGINAL = "original_max_position_embeddings"
_QUERY_SCALE = "llama_4_scaling_beta"  # of Ministral 3 and Mistral 4, counted in original lengths
_SCALING = {f.name for f in fields(RopeSettings)} | {"type"}


@dataclass(frozen=True)
class Target:
    """A model and the length that it is to reach."""

    model: str  # as one types it: path or hub id
    model_type: str
    geometry: RopeGeometry
    ctx: int  # tokens
    declared: Mapping[str | None, Mapping[str, Any]] = field(default_factory=dict)  # rope parameters by layer type
    main: str | None = None  # the layer type that is scaled
    section: str | None = None  # of the configuration, where the language model is a part of it
    windows: Mapping[str, int] = field(default_factory=dict)  # model.sliding_window, by its names in the configuration
    all_rotate: bool = True  # every channel of a head
    is_latent: bool = False  # multi-latent attention: mscale_all_dim changes its softmax scale, too
    architecture: str | None = None  # of the GGUF file, in llama.cpp's words
    names_original: bool = False  # the configuration has original_max_position_embeddings of its own (Phi-3)

    @classmethod
    def of(cls, spec: ModelSpec, ctx: int) -> Self:
        """Of a checkpoint; UserError where it has no rotary embedding."""
        config = load_config(spec)
        text = text_config(config)
        if not has_rope(text):
            raise no_rotary(text)
        if geometry(config, spec.original_max_position_embeddings).resting:
            raise UserError(
                f"export: {text.model_type} rotates a share of its pairs (rope type proportional); no engine takes a "
                "scaling of them, so there are no settings to write."
            )
        kinds = layer_types(text)
        windows = {} if isinstance(spec.sliding_window, str) else _windows(config, spec.sliding_window)
        if len(kinds) > 1 and sees_everything(config):
            raise UserError(
                "export: model.sliding_window=null scales local layers as well, each on a base of its own: "
                f"{text.model_type} cannot be exported so."
            )
        has_parameters = bool(getattr(text, "rope_parameters", None))
        return cls(
            model=spec.path or str(directory(spec)),
            model_type=text.model_type,
            geometry=geometry(config, spec.original_max_position_embeddings),
            ctx=ctx,
            declared={kind: rope_parameters(text, kind) for kind in kinds} if has_parameters else {},
            main=main_layer_type(text),
            section=_section(config, text),
            windows=windows,
            all_rotate=_all_rotate(text, kinds),
            is_latent=hasattr(text, LATENT_ROTARY_DIM),
            architecture=gguf_file.architecture(directory(spec) / spec.gguf_file) if spec.gguf_file else None,
            names_original=hasattr(text, "original_max_position_embeddings"),
        )

    def rope_parameters(self, parameters: Parameters) -> dict[str, Any]:
        """The configuration's `rope_parameters` with these in place of its scaling; local layers are left unscaled."""
        made = {kind: self._of_layers(kind, parameters) for kind in self.declared}
        return made[None] if None in made else {str(kind): of_layers for kind, of_layers in made.items()}

    def overrides(self, parameters: Parameters, settings: RopeSettings) -> dict[str, Any]:
        """What changes in the configuration, as JSON, `parameters` being the settings in an engine's words."""
        changed: dict[str, Any] = {
            "max_position_embeddings": self.max_positions(settings),
            "rope_parameters": self.rope_parameters(parameters),
            **self.windows,
        }
        if self.names_original:
            changed["original_max_position_embeddings"] = self.geometry.original_max_position_embeddings
        return {self.section: changed} if self.section else changed

    def max_positions(self, settings: RopeSettings) -> int:
        """`max_position_embeddings` to set, in tokens.

        Under linear and dynamic scaling vLLM and SGLang multiply it by the factor, and transformers reads it as the
        trained length of dynamic; under yarn transformers before 5.0 divides it by the original length for the factor.
        """
        if settings.rope_type == "dynamic":
            return self.geometry.original_max_position_embeddings
        if settings.rope_type == "linear" and settings.factor:
            return math.ceil(self.ctx / settings.factor - 1e-6)
        if settings.rope_type == "yarn" and settings.factor and settings.original_max_position_embeddings:
            return max(self.ctx, round(settings.original_max_position_embeddings * settings.factor))
        return self.ctx

    def _of_layers(self, kind: str | None, parameters: Parameters) -> dict[str, Any]:
        own = {name: value for name, value in self.declared[kind].items() if name not in _SCALING}
        if kind == self.main:
            kept = {ORIGINAL: self.geometry.original_max_position_embeddings} if _QUERY_SCALE in own else {}
            return {**own, **kept, **parameters}
        return {**own, "rope_type": "default", "rope_theta": self.declared[kind].get("rope_theta", 10_000.0)}


def ctx_of(method_factor: float | None, trained: int, ctx: int | None) -> int:
    """The length to deploy at: as given, otherwise what the factor reaches. UserError where neither is known."""
    if ctx is not None:
        return ctx
    if method_factor is None:
        raise UserError("export: give ctx=... (tokens), or a method with method.factor=...: neither says how far.")
    return round(method_factor * trained)


def _windows(config: Any, tokens: int | None) -> dict[str, int]:
    """Sets the attention window in the configuration; its fields and their values."""
    set_window(config, tokens)
    text = text_config(config)
    return {name: getattr(text, name) for name in WINDOW_FIELDS.values() if getattr(text, name, None) is not None}


def _all_rotate(text: Any, kinds: list[str | None]) -> bool:
    latent = hasattr(text, LATENT_ROTARY_DIM)
    return not latent and all(rope_parameters(text, kind).get("partial_rotary_factor", 1.0) == 1.0 for kind in kinds)


def _section(config: Any, text: Any) -> str | None:
    if config is text:
        return None
    return next(name for name, value in vars(config).items() if value is text)
