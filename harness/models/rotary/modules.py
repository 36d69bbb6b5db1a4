"""Rotary modules of a model: finding them, knowing their frequencies, standing in for their forward."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from harness.errors import UserError
from harness.methods.base import RopeFrequencies, RopeGeometry
from harness.models.checkpoint.families import OTHER_SENSES, PROPORTIONAL
from harness.models.checkpoint.geometry import layer_geometry, rope_parameters, text_config
from harness.models.checkpoint.layers import layer_config
from harness.models.installed import Installed
from harness.models.parts import CausalLM
from harness.models.rotary.angles import Angles, RotaryForward, rotated_by
from harness.models.rotary.layout import Rotation, ask, polar, probe
from harness.models.swap import swapped

BUFFER = "inv_freq"
Wanted = Mapping[str | None, tuple[RopeGeometry, Sequence[RopeFrequencies]]]  # by layer type: one or more sets


@dataclass(frozen=True)
class RotaryModule:
    """One module that hands out cosines and sines, with the configuration it was built from."""

    path: str
    module: nn.Module
    config: PretrainedConfig

    @property
    def layer_types(self) -> list[str | None]:
        """The layer types with frequencies of their own; [None] where there is one set."""
        names = [name for name, _ in self.module.named_buffers(recurse=False) if name.endswith(BUFFER)]
        kinds = [name.removesuffix(BUFFER).removesuffix("_") for name in names if "original" not in name]
        return [kind or None for kind in kinds]

    def frequencies(self, layer_type: str | None) -> Tensor:
        """The frequencies that the module holds at present, float32 (rotary_dim // 2,), radians a token."""
        held: Tensor = getattr(self.module, _prefixed(layer_type, BUFFER))
        return held

    def geometry(self, layer_type: str | None, trained: int | None) -> RopeGeometry:
        """The unscaled geometry of a layer type, checked against the module's own unscaled frequencies.

        `trained` (tokens) overrides the trained length that the checkpoint declares.
        """
        geometry = layer_geometry(self.config, layer_type, trained)
        own = self._unscaled(layer_type)
        rotating = np.zeros(0) if own is None else -np.sort(-own[own != 0])
        if rotating.shape != geometry.inv_freq.shape or not np.allclose(rotating, geometry.inv_freq, 1e-5, 0):
            raise UserError(
                f"{type(self.module).__name__}: its unscaled frequencies are not rope_theta^(-2i / rotary_dim); "
                "only method=native can run on it."
            )
        return geometry

    def reaches(self, length: int) -> bool:
        """Whether the module itself has rotations for windows of `length` tokens: always."""
        return True

    @contextmanager
    def rotated(self, wanted: Wanted, length: int) -> Iterator[tuple[Installed, ...]]:
        """Until the block ends, the module rotates by the frequencies wanted of each layer type, at any length.

        With several sets of them `harness.models.rotary.angles.rotated_by` says which rows of a batch take which.
        What is handed out is compared with them at once; the block is given what the module holds.
        """
        forwards = {kind: self._forward(kind, *wanted[kind]) for kind in self.layer_types}

        def forward(x: Tensor, position_ids: Tensor, layer_type: str | None = None) -> Rotation:
            return forwards[layer_type](x, position_ids)

        with swapped(self.module, "forward", forward):
            for kind, rotation in forwards.items():
                assert rotation.explains(self._handed_out(kind, rotation.probed_positions)), self.path
            yield tuple(Installed(self.path, kind, *held[:3]) for kind, r in forwards.items() for held in r.angles.sets)

    @contextmanager
    def stateless(self) -> Iterator[None]:
        """Until the block ends, the module forgets before every call what earlier windows left behind."""
        own_forward: Callable[..., Rotation] = self.module.forward

        def forward(*args: object, **kwargs: object) -> Rotation:
            self.reset()
            return own_forward(*args, **kwargs)

        with swapped(self.module, "forward", forward):
            yield
        self.reset()

    def reset(self) -> None:
        """Frequencies and cached length as at construction."""
        for kind in self.layer_types:
            original = getattr(self.module, _prefixed(kind, f"original_{BUFFER}"), None)
            if original is not None:  # a module without a copy never changes them
                setattr(self.module, _prefixed(kind, BUFFER), original.clone())
            for name in {_prefixed(kind, "max_seq_len_cached"), "max_seq_len_cached"} & set(vars(self.module)):
                setattr(self.module, name, self.module.original_max_seq_len)

    def _unscaled(self, layer_type: str | None) -> NDArray[np.float64] | None:
        """The frequencies that the module's own code gives a model without scaling; zeros where pairs rest."""
        default = getattr(self.module, "compute_default_rope_parameters", None)
        if default is None:
            return None
        config, declared = layer_config(self.config, layer_type), rope_parameters(self.config, layer_type)
        kind = {} if layer_type is None else {"layer_type": layer_type}
        own = default(config, **kind)[0]
        if declared.get("rope_type") == PROPORTIONAL:
            own = _by_factor_1(PROPORTIONAL, config, declared, layer_type)
        elif own.shape != self.frequencies(layer_type).shape:  # without a scaling its code makes no model (Mistral 4)
            own = _by_factor_1("linear", config, declared, layer_type)
        found: NDArray[np.float64] = own.double().cpu().numpy()
        return found

    def _forward(self, kind: str | None, geometry: RopeGeometry, sets: Sequence[RopeFrequencies]) -> RotaryForward:
        held, unscaled = self.frequencies(kind), self._unscaled(kind)
        assert unscaled is not None  # its geometry is known
        falling = torch.from_numpy(np.argsort(-unscaled, kind="stable")).to(held.device)  # Ernie 4.5 VL shuffles them
        return RotaryForward(probe(self.module, kind, held[falling]), Angles.of(geometry, sets, held.device))

    def _handed_out(self, kind: str | None, positions: Tensor) -> NDArray[np.complex128]:
        """Rotations (sets, channels) that the module hands out at a position of each set, (sets, 1)."""
        hidden = torch.zeros(len(positions), 1, 1, dtype=torch.float64, device=positions.device)
        with rotated_by(torch.arange(len(positions))):
            answer = ask(self.module.forward, hidden, positions, kind)
        return polar(answer)[:, 0].cpu().numpy()


def rotary_modules(model: CausalLM) -> list[RotaryModule]:
    """The rotary modules that text passes through; [] where the model has none."""
    text = text_config(model.config)
    return [
        RotaryModule(path, module, text_config(getattr(module, "config", text)))
        for path, module in model.named_modules()
        if _holds_frequencies(module) and not any(sense in path for sense in OTHER_SENSES)
    ]


def _holds_frequencies(module: nn.Module) -> bool:
    return any(name.endswith(BUFFER) for name, _ in module.named_buffers(recurse=False))


def _prefixed(layer_type: str | None, name: str) -> str:
    return name if layer_type is None else f"{layer_type}_{name}"


def _by_factor_1(
    rope_type: str, config: PretrainedConfig, declared: Mapping[str, Any], layer_type: str | None
) -> Tensor:
    """The frequencies that transformers gives a rope type at factor 1."""
    one, config = {**declared, "rope_type": rope_type, "factor": 1.0}, copy.copy(config)
    config.rope_parameters = one if layer_type is None else {**config.rope_parameters, layer_type: one}
    own: Tensor = ROPE_INIT_FUNCTIONS[rope_type](config, layer_type=layer_type)[0]
    return own
