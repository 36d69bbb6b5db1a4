"""Rotations by chosen frequencies, handed out as a rotary module would hand out its own."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.errors import UserError
from harness.methods.base import RopeFrequencies, RopeGeometry
from harness.models.layout import Layout, Rotation


@dataclass(frozen=True)
class Angles:
    """Angles of positions under chosen frequencies, all in float64."""

    inv_freq: Tensor  # (rotary_dim // 2,), radians a token
    unscaled: Tensor  # (rotary_dim // 2,): of positions below `prefix`
    prefix: int  # tokens

    @classmethod
    def of(cls, geometry: RopeGeometry, frequencies: RopeFrequencies, device: torch.device) -> "Angles":
        """Angles under `frequencies`; the geometry gives the unscaled ones of the prefix."""
        return cls(
            inv_freq=torch.tensor(frequencies.inv_freq, dtype=torch.float64, device=device),
            unscaled=torch.tensor(geometry.inv_freq, dtype=torch.float64, device=device),
            prefix=frequencies.unscaled_prefix,
        )

    def __call__(self, positions: Tensor) -> Tensor:
        """Radians, one more dimension than the positions: (..., rotary_dim // 2)."""
        angles = positions[..., None].double() * self.inv_freq
        if self.prefix == 0:
            return angles
        unscaled = positions[..., None].double() * self.unscaled
        return torch.where(positions[..., None] < self.prefix, unscaled, angles)


@dataclass(frozen=True)
class Turn:
    """A rotary module's forward with other frequencies: angles in float64, rounded once."""

    layout: Layout
    angles: Angles
    scaling: float  # multiplies cosines and sines of every position

    def __call__(self, hidden: Tensor, position_ids: Tensor) -> Rotation:
        """Rotations for positions (batch, length), of the device and dtype of the hidden states."""
        angles = self.angles(text_positions(position_ids).to(self.angles.inv_freq.device))
        return self.layout.rotation(angles, self.scaling, hidden)

    @property
    def probed_position(self) -> int:
        """The first position that turns by the scaled frequencies."""
        return max(1, self.angles.prefix)

    def explains(self, found: NDArray[np.complex128]) -> bool:
        """Whether rotations (channels,) found at the probed position are these, to 1e-6 of each angle."""
        channels = self.layout.channels.cpu().numpy()
        angles = self.probed_position * self.angles.inv_freq.cpu().numpy()[channels]
        off = np.abs(np.angle(found * np.exp(-1j * angles)))
        turned_right = np.all(off <= 1e-6 * np.minimum(angles, 1.0))
        return bool(turned_right) and math.isclose(np.abs(found).mean(), self.scaling, rel_tol=1e-6)


def text_positions(position_ids: Tensor) -> Tensor:
    """Positions (batch, length); of models with a position for time, height and width, the one all share."""
    if position_ids.ndim == 2:
        return position_ids
    if not bool((position_ids == position_ids[:1]).all()):
        raise UserError("Only text can be scored: its tokens have one position, these have several.")
    return position_ids[0]
