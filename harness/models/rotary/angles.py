"""Rotations by chosen frequencies, handed out as a rotary module would hand out its own."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.errors import UserError
from harness.methods.base import RopeFrequencies, RopeGeometry
from harness.models.rotary.layout import Layout, Rotation

_sets: ContextVar[Tensor | None] = ContextVar("sets", default=None)


@contextmanager
def rotated_by(sets: Tensor | None) -> Iterator[None]:
    """Until the block ends, row r of a batch is rotated by `sets[r]` of the sets of frequencies that are installed.

    sets: (batch,) int64; None, as outside of any block: all rows are rotated by the first.
    """
    token = _sets.set(sets)
    try:
        yield
    finally:
        _sets.reset(token)


@dataclass(frozen=True)
class Angles:
    """Angles of positions under one or more sets of frequencies, all in float64."""

    inv_freq: Tensor  # (sets, rotary_dim // 2), radians a token
    unscaled: Tensor  # (rotary_dim // 2,): of positions below a set's prefix
    prefix: Tensor  # (sets,) tokens
    scaling: Tensor  # (sets,): multiplies cosines and sines of every position

    @classmethod
    def of(cls, geometry: RopeGeometry, sets: Sequence[RopeFrequencies], device: torch.device) -> "Angles":
        """Angles under each of `sets`; the geometry gives the unscaled ones of the prefix."""

        def tensor(values: object) -> Tensor:
            return torch.from_numpy(np.array(values, dtype=np.float64)).to(device)

        inv_freq, scaling, prefix = (tensor(values) for values in zip(*(one[:3] for one in sets), strict=True))
        return cls(inv_freq, tensor(geometry.inv_freq), prefix, scaling)

    @property
    def sets(self) -> list[RopeFrequencies]:
        """The sets of frequencies that are held, inv_freq (rotary_dim // 2,) each."""
        held = zip(self.inv_freq.cpu().numpy(), self.scaling.tolist(), self.prefix.tolist(), strict=True)
        return [RopeFrequencies(inv_freq, scaling, int(prefix)) for inv_freq, scaling, prefix in held]

    def __call__(self, positions: Tensor) -> Tensor:
        """Radians (rows, length, rotary_dim // 2) of positions (rows or 1, length), each row under its set."""
        rows, at = self.rows, positions[..., None].double()
        angles = at * self.inv_freq[rows][:, None]
        return torch.where(at < self.prefix[rows][:, None, None], at * self.unscaled, angles)

    @property
    def rows(self) -> Tensor | slice:
        """The set of each row, as an index (rows,) into the sets."""
        held = _sets.get()
        return slice(0, 1) if held is None else held.to(self.inv_freq.device)


@dataclass(frozen=True)
class RotaryForward:
    """A rotary module's forward with other frequencies: angles in float64, rounded once."""

    layout: Layout
    angles: Angles

    def __call__(self, hidden: Tensor, position_ids: Tensor) -> Rotation:
        """Rotations (batch, length, width) for positions (batch, length), of the hidden states' device and dtype."""
        angles = self.angles(text_positions(position_ids).to(self.angles.inv_freq.device))
        return self.layout.rotation(angles, self.angles.scaling[self.angles.rows][:, None, None], hidden)

    @property
    def probed_positions(self) -> Tensor:
        """The first position that each set rotates by its scaled frequencies, int64 (sets, 1)."""
        return self.angles.prefix.clamp(min=1).long()[:, None]

    def explains(self, found: NDArray[np.complex128]) -> bool:
        """Whether rotations (sets, channels) found at the probed positions are these, to 1e-6 of each angle."""
        held = self.probed_positions * self.angles.inv_freq
        angles = self.layout.spread(held, 0.0).cpu().numpy()
        off = np.abs(np.angle(found * np.exp(-1j * angles)))
        rotated_right = np.all(off <= 1e-6 * np.minimum(angles, 1.0))
        rotating = (self.layout.channels < held.shape[-1]).cpu().numpy()
        scaled_right = np.allclose(np.abs(found[:, rotating]).mean(axis=1), self.angles.scaling.cpu(), 1e-6, 0)
        return bool(rotated_right) and scaled_right and np.allclose(found[:, ~rotating], 1, 0, 0)


def text_positions(position_ids: Tensor) -> Tensor:
    """Positions (batch, length); of models with a position for time, height and width, the one all share."""
    if position_ids.ndim == 2:
        return position_ids
    if not bool((position_ids == position_ids[:1]).all()):
        raise UserError("Only text can be scored: its tokens have one position, these have several.")
    return position_ids[0]
