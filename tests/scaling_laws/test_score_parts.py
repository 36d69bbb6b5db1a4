"""The split of attention scores by the critical dimension, against scores computed one by one."""

import numpy as np
import pytest
import torch

from harness.methods import build
from harness.models.checkpoint.geometry import geometry
from harness.scaling_laws.bounds import critical_dimension
from harness.scaling_laws.score_parts import score_parts
from tests.reference.encodings import rotate
from tests.tiny import tiny_llama


@pytest.mark.parametrize("method", ["none", "linear"])
def test_both_parts_at_every_distance(method: str) -> None:
    model = tiny_llama()
    rope = geometry(model.config)
    length = 40
    ids = torch.arange(length) * 5 % 96
    chosen = build(method, {}, rope, length)
    got = score_parts(model, ids, chosen, rope).set_index(["part", "begin"])
    seen = critical_dimension(rope.inv_freq, rope.original_max_position_embeddings) // 2
    assert 0 < seen < rope.rotary_dim // 2

    states: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for n, layer in enumerate(model.model.layers):
        attention = layer.self_attn

        def hook(module, args, kwargs, n=n, attention=attention):
            hidden = kwargs["hidden_states"]
            q, k = (
                p(hidden)[0].view(length, -1, attention.head_dim).double().numpy()
                for p in (attention.q_proj, attention.k_proj)
            )
            states[n] = q, k.repeat(q.shape[1] // k.shape[1], axis=1)

        attention.register_forward_pre_hook(hook, with_kwargs=True)
    factor = length / rope.original_max_position_embeddings if method == "linear" else 1.0
    if method == "linear":  # the states of a layer depend on what the method made of those before it
        from harness.models.install import applied

        with applied(model, chosen, length, rope.original_max_position_embeddings), torch.no_grad():
            model(input_ids=ids[None])
    else:
        with torch.no_grad():
            model(input_ids=ids[None])
    for part in ("below", "above"):
        for (name, begin), row in got.iterrows():
            if name != part:
                continue
            scores = []
            for q, k in states.values():
                d = q.shape[-1]
                pairs = [m for m in range(d // 2) if (m < seen) == (part == "below")]
                channels = pairs + [m + d // 2 for m in pairs]
                for h in range(q.shape[1]):
                    for i in range(length):
                        for j in range(i):
                            if begin <= i - j < row["end"]:
                                a, b = rotate(q[i, h], i / factor), rotate(k[j, h], j / factor)
                                scores.append(a[channels] @ b[channels] / d**0.5)
            assert row["mean"] == pytest.approx(np.mean(scores), abs=1e-5)
            assert row["std"] == pytest.approx(np.std(scores), abs=1e-5)
