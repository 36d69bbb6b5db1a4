"""Methods that change attention: their maps, the block attention that follows them, and models that run them."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, HunYuanDenseV1Config, logging

from harness import methods
from harness.engine.engine import Engine
from harness.engine.spec import EngineSpec
from harness.errors import UserError
from harness.methods.attention.base import AttentionMethod
from harness.methods.attention.dca import Dca
from harness.methods.attention.leaky_rerope import LeakyReRope
from harness.methods.attention.regions import Region, positions, relative_positions
from harness.methods.attention.rerope import ReRope
from harness.methods.attention.self_extend import SelfExtend
from harness.methods.attention.windowed import Windowed
from harness.methods.base import RopeGeometry
from harness.methods.modifiers.log_n import log_n
from harness.models.attention import tiles
from harness.models.attention.by_regions import _sources
from harness.models.attention.layer_rotation import layer_rotations
from harness.models.attention.log_n import growing_queries
from harness.models.attention.route import routed
from harness.models.checkpoint.geometry import geometry
from harness.models.install import applied
from tests.reference import attention as reference
from tests.tiny import FAMILIES, TRAINED, logits, tiny_config, tiny_llama, tiny_model, tokens

logging.set_verbosity_error()

GEOMETRY = RopeGeometry(rotary_dim=8, rope_theta=100.0, original_max_position_embeddings=40)
NAMES = [name for name, method in methods.METHODS.items() if method.kind == "attention"]
MAPS = {  # method -> its map, from the definition
    "rerope": (ReRope(window=5), lambda i, j: reference.rerope(i, j, 5)),
    "rerope, window 1": (ReRope(window=1), lambda i, j: reference.rerope(i, j, 1)),
    "leaky_rerope": (LeakyReRope(factor=3.5, window=6), lambda i, j: reference.leaky_rerope(i, j, 6, 3.5)),
    "self_extend": (SelfExtend(group=4, window=8), lambda i, j: reference.self_extend(i, j, 8, 4)),
    "self_extend, uneven": (SelfExtend(group=3, window=7), lambda i, j: reference.self_extend(i, j, 7, 3)),
    "self_extend, floor": (
        SelfExtend(group=3, window=7, floor_shift=True),
        lambda i, j: reference.self_extend(i, j, 7, 3, floor_shift=True),
    ),
    "dca": (Dca(chunk=12, local=3), lambda i, j: reference.dca(i, j, 12, 3)),
    "dca, small chunks": (Dca(chunk=12, local=8), lambda i, j: reference.dca(i, j, 12, 8)),
    "dca, paper": (Dca(form="paper", chunk=12, local=3), lambda i, j: reference.dca(i, j, 12, 3, "paper")),
    "windowed": (Windowed(window=6, sinks=3), lambda i, j: reference.lm_infinite(i, j, 6, 3)),
    "windowed, no sinks": (Windowed(window=6, sinks=0), lambda i, j: reference.lm_infinite(i, j, 6, 0)),
    "windowed, streaming": (
        Windowed(form="streaming", window=6, sinks=3),
        lambda i, j: reference.streaming(i, j, 6, 3),
    ),
}
X = np.nan
TABLES = [  # worked by hand from the definitions
    (ReRope(window=2), [[0, X, X, X, X], [1, 0, X, X, X], [2, 1, 0, X, X], [2, 2, 1, 0, X], [2, 2, 2, 1, 0]]),
    (
        LeakyReRope(window=2, factor=4.0),
        [[0, X, X, X, X], [1, 0, X, X, X], [2, 1, 0, X, X], [2.25, 2, 1, 0, X], [2.5, 2.25, 2, 1, 0]],
    ),
    (  # groups {0, 1} {2, 3} {4}; shift 2 - 2/2 = 1
        SelfExtend(window=2, group=2),
        [[0, X, X, X, X], [1, 0, X, X, X], [2, 1, 0, X, X], [2, 2, 1, 0, X], [3, 3, 2, 1, 0]],
    ),
    (  # chunks {0, 1} {2, 3} {4}; in the chunk before, queries at min(2, 3), min(3, 3); older ones at min(3, 3)
        Dca(chunk=3, local=1),
        [[0, X, X, X, X], [1, 0, X, X, X], [2, 1, 0, X, X], [3, 2, 1, 0, X], [3, 2, 2, 1, 0]],
    ),
    (  # the same chunks, positions at most 2
        Dca(form="paper", chunk=3, local=1),
        [[0, X, X, X, X], [1, 0, X, X, X], [2, 1, 0, X, X], [2, 1, 1, 0, X], [2, 1, 2, 1, 0]],
    ),
    (
        Windowed(window=2, sinks=1),
        [[0, X, X, X, X], [1, 0, X, X, X], [2, 1, 0, X, X], [2, X, 1, 0, X], [2, X, X, 1, 0]],
    ),
    (
        Windowed(form="streaming", window=2, sinks=2),
        [[0, X, X, X, X], [1, 0, X, X, X], [2, 1, 0, X, X], [3, 2, 1, 0, X], [3, 2, X, 1, 0]],
    ),
]


def table(method, length):
    rows = np.arange(length)
    return relative_positions(method.resolved(GEOMETRY, length).regions(length), rows[:, None], rows)


@pytest.mark.parametrize(("method", "expected"), TABLES, ids=str)
def test_map_by_hand(method, expected):
    np.testing.assert_array_equal(table(method, 5), expected)


@pytest.mark.parametrize("name", MAPS)
def test_map_against_the_definition(name):
    method, relative = MAPS[name]
    np.testing.assert_allclose(table(method, 53), reference.table(relative, 53), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_no_pair_is_in_two_regions(name):
    regions = methods.build(name, {}, GEOMETRY, 200).regions(200)
    rows, keys = np.arange(200)[:, None], np.arange(200)
    counts = sum(((keys >= r.begin[rows]) & (keys < r.end[rows])).astype(int) for r in regions)
    assert counts.max() == 1
    if name != "windowed":
        np.testing.assert_array_equal(counts, np.tri(200, dtype=int))


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (ReRope(), {"window": 10}),
        (LeakyReRope(), {"window": 5, "factor": 16.0}),
        (SelfExtend(), {"window": 10, "group": 8}),
        (Dca(), {"chunk": 30, "local": 5, "temperature": True}),
        (Dca(form="paper"), {"chunk": 40, "local": 10, "temperature": False}),
        (Windowed(), {"window": 40, "sinks": 10}),
        (Windowed(form="streaming"), {"window": 36, "sinks": 4}),
    ],
    ids=str,
)
def test_defaults_are_shares_of_the_trained_length(method, expected):
    resolved = dataclasses.asdict(method.resolved(GEOMETRY, 53))
    assert {name: resolved[name] for name in expected} == expected


LIMITED = [
    *(ReRope(window=w) for w in (10, 39, 40, 60)),
    *(LeakyReRope(factor=k, window=w) for k in (1.0, 3.0, 16.0) for w in (1, 7, 39, 41)),
    *(SelfExtend(group=g, window=w) for g in (1, 3, 8) for w in (1, 8, 10, 38, 39, 40, 44)),
    SelfExtend(group=3, window=10, floor_shift=True),
    *(Dca(chunk=c, local=w) for c, w in ((30, 5), (60, 20), (60, 55), (40, 5))),
    Dca(form="paper"),
    Windowed(),
    Windowed(form="streaming"),
    Windowed(window=50),
]


@pytest.mark.parametrize("method", LIMITED, ids=str)
def test_limit_is_where_relative_positions_leave_training(method):
    trained = GEOMETRY.original_max_position_embeddings
    limit = method.resolved(GEOMETRY, 53).limit(GEOMETRY)
    largest = trained if method == Windowed() else trained - 1  # its first tokens are seen at the trained length
    if limit is None:
        assert np.nanmax(table(method, 8 * trained)) <= largest
    else:
        assert np.nanmax(table(method, limit)) <= largest < np.nanmax(table(method, limit + 1))


def test_published_reach():
    llama = RopeGeometry(rotary_dim=128, rope_theta=1e4, original_max_position_embeddings=4096)
    assert LeakyReRope().resolved(llama, 4096).limit(llama) == 57_841
    assert SelfExtend(group=8, window=1024).limit(llama) == (4096 - 1024) * 8 + 1024


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("rerope", {"window": 0}, "window must be >= 1"),
        ("leaky_rerope", {"factor": 0.5}, "factor must be"),
        ("self_extend", {"group": 0}, "group must be >= 1"),
        ("dca", {"form": "papre"}, "'paper'"),
        ("dca", {"chunk": 4, "local": 4}, "local must be < chunk"),
        ("dca", {"local": 30}, "local must be < chunk"),
        ("windowed", {"sinks": -1}, "sinks must be >= 0"),
        ("windowed", {"form": "streaming", "sinks": 40}, "sinks must be < 40"),
        ("windowed", {"windw": 3}, "'window'"),
    ],
)
def test_bad_parameters_are_one_line(name, params, message):
    with pytest.raises(UserError, match=message) as error:
        methods.build(name, params, GEOMETRY, 100)
    assert "\n" not in str(error.value)


LAYOUTS = {  # heads, key heads, head_dim, value_dim, first rotary channel, interleaved
    "multi-head": (2, 2, 8, 8, 0, False),
    "grouped": (4, 2, 8, 8, 0, False),
    "one key head, interleaved": (3, 1, 8, 8, 0, True),
    "partial": (2, 1, 14, 14, 0, False),
    "latent": (2, 2, 12, 6, 4, True),
}


def random_states(layout, length, dtype, seed=0):
    heads, key_heads, head_dim, value_dim, *_ = LAYOUTS[layout]
    generator = torch.Generator().manual_seed(seed)
    shapes = (2, heads, length, head_dim), (2, key_heads, length, head_dim), (2, key_heads, length, value_dim)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def attended(method, layout, query, key, value, **options):
    first, interleaved = LAYOUTS[layout][4:]
    rotation = tiles.LayerRotation(tuple(GEOMETRY.inv_freq), first, interleaved, options.pop("scaling", 1.0))
    parts = tiles.parts(method.resolved(GEOMETRY, query.shape[2]).regions(query.shape[2]), rotation, query)
    return tiles.attend(query, key, value, parts, 0.3, **options)


def naive(relative, layout, *states, **options):
    first, interleaved = LAYOUTS[layout][4:]
    states = [s.double().cpu().numpy() for s in states]
    return reference.attention(
        *states, relative, GEOMETRY.inv_freq, scale=0.3, first=first, interleaved=interleaved, **options
    )


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setitem(tiles.BLOCK_ROWS, "cpu", 16)


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


# Through models


def under(model, method, ids, **options):
    with applied(model, method.resolved(geometry(model.config), ids.shape[1]), ids.shape[1], **options):
        return logits(model, ids)


class Divided(AttentionMethod):
    """Position interpolation written as one region: positions divided by 2."""

    def regions(self, length):
        rows, divided = np.arange(length), positions(length) / 2
        return (Region(np.zeros_like(rows), rows + 1, divided, divided),)

    def limit(self, geometry):
        return None


REFUSED = {
    "gemma2": "softcap",
    "falcon": "attention interface",
    "gptj": "attention interface",
    "codegen": "attention interface",
    "gpt2": "no rotary",
    "bloom": "no rotary",
}
NO_POSITIONS = {  # family -> which layers have none
    "smollm3": ({"no_rope_layers": [1, 0]}, [False, True]),
    "llama4_text": ({"no_rope_layers": [1, 0]}, [False, True]),
    "cohere2": ({}, [False, True]),
    "exaone4": ({}, [False, True]),
    "llama": ({}, [False, False]),
}


@pytest.fixture(scope="module", params=[f for f in FAMILIES if f not in REFUSED])
def model(request):
    torch.set_num_threads(1)
    return tiny_model(tiny_config(request.param))


def test_every_family_rotates_as_its_own_rotary_embedding_does(model):
    ids = tokens(48, 2)
    untouched = logits(model, ids)
    with applied(model, methods.build("linear", {"factor": 2.0}, geometry(model.config), 48), 48):
        expected = logits(model, ids)
    assert (expected - untouched).abs().max() > 1e-3, "the test would not see positions that were not divided"
    torch.testing.assert_close(under(model, Divided(), ids), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(under(model, ReRope(window=47), ids), untouched, rtol=0, atol=1e-5)
    assert torch.equal(logits(model, ids), untouched)


@pytest.mark.parametrize("family", NO_POSITIONS)
def test_layers_without_position_stay_unrotated(family):
    overrides, expected = NO_POSITIONS[family]
    model = tiny_model(tiny_config(family, **overrides))
    found = layer_rotations(model, _sources(model, None))
    assert [found[layer] is None for layer in sorted(found, key=lambda m: m.layer_idx)] == expected


@pytest.mark.parametrize("family", REFUSED)
def test_families_that_cannot_be_handled_are_refused_by_name(family):
    model = tiny_model(tiny_config(family))
    with pytest.raises(UserError, match=REFUSED[family]) as error, applied(model, ReRope(window=4), 16):
        logits(model, tokens(16))
    assert family in str(error.value)
    assert "\n" not in str(error.value)


def tiny_hunyuan():
    sizes = {"vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 16}
    config = HunYuanDenseV1Config(**sizes, num_attention_heads=4, num_key_value_heads=2, pad_token_id=0)
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


def test_norms_after_rotation_are_refused_by_name():
    model = tiny_hunyuan()
    with pytest.raises(UserError, match="hunyuan_v1_dense norms queries"), applied(model, ReRope(window=4), 16):
        pass


def test_the_probe_sees_what_happens_after_rotation():
    model = tiny_hunyuan()
    sources = _sources(model, None)
    assert None not in layer_rotations(model, sources).values(), "norms whose weights are all 1 let rotations pass"
    with torch.no_grad():
        model.model.layers[1].self_attn.query_layernorm.weight.uniform_(0.5, 2)
    with pytest.raises(UserError, match="hunyuan_v1_dense does more to queries"):
        layer_rotations(model, sources)


WIDE = RopeGeometry(rotary_dim=16, rope_theta=1e4, original_max_position_embeddings=TRAINED)
EQUAL = [  # method, longest window at which it is direct extrapolation, whether it is not at the next length
    (ReRope(window=47), 48, True),
    (ReRope(window=20), 21, True),
    (SelfExtend(window=48, group=5), 48, True),
    (SelfExtend(window=6, group=1), 48, False),
    (LeakyReRope(window=5, factor=1.0), 48, False),
    (Dca(chunk=21, local=3, temperature=False), 22, True),  # chunk + 1
    (Dca(chunk=40, local=24, temperature=False), 32, True),  # twice the chunk length
    (Dca(form="paper"), TRAINED, True),
    (Windowed(window=40, sinks=2), 41, True),  # the first token is seen at the window, its true distance there
    (Windowed(window=40, sinks=0), 40, True),
    (Windowed(form="streaming", window=30, sinks=2), 32, True),
]


@pytest.mark.parametrize(("method", "length", "last"), EQUAL, ids=str)
def test_limits_are_direct_extrapolation(method, length, last):
    model, ids = tiny_llama(), tokens(length + 1, 2)
    resolved = method.resolved(geometry(model.config), length)
    difference = (under(model, resolved, ids) - logits(model, ids)).abs()
    assert difference[:, :-1].max() < 1e-5
    assert (difference[:, -1].max() > 1e-4) == last


def test_leaky_rerope_with_a_huge_factor_approaches_rerope():
    model, ids = tiny_llama(), tokens(96)
    rectified = under(model, ReRope(window=6), ids)
    distances = [
        (under(model, LeakyReRope(window=6, factor=k), ids) - rectified).abs().max() for k in (10.0, 100.0, 1e7)
    ]
    assert distances[0] > 3 * distances[1] > 9 * distances[2]
    assert distances[2] < 1e-5


@pytest.mark.parametrize(("length", "multiplier"), [(TRAINED, 1.0), (4 * TRAINED, 1 + 0.05 * np.log(4))])
def test_temperature_of_the_codes_dca(length, multiplier):
    frequencies = methods.build("dca", {}, WIDE, length)(WIDE, length)
    assert frequencies.attention_scaling == pytest.approx(multiplier, rel=1e-12)
    np.testing.assert_array_equal(frequencies.inv_freq, WIDE.inv_freq)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_window_scores_depends_on_it_alone(name):
    model, ids = tiny_llama(), tokens(80)
    method = methods.build(name, {}, geometry(model.config), 80)
    first = under(model, method, ids)
    with applied(model, method, 80):
        logits(model, tokens(70, 3))
        assert torch.equal(logits(model, ids), first)
        together = logits(model, torch.cat((tokens(80, 1, seed=5), ids)))
    torch.testing.assert_close(together[1:], first, rtol=0, atol=1e-5)
    assert model.config._attn_implementation == "eager"


@pytest.mark.parametrize("name", [n for n in NAMES if not methods.build(n, {}, WIDE, 96).depends_on_length])
def test_prefixes_score_as_windows_of_their_own(name):
    model, ids = tiny_llama(), tokens(96)
    method = methods.build(name, {}, geometry(model.config), 96)
    torch.testing.assert_close(under(model, method, ids)[:, :50], under(model, method, ids[:, :50]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt_neox", "gemma3_text", "deepseek_v3"])
def test_bfloat16(family):
    model, ids = tiny_model(tiny_config(family), spread=0.05), tokens(96)
    method = ReRope(window=8)
    expected = under(model, method, ids)
    error = (under(model.bfloat16(), method, ids) - expected).abs().mean() / expected.abs().mean()
    assert error < 0.05


def test_a_layers_own_window_holds():
    model, ids = tiny_model(tiny_config("mistral", sliding_window=8)), tokens(60)
    torch.testing.assert_close(under(model, ReRope(window=8), ids), logits(model, ids), rtol=0, atol=1e-5)
    assert (under(model, ReRope(window=4), ids) - logits(model, ids)).abs().max() > 1e-2


def test_a_declared_multiplier_is_kept():
    declared = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": TRAINED, "rope_theta": 1e4}
    model, plain = tiny_llama(rope_parameters={**declared, "attention_factor": 1.5}), tiny_llama()
    for layer in plain.model.layers:
        layer.self_attn.scaling *= 1.5**2
    ids = tokens(40)
    torch.testing.assert_close(under(model, ReRope(window=40), ids), logits(plain, ids), rtol=0, atol=1e-5)


def test_what_layers_rotate_by_is_recorded_once_for_each_layer_type():
    model = tiny_model(tiny_config("gemma3_text"))
    with applied(model, ReRope(window=8).resolved(geometry(model.config), 48), 48) as patch:
        found = {one.layer_type: one for one in patch.installed}
    assert len(patch.installed) == len(found) == 2
    assert {one.path for one in patch.installed} == {"model.rotary_emb"}
    for kind, theta in (("sliding_attention", 10_000.0), ("full_attention", 1_000_000.0)):
        np.testing.assert_allclose(found[kind].inv_freq, theta ** -(np.arange(8) / 8), rtol=1e-12)


def test_reach_is_reported_when_ctx_exceeds_it():
    model = tiny_llama()
    method = SelfExtend(group=2, window=8)
    for length, expected in ((56, 0), (57, 1)):
        with applied(model, method, length) as patch:
            assert len(patch.warnings) == expected
    assert "reaches 56 tokens" in patch.warnings[0]
    assert "ctx=57" in patch.warnings[0]


def test_padding_caches_and_gradients_are_refused():
    model, ids = tiny_llama(), tokens(12, 2)
    padded = torch.ones_like(ids)
    padded[1, :3] = 0
    with applied(model, ReRope(window=4), 12):
        with torch.no_grad(), pytest.raises(UserError, match="padding"):
            model(ids, attention_mask=padded)
        with torch.no_grad(), pytest.raises(UserError, match="cache"):
            model(ids[:, -1:], past_key_values=model(ids[:, :-1], use_cache=True).past_key_values)
        with pytest.raises(UserError, match="gradients"):
            model(ids)


# Log-n


def test_log_n_against_the_definition():
    expected = [reference.log_n(position, 512) for position in range(5000)]
    np.testing.assert_allclose(log_n(5000, 512), expected, rtol=1e-14)
    assert log_n(5000, 512)[511] == 1 < log_n(5000, 512)[512]


def recorded_queries(model, ids, **options):
    """Queries that reach the attention of each layer, attention itself left out."""
    seen = []

    def record(module, query, key, value, *_, **__):
        seen.append(query)
        return value.repeat_interleave(query.shape[1] // value.shape[1], dim=1).transpose(1, 2), None

    with routed(model, record, lambda **_: None):
        if options:
            with growing_queries(model, **options):
                logits(model, ids)
            return seen[-2:]
        logits(model, ids)
    return seen[-2:]


def test_every_query_grows_with_log_n():
    model, ids = tiny_llama(), tokens(50, 2)
    plain, grown = recorded_queries(model, ids), recorded_queries(model, ids, trained=16)
    multipliers = torch.tensor([reference.log_n(position, 16) for position in range(50)], dtype=torch.float32)
    for a, b in zip(plain, grown, strict=True):
        torch.testing.assert_close(b, a * multipliers[:, None], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ["none", "yarn", "native", *NAMES])
def test_log_n_combines_with_any_method(name, implementation):
    model, ids = tiny_llama(), tokens(3 * TRAINED)
    model.set_attn_implementation(implementation)
    method = methods.build(name, {}, geometry(model.config), 3 * TRAINED)
    with applied(model, method, 3 * TRAINED):
        plain = logits(model, ids)
    with applied(model, method, 3 * TRAINED, logn=True):
        grown = logits(model, ids)
    torch.testing.assert_close(grown[:, :TRAINED], plain[:, :TRAINED], rtol=0, atol=1e-5)
    assert (grown - plain)[:, TRAINED + 1 :].abs().max() > 1e-3
    assert model.config._attn_implementation == implementation


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("name", ["rerope", "dca"])
def test_log_n_and_a_method_against_the_definition(name):
    method, relative = MAPS[name]
    states = random_states("grouped", 53, torch.float32)
    grown = states[0] * torch.from_numpy(log_n(53, 16)).float()[:, None]
    expected = naive(relative, "grouped", *states, trained=16)
    np.testing.assert_allclose(attended(method, "grouped", grown, *states[1:]), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["falcon", "gptj"])
def test_log_n_is_refused_by_name_where_attention_cannot_be_reached(family):
    model = tiny_model(tiny_config(family))
    method = methods.build("none", {}, geometry(model.config), 16)
    with pytest.raises(UserError, match=family), applied(model, method, 16, logn=True):
        pass


def test_log_n_on_a_model_without_rotary_embedding():
    model, ids = tiny_model(tiny_config("gpt2")), tokens(32)
    with applied(model, methods.METHODS["none"](), 32, trained=8, logn=True):
        grown = logits(model, ids)
    assert (grown - logits(model, ids)).abs().max() > 1e-4


# On a GPU


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


@pytest.mark.parametrize("name", ["rerope", "dca"])
def test_compiled_layers_equal_eager_ones(name):
    model, ids = tiny_llama(), tokens(2, 100)
    method = methods.build(name, {}, geometry(model.config), 100)
    plain, fast = Engine(model, EngineSpec()), Engine(model, EngineSpec(compile=True))
    assert fast.forwards
    with applied(model, method, 100):
        torch.testing.assert_close(fast.token_nll(ids, 1), plain.token_nll(ids, 1), atol=1e-5, rtol=0)
