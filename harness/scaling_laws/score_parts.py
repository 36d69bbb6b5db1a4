"""Attention scores of a rotary model, split into what its well-trained and its half-trained channels contribute.

Channels below the critical dimension completed a turn within the trained length, the others did not (Liu et al. 2023,
arXiv:2310.05209, section 3.2). Beyond the trained length the second part meets angles it never met in training.
"""

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from harness.methods.base import Method, RopeGeometry
from harness.models.attention.route import present, routed
from harness.models.install import applied
from harness.models.parts import CausalLM
from harness.results.units import position_edges
from harness.scaling_laws import bounds

PARTS = ("below", "above")  # the critical dimension
SHARES = (0.1, 0.5, 0.9)


@torch.no_grad()
def score_parts(model: CausalLM, ids: Tensor, method: Method, geometry: RopeGeometry) -> pd.DataFrame:
    """Distribution of both parts of the scores q_i . k_j / sqrt(head_dim), by distance i - j.

    ids: (length,). Rotary channels m and m + rotary_dim / 2 must be a pair, as in Llama. The critical dimension is that
    of the geometry's own frequencies, whatever the method. One row a part and bin of distances [begin, end):
    `part`, `begin`, `end`, `mean`, `std` over all queries, heads and layers, and the quantiles `q10`, `q50`, `q90` of
    the means of single heads.
    """
    seen = bounds.critical_dimension(geometry.inv_freq, geometry.original_max_position_embeddings) // 2
    edges = position_edges(len(ids))
    sums: list[Tensor] = []  # (heads, parts, bins, moments) a layer

    def record(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **options: Any) -> Any:
        keys = key[0].repeat_interleave(query.shape[1] // key.shape[1], dim=0)
        heads = zip(query[0], keys, strict=True)
        sums.append(torch.stack([_moments(q, k, seen, geometry.rotary_dim, edges) for q, k in heads]))
        return own(module, query, key, value, *rest, **options)

    with applied(model, method, len(ids), geometry.original_max_position_embeddings):
        own, mask = present(model)
        with routed(model, record, mask):
            model(input_ids=ids[None], use_cache=False)
    return _table(torch.cat(sums).double().cpu().numpy(), edges)


def _moments(query: Tensor, key: Tensor, seen: int, rotary_dim: int, edges: np.ndarray) -> Tensor:
    """Count, sum and sum of squares of one head's scores, (parts, bins, 3), in float64."""
    pair = torch.arange(query.shape[-1], device=query.device) % (rotary_dim // 2)
    index = torch.arange(len(query), device=query.device)
    distance = index[:, None] - index
    causal = distance > 0
    bins = torch.bucketize(distance[causal], torch.as_tensor(edges[1:], device=query.device), right=True)
    found = []
    for channels in (pair < seen, pair >= seen):
        scores = (query[:, channels].double() @ key[:, channels].double().T / query.shape[-1] ** 0.5)[causal]
        moments = [torch.bincount(bins, weights=scores**power, minlength=len(edges) - 1) for power in (0, 1, 2)]
        found.append(torch.stack(moments, dim=-1))
    return torch.stack(found)


def _table(moments: np.ndarray, edges: np.ndarray) -> pd.DataFrame:
    rows = []
    for part, name in enumerate(PARTS):
        for n in range(len(edges) - 1):
            count, total, squares = moments[:, part, n].T
            mean = total.sum() / count.sum()
            spread = squares.sum() / count.sum() - mean**2
            low, middle, high = np.quantile(total / count, SHARES)
            rows.append(
                {
                    "part": name, "begin": int(edges[n]), "end": int(edges[n + 1]), "mean": mean,
                    "std": max(0.0, spread) ** 0.5, "q10": low, "q50": middle, "q90": high,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)
