"""Attention by tiles against its definition in float64: every layout, precision, block size, and a GPU."""

import itertools

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from harness import methods
from harness.methods.attention.leaky_rerope import LeakyReRope
from harness.methods.attention.rerope import ReRope
from harness.methods.base import RopeGeometry
from harness.models.attention import tiles
from tests.attention_maps import GEOMETRY, MAPS, NAMES
from tests.models.attention.cases import LAYOUTS, attended, naive, random_states


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", MAPS)
def test_blocks_against_the_definition(name, layout):
    method, relative = MAPS[name]
    states = random_states(layout, 53, torch.float32)
    np.testing.assert_allclose(attended(method, layout, *states), naive(relative, layout, *states), rtol=0, atol=1e-5)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("name", MAPS)
def test_blocks_in_other_precisions(name, dtype, tolerance):
    method, relative = MAPS[name]
    states = random_states("grouped", 37, dtype)
    out = attended(method, "grouped", *states)
    assert out.dtype == dtype
    np.testing.assert_allclose(out.double(), naive(relative, "grouped", *states), rtol=0, atol=tolerance)


@pytest.mark.usefixtures("small_blocks")
def test_sinks_and_multiplier_against_the_definition():
    method, relative = MAPS["self_extend"]
    states, sinks = random_states("partial", 40, torch.float32), torch.tensor([0.5, 3.0])
    out = attended(method, "partial", *states, sinks=sinks, scaling=1.2)
    expected = naive(relative, "partial", *states, sinks=sinks.numpy(), multiplier=1.2)
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 255, 256, 257, 600])
@pytest.mark.parametrize("name", NAMES)
def test_block_size_changes_nothing(name, length, monkeypatch):
    method, states = methods.build(name, {}, GEOMETRY, length), random_states("grouped", length, torch.float32)
    whole = attended(method, "grouped", *states)
    monkeypatch.setitem(tiles.BLOCK_ROWS, "cpu", 64)
    torch.testing.assert_close(attended(method, "grouped", *states), whole, rtol=0, atol=2e-6)


def covered(tile, rows):
    """What a tile says each of its rows sees, without its mask."""
    offset = np.arange(tile.last - tile.first)
    everything = np.ones((rows, len(offset)), dtype=bool)
    return {
        "full": everything,
        "masked": everything,
        "lower": offset <= np.arange(rows)[:, None],
        "upper": offset >= np.arange(rows)[:, None],
    }[tile.shape]


@pytest.mark.parametrize("name", MAPS)
def test_tiles_cover_what_a_block_sees(name):
    shapes = set()
    for region, rows in itertools.product(MAPS[name][0].resolved(GEOMETRY, 53).regions(53), (1, 4, 16)):
        for first in range(0, 53, rows):
            begin, end = region.begin[first : first + rows, None], region.end[first : first + rows, None]
            seen = np.zeros((len(begin), 53), dtype=int)
            for tile in tiles.tiles(begin[:, 0], end[:, 0]):
                inside = covered(tile, len(begin))
                keys = np.arange(tile.first, tile.last)
                seen[:, tile.first : tile.last] += inside & ((keys >= begin) & (keys < end) | (tile.shape != "masked"))
                shapes |= {tile.shape} if rows == 4 else set()
            np.testing.assert_array_equal(seen, (np.arange(53) >= begin) & (np.arange(53) < end))
    expected = {"lower"} if name == "rerope, window 1" or "dca" in name else {"lower", "upper"}
    assert expected <= shapes, "edges that move by a key a row should need no mask"


@pytest.mark.parametrize("method", [ReRope(window=32), LeakyReRope(window=16)], ids=str)
def test_windows_of_whole_blocks_need_no_mask(method):
    """Masked tiles are slow on a GPU; leaky_rerope's window at a trained length of 8192 is one block of 1024 rows."""
    near, _ = method.regions(160)
    for first in range(0, 160, 16):
        cut = tiles.tiles(near.begin[first : first + 16], near.end[first : first + 16])
        assert "masked" not in {tile.shape for tile in cut}


class LargestTensor(TorchDispatchMode):
    """Remembers how many numbers the largest tensor made inside it holds."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        made = out if isinstance(out, tuple | list) else [out]
        self.numel = max([self.numel, *(x.numel() for x in made if isinstance(x, torch.Tensor))])
        return out


@pytest.mark.parametrize("name", NAMES)
def test_memory_is_linear_in_the_length(name):
    largest = []
    for length in (1024, 4096):
        states = random_states("multi-head", length, torch.float32)
        with LargestTensor() as watched:
            attended(methods.build(name, {}, GEOMETRY, length), "multi-head", *states)
        largest.append(watched.numel)
    assert largest[1] <= 4 * largest[0]


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("name", MAPS)
def test_gpu_against_the_definition(name, dtype, tolerance, monkeypatch):
    monkeypatch.setitem(tiles.BLOCK_ROWS, "cuda", 16)
    torch.backends.cuda.matmul.allow_tf32 = False
    method, relative = MAPS[name]
    for layout in LAYOUTS:
        states = random_states(layout, 53, dtype)
        out = attended(method, layout, *(s.cuda() for s in states))
        np.testing.assert_allclose(out.double().cpu(), naive(relative, layout, *states), rtol=0, atol=tolerance)


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_gpu_equals_cpu_at_its_own_block_size(name):
    method = methods.build(
        name, {}, RopeGeometry(rotary_dim=8, rope_theta=100.0, original_max_position_embeddings=1000), 5000
    )
    states = random_states("grouped", 5000, torch.float32)
    out = attended(method, "grouped", *(s.cuda() for s in states))
    torch.testing.assert_close(out.cpu(), attended(method, "grouped", *states), rtol=0, atol=1e-5)
