"""Encodings added to the input embedding."""

import math

import torch
from torch import Tensor, nn

from harness.methods.encoding.modules.base import EncodingModule
from harness.methods.encoding.modules.positions import Places


class SinusoidalTable(EncodingModule):
    """sqrt(hidden size) x embedding + [sin | cos](position x inv_freq)."""

    def __init__(self, places: Places, hidden_size: int) -> None:
        super().__init__(places)
        self.inv_freq = tuple(10_000.0 ** (-2 * k / hidden_size) for k in range(hidden_size // 2))

    def tables(self, positions: Tensor) -> Tensor:
        """Sines and cosines, float32 (rows or 1, length, hidden size)."""
        inv_freq = torch.tensor(self.inv_freq, dtype=torch.float64, device=positions.device)
        angles = positions[..., None] * inv_freq
        return torch.cat((angles.sin(), angles.cos()), dim=-1).float()

    def embed(self, hidden: Tensor, prepared: Tensor) -> Tensor:
        """(rows, length, hidden size), scaled up, as the table would drown a small embedding."""
        return hidden * math.sqrt(hidden.shape[-1]) + prepared.to(hidden.dtype)


class LearnedTable(EncodingModule):
    """Embedding + a learned row for each position; between rows they are interpolated."""

    def __init__(self, places: Places, rows: int, hidden_size: int) -> None:
        super().__init__(places)
        self.table = nn.Embedding(rows, hidden_size)

    def tables(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """The row at or below each position, and how far the position lies towards the next; (rows or 1, length)."""
        lower = positions.floor()
        return lower.long(), (positions - lower).float()

    def embed(self, hidden: Tensor, prepared: tuple[Tensor, Tensor]) -> Tensor:
        """(rows, length, hidden size); the last row of the table also stands for what would follow it."""
        lower, share = prepared
        rows = self.table(lower)
        if self.stretch != 1:
            upper = self.table((lower + 1).clamp(max=self.table.num_embeddings - 1))
            rows = torch.lerp(rows, upper, share[..., None].to(rows.dtype))
        return hidden + rows.to(hidden.dtype)
