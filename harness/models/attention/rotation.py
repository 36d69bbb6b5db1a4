"""How a layer rotates its queries and keys: which pairs of channels, by which frequencies."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class LayerRotation:
    """How a layer rotates its queries and keys at position p: pair m by the angle p x inv_freq[m]."""

    inv_freq: tuple[float, ...]  # radians a token
    first: int  # first rotary channel of a head
    interleaved: bool  # pairs (2m, 2m + 1) of the rotary channels, else (m, m + their number / 2)
    scaling: float = 1.0  # multiplies cosines and sines
    resting: int = 0  # pairs after those that rotate, which stand still: they part first halves from second ones

    def table(self, positions: NDArray[np.float64], like: Tensor) -> "Table":
        """Cosines and sines of the positions (tokens), from float64 angles, in float32 or better."""
        angles = torch.from_numpy(np.outer(positions, self.inv_freq)).to(like.device)
        dtype = torch.promote_types(like.dtype, torch.float32)
        cos, sin = angles.cos() * self.scaling, angles.sin() * self.scaling
        return Table(cos.to(dtype), sin.to(dtype), self.first, self.interleaved, self.resting)


@dataclass(frozen=True)
class Table:
    """Cosines and sines, (length, pairs) each, and the channels that they rotate."""

    cos: Tensor
    sin: Tensor
    first: int
    interleaved: bool
    resting: int = 0

    def __getitem__(self, rows: slice) -> "Table":
        return replace(self, cos=self.cos[rows], sin=self.sin[rows])

    def rotate(self, states: Tensor) -> Tensor:
        """Queries or keys (batch, heads, length, head_dim) rotated, computed in the tables' dtype and rounded once.

        Each half is written where it belongs as it is computed: long sequences are bound by the memory's speed.
        """
        rotated = torch.empty_like(states)
        for still in self._still(self.cos.shape[-1]):
            rotated[..., still] = states[..., still]
        (a, b), (rotated_a, rotated_b) = self._halves(states), self._halves(rotated)
        torch.addcmul(a * self.cos, b, self.sin, value=-1, out=rotated_a)
        torch.addcmul(b * self.cos, a, self.sin, out=rotated_b)
        return rotated

    def _halves(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """First and second channels of all pairs, as views."""
        pairs = self.cos.shape[-1]
        if self.interleaved:
            rotary = states[..., self.first : self.first + 2 * pairs]
            return rotary[..., 0::2], rotary[..., 1::2]
        second = self.first + pairs + self.resting
        return states[..., self.first : self.first + pairs], states[..., second : second + pairs]

    def _still(self, pairs: int) -> list[slice]:
        """The channels of a head that do not rotate."""
        before, after = slice(self.first), slice(self.first + 2 * pairs, None)
        if self.interleaved or not self.resting:
            return [before, after]
        middle, second = self.first + pairs, self.first + pairs + self.resting
        return [before, slice(middle, second), slice(second + pairs, None)]
