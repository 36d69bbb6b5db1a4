"""Models that keep a table of sines and cosines in every attention layer (GPT-J, CodeGen)."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from harness.errors import UserError
from harness.methods.base import RopeFrequencies, RopeGeometry
from harness.models.checkpoint.families import SINUSOID_TABLE
from harness.models.checkpoint.geometry import layer_geometry, text_config
from harness.models.installed import Installed
from harness.models.parts import CausalLM
from harness.models.rotary.angles import Angles
from harness.models.rotary.modules import Wanted
from harness.models.swap import swapped


@dataclass(frozen=True)
class SinusoidTables:
    """The tables of all attention layers, which hold the same: (positions, rotary_dim), sines before cosines."""

    path: str  # of the first layer
    modules: tuple[nn.Module, ...]
    config: PretrainedConfig

    @property
    def layer_types(self) -> list[str | None]:
        """One set of frequencies for all layers."""
        return [None]

    def geometry(self, layer_type: str | None, trained: int | None) -> RopeGeometry:
        """The geometry that the tables were made with; `trained` (tokens) overrides the declared length."""
        return layer_geometry(self.config, layer_type, trained)

    def reaches(self, length: int) -> bool:
        """Whether the model's own tables have a row for every position of a window."""
        return length <= len(getattr(self.modules[0], SINUSOID_TABLE))

    @contextmanager
    def rotated(self, wanted: Wanted, length: int) -> Iterator[tuple[Installed, ...]]:
        """Until the block ends, all layers look up `length` positions in one table of the frequencies wanted.

        What every layer then holds is compared with them; the block is given the frequencies.
        """
        geometry, sets = wanted[None]
        if len(sets) > 1:
            raise UserError(f"{self.config.model_type} looks rotations up in tables that all rows of a batch share.")
        own = getattr(self.modules[0], SINUSOID_TABLE)
        (angles,) = Angles.of(geometry, sets, own.device)(torch.arange(length, device=own.device)[None])
        table = torch.cat((angles.sin(), angles.cos()), dim=-1) * sets[0].attention_scaling
        with ExitStack() as stack:
            for module in self.modules:
                stack.enter_context(swapped(module, SINUSOID_TABLE, table.to(own.dtype)))
            for module in self.modules:
                assert _explains(sets[0], geometry, getattr(module, SINUSOID_TABLE)), self.path
            yield (Installed(self.path, None, *sets[0][:3]),)

    @contextmanager
    def stateless(self) -> Iterator[None]:
        """Tables keep no state."""
        yield


def sinusoid_tables(model: CausalLM) -> list[SinusoidTables]:
    """The model's tables as a list of one; [] where it has none."""
    text = text_config(model.config)
    layers = {path: module for path, module in model.named_modules() if _holds_table(module)}
    return [SinusoidTables(next(iter(layers)), tuple(layers.values()), text)] if layers else []


def _explains(frequencies: RopeFrequencies, geometry: RopeGeometry, table: Tensor) -> bool:
    """Whether a table (positions, rotary_dim) rotates by these frequencies, to its rounding, where they begin."""
    position = min(max(frequencies.unscaled_prefix, 1), len(table) - 1)
    inv_freq = frequencies.inv_freq if position >= frequencies.unscaled_prefix else geometry.inv_freq
    expected = frequencies.attention_scaling * np.exp(1j * position * inv_freq)
    sin, cos = table[position].double().cpu().numpy().reshape(2, -1)
    off = np.maximum(np.abs(cos - expected.real), np.abs(sin - expected.imag)).max()
    return bool(off <= frequencies.attention_scaling * torch.finfo(table.dtype).eps)


def _holds_table(module: nn.Module) -> bool:
    return any(name == SINUSOID_TABLE for name, _ in module.named_buffers(recurse=False))
