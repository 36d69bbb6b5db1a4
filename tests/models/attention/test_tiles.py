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
from harness.models.attention import capped, tiles
from harness.models.attention.fused import masked
from harness.models.attention.row_blocks import straight
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


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("layout", ["grouped", "latent"])
@pytest.mark.parametrize("name", MAPS)
def test_capped_scores_against_the_definition(name, layout, monkeypatch):
    monkeypatch.setattr(capped, "KEYS", 5)
    method, relative = MAPS[name]
    states = random_states(layout, 37, torch.float32)
    expected = naive(relative, layout, *states, softcap=0.7)
    assert np.abs(expected - naive(relative, layout, *states)).max() > 1e-2
    np.testing.assert_allclose(attended(method, layout, *states, softcap=0.7), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 255, 256, 257, 600])
@pytest.mark.parametrize("name", NAMES)
def test_block_size_changes_nothing(name, length, monkeypatch):
    method, states = methods.build(name, {}, GEOMETRY, length), random_states("grouped", length, torch.float32)
    whole = attended(method, "grouped", *states)
    monkeypatch.setitem(tiles.BLOCK_ROWS, "cpu", 64)
    torch.testing.assert_close(attended(method, "grouped", *states), whole, rtol=0, atol=2e-6)


@pytest.fixture
def in_bands(monkeypatch):
    """What the flash kernel computes, from its definition, and the tiles that were asked for."""
    asked = []

    def flash(query, key, value, scale, *, causal=False, band=None):
        rows, keys = torch.arange(query.shape[2])[:, None], torch.arange(key.shape[2])
        assert not causal or query.shape[2] == key.shape[2], "of other shapes causal means something else"
        assert band is None or key.shape[2] == query.shape[2] + band - 1
        seen = (keys <= rows) if causal else (keys >= rows if band else keys >= 0) & (keys < rows + (band or len(keys)))
        asked.append((query.shape[2], key.shape[2], "causal" if causal else "band" if band else "full"))
        return masked(query, key, value, seen.expand(query.shape[2], -1), scale)

    monkeypatch.setattr(tiles, "has_flash", lambda query: True)
    monkeypatch.setattr(tiles, "flash", flash)
    monkeypatch.setattr(tiles, "fused", None)
    monkeypatch.setattr(tiles, "masked", None)
    return asked


@pytest.mark.parametrize("rows", [20, 16_384])
@pytest.mark.parametrize("layout", ["grouped", "latent"])
@pytest.mark.parametrize("name", MAPS)
def test_bands_against_the_definition(name, layout, rows, in_bands, monkeypatch):
    """Blocks end where edges change how they move: nothing is masked, and each region is one tile or two a block."""
    monkeypatch.setattr(tiles, "STRAIGHT_ROWS", rows)
    monkeypatch.setitem(tiles.BLOCK_ROWS, "cpu", 2)  # as many blocks as it takes
    method, relative = MAPS[name]
    states = random_states(layout, 53, torch.float32)
    np.testing.assert_allclose(attended(method, layout, *states), naive(relative, layout, *states), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["rerope", "self_extend", "windowed", "string", "leaky_rerope", "dca"])
def test_bands_are_few(name, in_bands, monkeypatch):
    """A long window is a few calls of the kernel, whose pairs are those that the method sees."""
    length = 2000
    method = methods.build(name, {}, GEOMETRY, length)
    monkeypatch.setitem(tiles.BLOCK_ROWS, "cpu", 2)  # as many blocks as it takes
    attended(method, "grouped", *random_states("grouped", length, torch.float32))
    chunks = length // (5 * GEOMETRY.original_max_position_embeddings // 8) if name == "dca" else 1
    assert len(in_bands) <= 8 + 4 * chunks
    pairs = {"causal": lambda q, k: q * (q + 1) // 2, "band": lambda q, k: q * (k - q + 1), "full": lambda q, k: q * k}
    regions = method.resolved(GEOMETRY, length).regions(length)
    wanted = sum(int(np.maximum(0, region.end - region.begin).sum()) for region in regions)
    assert sum(pairs[shape](q, k) for q, k, shape in in_bands) == wanted


def test_edges_that_jump_often_are_cut_evenly():
    """Regions that no few straight blocks cover keep the blocks of old."""
    rows = np.arange(400)
    assert straight([(rows // 2 * 2, rows + 1)], 100, most=20) is None
    assert straight([(3 * rows // 2, 3 * rows)], 100, most=20) is None
    assert straight([(np.zeros_like(rows), rows + 1)], 300, most=20) == [slice(0, 300), slice(300, 400)]


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
    monkeypatch.setattr(tiles, "STRAIGHT_ROWS", 16)
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
