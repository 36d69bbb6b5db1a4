"""Encodings added to the scores. Distances are clamped at 0: keys ahead are masked anyway."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import linear

from harness.methods.encoding.modules.base import Block, EncodingModule, distances

LEAST = 1e-2  # of Kerple's parameters


class Slopes(EncodingModule):
    """ALiBi."""

    blockwise = True

    def __init__(self, slopes: NDArray[np.float64]) -> None:
        super().__init__()
        self.slopes = tuple(slopes.tolist())

    def bias(self, prepared: Tensor, block: Block, layer: int) -> Tensor:
        """Minus slope times distance, (heads, queries, keys)."""
        slopes = torch.tensor(self.slopes, device=prepared.device)
        return -slopes[:, None, None] * distances(prepared, block).float()


class T5(EncodingModule):
    """T5's buckets; one table for all layers."""

    blockwise = True

    def __init__(self, edges: Sequence[int], buckets: int, num_heads: int) -> None:
        super().__init__()
        self.edges = tuple(edges)
        self.table = nn.Embedding(buckets, num_heads)

    def bias(self, prepared: Tensor, block: Block, layer: int) -> Tensor:
        """The bias of each distance's bucket, (heads, queries, keys)."""
        edges = torch.tensor(self.edges, device=prepared.device)
        bucket = torch.bucketize(distances(prepared, block).long(), edges, right=True)
        return self.table(bucket).permute(2, 0, 1)


class Kernel(EncodingModule):
    """Kerple, "log" or "power"."""

    blockwise = True

    def __init__(self, form: str, num_layers: int, num_heads: int) -> None:
        super().__init__()
        self.form = form
        self.scale = nn.Parameter(torch.empty(num_layers, num_heads))  # p
        self.rate = nn.Parameter(torch.empty(num_layers, num_heads))  # a

    def reset_parameters(self) -> None:
        """p uniform in (0, 2), a uniform in (0, 1)."""
        nn.init.uniform_(self.scale, 0, 2)
        nn.init.uniform_(self.rate, 0, 1)

    def bias(self, prepared: Tensor, block: Block, layer: int) -> Tensor:
        """Minus the kernel of the distance, (heads, queries, keys)."""
        r = distances(prepared, block).float().clamp(min=0)
        p = self.scale[layer].float().clamp(min=LEAST)[:, None, None]
        a = self.rate[layer].float().clamp(LEAST, None if self.form == "log" else 2)[:, None, None]
        if self.form == "log":
            return -p * (1 + a * r).log()
        return -p * torch.where(r > 0, r.clamp(min=1) ** a, 0.0)


class ProgressiveInterpolation(EncodingModule):
    """FIRE."""

    blockwise = True

    def __init__(self, width: int, num_layers: int, num_heads: int, trained: int) -> None:
        super().__init__()
        self.trained = trained
        self.rate = nn.Parameter(torch.empty(num_layers))  # c
        self.threshold = nn.Parameter(torch.empty(num_layers))  # L / trained
        self.inner = nn.ModuleList(nn.Linear(1, width) for _ in range(num_layers))
        self.outer = nn.ModuleList(nn.Linear(width, num_heads) for _ in range(num_layers))

    def reset_parameters(self) -> None:
        """c = 0.1, L the trained length; the function as torch draws linear layers."""
        nn.init.constant_(self.rate, 0.1)
        nn.init.ones_(self.threshold)

    def bias(self, prepared: Tensor, block: Block, layer: int) -> Tensor:
        """f of log distance over log position, (heads, queries, keys)."""
        c, least = self.rate[layer].float().abs(), (self.threshold[layer].float() * self.trained).abs()
        near = (c * distances(prepared, block).float().clamp(min=0) + 1).log()
        far = (c * prepared[0, block.begin : block.end, None].float().maximum(least) + 1).log()
        share = (near / (far + 1e-6))[..., None]
        found = _float_linear(_float_linear(share, self.inner[layer]).relu(), self.outer[layer])
        return found.permute(2, 0, 1)


def _float_linear(states: Tensor, layer: nn.Module) -> Tensor:
    """The layer in float32 whatever its weights are kept in: a bias reaches the scores in float32."""
    assert isinstance(layer, nn.Linear)
    return linear(states, layer.weight.float(), layer.bias.float())
