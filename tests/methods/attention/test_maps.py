"""Methods that change attention: their maps of relative positions, defaults, limits and parameters."""

import dataclasses

import numpy as np
import pytest

from harness import methods
from harness.errors import UserError
from harness.methods.attention.dca import Dca
from harness.methods.attention.leaky_rerope import LeakyReRope
from harness.methods.attention.rerope import ReRope
from harness.methods.attention.self_extend import SelfExtend
from harness.methods.attention.string import String
from harness.methods.attention.windowed import Windowed
from harness.methods.base import RopeGeometry
from tests.attention_maps import GEOMETRY, MAPS, NAMES, table
from tests.reference import attention as reference

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
    (  # from distance 3 on, 3 - 1 nearer
        String(shift=3, window=1),
        [[0, X, X, X, X], [1, 0, X, X, X], [2, 1, 0, X, X], [1, 2, 1, 0, X], [2, 1, 2, 1, 0]],
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
        (String(), {"shift": 17, "window": 17}),
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
    *(String(shift=s, window=w) for s, w in ((13, 4), (30, 0), (20, 20))),
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


def test_string_at_the_papers_length():
    # 131 072 tokens: a shift of 43 253, so that no relative position is above 87 946
    string = String().resolved(GEOMETRY, 131_072)
    assert (string.shift, string.window) == (43_253, 128)
    (near, far) = string.regions(131_072)
    assert far.query_positions[-1] - far.key_positions[0] == 87_946
    assert near.begin[-1] == 131_072 - 43_253


def test_string_that_reaches_the_length_is_plain_attention():
    np.testing.assert_array_equal(table(String(shift=53), 53), table(ReRope(window=53), 53))


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
        ("string", {"shift": 4, "window": 5}, "window must be <= shift"),
        ("dca", {"temperature_coefficient": -1.0}, "temperature_coefficient must be"),
        ("windowed", {"sinks": -1}, "sinks must be >= 0"),
        ("windowed", {"form": "streaming", "sinks": 40}, "sinks must be < 40"),
        ("windowed", {"windw": 3}, "'window'"),
    ],
)
def test_bad_parameters_are_one_line(name, params, message):
    with pytest.raises(UserError, match=message) as error:
        methods.build(name, params, GEOMETRY, 100)
    assert "\n" not in str(error.value)
