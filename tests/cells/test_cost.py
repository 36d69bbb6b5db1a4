"""The cost model against PyTorch's own count of FLOPs, and against arithmetic done by hand."""

import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from harness.cells import cost, dry_run
from harness.data.windows import Window
from harness.models.checkpoint.shape import Shape, shape
from tests.tiny import tiny_config, tiny_model, tokens

BY_HAND = Shape(
    matrix_parameters=1000,
    weight_bytes=5000,
    hidden=10,
    inner=40,
    vocabulary=100,
    attention_widths=(2 * (5 + 3), 2 * (5 + 3)),
    attention_windows=(None, 4),
)


def test_flops_by_hand():
    # matrices 2 x 1000 x 8; attention 2 x (8^2 / 2 + 8 x 4 - 4^2 / 2) x 2 x (5 + 3); logits 2 x 10 x 100 x 3
    assert cost.flops(BY_HAND, [Window(0, 8, 5)]) == 16_000 + 2 * (32 + 24) * 16 + 6_000
    assert cost.flops(BY_HAND, [Window(0, 7, 4, True)] * 3) == 3 * cost.flops(BY_HAND, [Window(0, 8, 5)])


def test_memory_by_hand():
    # weights; 4 x 10 numbers of 2 bytes for 64 tokens; 6 x 10 + 3 x 40 for 16 tokens; 500 logits in 2 + 4 + 4 bytes
    found = cost.memory(BY_HAND, tokens=64, chunk=16, logits=500, element_bytes=2)
    assert found == 5000 + 64 * 2 * 40 + 16 * 2 * 180 + 5000


def test_what_a_base_adds_by_hand():
    # weights; 10 numbers of 2 bytes for 64 tokens; 500 logits in 2 + 4 bytes
    found = cost.memory_beside(BY_HAND, weights=5000, tokens=64, logits=500, element_bytes=2)
    assert found == 5000 + 64 * 2 * 10 + 3000


def test_a_base_doubles_the_products_and_shares_its_weights(place):
    alone, beside = place.prepared("method=none ctx=32", "method=none ctx=32 method@base.method=linear")
    shapes = dry_run.model_shapes([alone, beside])
    assert len(shapes) == 1
    costs = dry_run.estimate([alone, beside], shapes)
    one, two = costs[alone.cell.cell_id], costs[beside.cell.cell_id]
    assert two.flops == 2 * one.flops
    assert one.memory < two.memory < one.memory + next(iter(shapes.values())).weight_bytes + 2**25


def shape_of(config, place):
    header = dataclasses.replace(place.prepared("method=none ctx=32")[0].header)
    header.__dict__["config"] = config
    return shape(header, "float32")


@pytest.mark.parametrize(
    "family", ["llama", "mistral", "qwen3", "gemma2", "olmo3", "phi3", "gpt_neox", "gpt2", "mixtral", "qwen3_moe"]
)
def test_flops_are_those_that_pytorch_counts(place, family):
    config, length = tiny_config(family), 24
    config._experts_implementation = "eager"  # one product an expert, which the counter knows
    known = shape_of(config, place)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        tiny_model(config)(tokens(length))
    counted = counter.get_total_flops()
    # Eager attention computes every pair of positions; what is not needed is added to what the model says.
    layers = zip(known.attention_widths, known.attention_windows, strict=True)
    needless = 2 * sum(width * (length**2 - cost._pairs(length, window)) for width, window in layers)
    assert cost.flops(known, [Window(0, length, 0)]) + needless == pytest.approx(counted, rel=0.01)


def test_weights_are_those_of_the_checkpoint(place):
    known = shape(place.prepared("method=none ctx=32")[0].header, "float32")
    stored = (place.model / "model.safetensors").stat().st_size
    assert known.weight_bytes == pytest.approx(stored, rel=0.05)


def estimated(cells):
    return dry_run.estimate(cells, dry_run.model_shapes(cells))


def test_a_shared_pass_is_paid_once(place):
    cells = place.prepared("method=none ctx=16", "method=none ctx=32", "method=linear ctx=64")
    estimates = [estimated(cells)[p.cell.cell_id].flops for p in cells]
    alone = [estimated([p])[p.cell.cell_id].flops for p in cells]
    assert estimates == [0, *alone[1:]]
    assert all(a > 0 for a in alone)


def test_packed_copies_of_weights_are_counted_while_they_are_made(place, monkeypatch):
    cells = place.prepared("method=none ctx=32")
    (_, with_copies), *_ = estimated(cells).values()
    monkeypatch.setattr("harness.cells.dry_run.LARGEST", 0)
    (_, without), *_ = estimated(cells).values()
    assert with_copies - without == shape(cells[0].header, "float32").weight_bytes
