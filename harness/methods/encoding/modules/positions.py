"""Which positions the tokens of a window are said to have: counted, shifted, or drawn."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class Places(Protocol):
    """Positions of windows of tokens."""

    def __call__(self, rows: int, length: int, training: bool, device: torch.device) -> Tensor:
        """Float64 (rows or 1, length), ascending; draws come from torch's generator in training."""
        ...


@dataclass(frozen=True)
class Counted:
    """0, 1, 2, ..."""

    def __call__(self, rows: int, length: int, training: bool, device: torch.device) -> Tensor:
        """(1, length)."""
        return torch.arange(length, dtype=torch.float64, device=device)[None]


@dataclass(frozen=True)
class Shifted:
    """k, k + 1, ..., k drawn for each sequence from 0 .. shifts - 1 in training, `evaluation` else."""

    shifts: int
    evaluation: int

    def __call__(self, rows: int, length: int, training: bool, device: torch.device) -> Tensor:
        """(rows, length) in training, (1, length) else."""
        counted = torch.arange(length, dtype=torch.float64, device=device)[None]
        return counted + (torch.randint(self.shifts, (rows, 1), device=device) if training else self.evaluation)


@dataclass(frozen=True)
class Drawn:
    """A random subset of 0 .. reach - 1 in ascending order; in evaluation the same for every window of a length."""

    reach: int
    seed: int

    def __call__(self, rows: int, length: int, training: bool, device: torch.device) -> Tensor:
        """(rows, length) in training, (1, length) else."""
        if training:
            drawn = torch.rand(rows, self.reach, device=device).topk(length).indices
            return drawn.sort().values.double()
        fixed = np.random.default_rng([self.seed, length]).choice(self.reach, length, replace=False)
        return torch.from_numpy(np.sort(fixed)).double().to(device)[None]


@dataclass(frozen=True)
class DrawnFloats:
    """Independent uniform draws of [0, reach), ascending; in evaluation the same for every window of a length."""

    reach: int
    seed: int

    def __call__(self, rows: int, length: int, training: bool, device: torch.device) -> Tensor:
        """(rows, length) in training, (1, length) else."""
        if training:
            return (self.reach * torch.rand(rows, length, dtype=torch.float64, device=device)).sort().values
        fixed = np.random.default_rng([self.seed, length]).uniform(0, self.reach, length)
        return torch.from_numpy(np.sort(fixed)).to(device)[None]
