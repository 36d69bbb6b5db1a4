"""How a rotary module lays frequencies out over its output channels: found by asking it, not by knowing it."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from harness.errors import UserError

Rotation = Tensor | tuple[Tensor, Tensor]  # cos + i sin as one complex tensor, or (cos, sin)
PROBED_POSITIONS = (1, 2, 5)


@dataclass(frozen=True)
class Layout:
    """Where a rotary module puts which frequency, and in what type it hands cosines and sines out."""

    channels: Tensor  # (width,): for every output channel, the frequency that rotates it; one that rests: their number
    rests: bool  # whether any channel rests, and so keeps a cosine of 1 whatever the scaling
    is_complex: bool
    dtype: torch.dtype | None  # None: that of the hidden states

    def rotation(self, angles: Tensor, scaling: Tensor | float, hidden: Tensor) -> Rotation:
        """The module's output (batch, length, width) for angles (batch, length, frequencies) in float64, rounded once.

        `scaling`, a number or (batch, 1, 1), multiplies cosines and sines; the dtype of the hidden states is followed
        where the module does.
        """
        if self.is_complex:
            rotated = torch.polar(torch.ones_like(angles) * scaling, angles)
            return self.spread(rotated.to(torch.complex64), 1.0)
        dtype = self.dtype or hidden.dtype
        cos, sin = angles.cos() * scaling, angles.sin() * scaling
        return self.spread(cos.to(dtype), 1.0), self.spread(sin.to(dtype), 0.0)

    def spread(self, values: Tensor, at_rest: float) -> Tensor:
        """Values of frequencies (..., frequencies) over the output channels (..., width)."""
        return (pad(values, (0, 1), value=at_rest) if self.rests else values)[..., self.channels]


def polar(rotation: Rotation) -> Tensor:
    """A rotary module's output as one complex128 tensor cos + i sin, (batch, length, width)."""
    if isinstance(rotation, Tensor):
        return rotation.to(torch.complex128)
    cos, sin = rotation
    return torch.complex(cos.double(), sin.double())


def ask(forward: Callable[..., Rotation], hidden: Tensor, positions: Tensor, layer_type: str | None) -> Rotation:
    """What a rotary module hands out, (batch, length, width), for positions (batch, length).

    `layer_type` where it has several of them; device and dtype may follow `hidden`, whose shape does not matter.
    """
    return forward(hidden, positions) if layer_type is None else forward(hidden, positions, layer_type)


def probe(module: nn.Module, layer_type: str | None, own: Tensor) -> Layout:
    """The layout of a rotary module whose present frequencies are `own` (radians a token, all distinct but zeros).

    Raises UserError where its output is not a rotation by position x frequency.
    """
    forward = copy.deepcopy(module).forward  # asking may change a module's state
    hidden = torch.zeros(1, 1, 1, device=own.device)
    positions = torch.tensor([PROBED_POSITIONS], device=own.device)
    answer = ask(forward, hidden, positions, layer_type)
    rests, own = bool((own == 0).any()), own[own != 0]
    channels = _nearest(polar(answer)[0, 0].angle(), own.double(), rests, type(module).__name__)
    layout = Layout(
        channels=channels,
        rests=bool((channels == len(own)).any()),
        is_complex=isinstance(answer, Tensor),
        dtype=_fixed_dtype(ask(forward, hidden.bfloat16(), positions, layer_type)),
    )
    rotated = polar(answer)[..., layout.channels < len(own)]
    scaling = float(rotated.abs().mean())
    rebuilt = layout.rotation(positions[..., None].double() * own.double(), scaling, hidden)
    if not torch.allclose(polar(rebuilt), polar(answer), atol=1e-5, rtol=0):
        raise _not_understood(type(module).__name__)
    return layout


def _fixed_dtype(answer_in_bfloat16: Rotation) -> torch.dtype | None:
    first = answer_in_bfloat16 if isinstance(answer_in_bfloat16, Tensor) else answer_in_bfloat16[0]
    return None if first.dtype == torch.bfloat16 else first.dtype


def _nearest(angles: Tensor, own: Tensor, rests: bool, name: str) -> Tensor:
    distance, index = ((angles[:, None] - own).abs() / own).min(dim=-1)
    resting = (angles == 0) & rests
    if len(own.unique()) < len(own) or not bool(((distance < 1e-4) | resting).all()):
        raise _not_understood(name)
    return torch.where(resting, len(own), index)


def _not_understood(name: str) -> UserError:
    return UserError(f"{name} does not rotate its channels by position x frequency: only method=native can run on it.")
