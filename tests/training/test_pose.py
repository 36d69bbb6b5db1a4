"""PoSE: windows in two pieces against their definition, and that both pieces are one text to the model."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from harness.methods import build
from harness.models.checkpoint.geometry import geometry
from harness.models.install import applied
from harness.training import pose, stream
from harness.training.config import Pose
from tests.reference import training as reference

TEXT = np.arange(5000, dtype=np.int32) * 7 % 997
CTX, TARGET = 16, 128


def rows(count: int = 200, seed: int = 3, **changed: int | None) -> list[dict]:
    of = Pose(**{"target_ctx": TARGET, **changed})
    return list(stream.windows(TEXT, CTX, count, seed, of))


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = LlamaConfig(vocab_size=997, max_position_embeddings=CTX, initializer_range=0.4, use_cache=False, **sizes)
    return LlamaForCausalLM(config).eval()


def losses(model: LlamaForCausalLM, row: dict) -> torch.Tensor:
    batch = {name: torch.as_tensor(np.asarray(values))[None] for name, values in row.items()}
    batch.pop("labels")
    with torch.no_grad():
        return model(**batch).logits[0]


def test_windows_are_those_of_the_definition() -> None:
    begins = stream.window_begins(len(TEXT), CTX, 200, 3)
    drawn = pose.draws(Pose(target_ctx=TARGET), begins, CTX, len(TEXT), 3)
    for row, begin, *of_row in zip(rows(), begins, *drawn, strict=True):
        ids, positions = reference.pose_window(TEXT.tolist(), int(begin), CTX, *map(int, of_row))
        assert row["input_ids"].tolist() == row["labels"].tolist() == ids
        assert row["position_ids"].tolist() == positions


def test_a_window_by_hand() -> None:
    drawn = pose.Draws(*(np.array([value]) for value in (3, 10, 100)))
    places, positions = pose.indices(drawn, 6)
    assert places.tolist() == [[0, 1, 2, 13, 14, 15]]
    assert positions.tolist() == [[0, 1, 2, 103, 104, 105]]


def test_draws_are_uniform_over_their_ranges_and_end_within_the_text() -> None:
    begins = np.zeros(60_000, dtype=np.int64)
    drawn = pose.draws(Pose(target_ctx=20), begins, 7, 1000, seed=0)
    for values, least, most in ((drawn.first, 1, 4), (drawn.later, 0, 28), (drawn.skipped, 0, 13)):
        counts = np.bincount(values)
        assert (values.min(), values.max()) == (least, most)
        np.testing.assert_allclose(counts[least:], len(values) / (most - least + 1), rtol=0.15)
    at_the_end = pose.draws(Pose(target_ctx=20), np.full(1000, 90), 7, 100, seed=0)
    assert at_the_end.later.max() == 3  # 90 + 7 + 3 tokens


def test_a_longer_run_begins_with_the_windows_of_a_shorter_one() -> None:
    for long, short in zip(rows(200), rows(50), strict=False):
        assert all(np.array_equal(long[name], short[name]) for name in short)
    other = rows(50, seed=4)
    assert any(a["position_ids"].tolist() != b["position_ids"].tolist() for a, b in zip(rows(50), other, strict=True))


def test_without_room_to_skip_windows_are_the_plain_ones() -> None:
    plain = stream.windows(TEXT, CTX, 50, 3)
    for row, other in zip(rows(50, target_ctx=CTX, windows=1), plain, strict=True):
        assert row["input_ids"].tolist() == other["input_ids"].tolist()
        assert row["position_ids"].tolist() == list(range(CTX))
    assert set(rows(1, target_ctx=None)[0]) == {"input_ids", "labels"}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_second_piece_sees_the_first(model: LlamaForCausalLM, attention: str) -> None:
    """Positions are of no account without rotations: both pieces then score as one window without any skip."""
    model.set_attn_implementation(attention)
    row = next(row for row in rows() if np.diff(row["position_ids"]).max() > 20)
    still = {"input_ids": row["input_ids"], "labels": row["labels"]}
    off = build("p_rope", {"share": 0.0}, geometry(model.config), TARGET)
    with applied(model, off, TARGET):
        torch.testing.assert_close(losses(model, row), losses(model, still), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(losses(model, row), losses(model, still), atol=1e-3)  # under rotations it matters


def test_positions_reach_the_rotations(model: LlamaForCausalLM) -> None:
    """A constant added to all positions changes nothing, a skip between the pieces does."""
    row = next(row for row in rows() if np.diff(row["position_ids"]).max() > 20)
    moved = row | {"position_ids": row["position_ids"] + 50}
    method = build("linear", {}, geometry(model.config), TARGET)
    assert method.factor == TARGET / CTX
    with applied(model, method, TARGET):
        torch.testing.assert_close(losses(model, row), losses(model, moved), rtol=1e-3, atol=1e-4)
