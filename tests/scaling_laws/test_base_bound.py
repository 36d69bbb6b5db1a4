"""The base bound of arXiv:2405.14591, against its definition and values worked out elsewhere."""

import numpy as np
import pytest

from harness.methods import RopeGeometry
from harness.scaling_laws import base_bound, bounds
from tests.reference import frequencies as reference


def geometry(base=1e4, rotary_dim=128, trained=4096):
    return RopeGeometry(rotary_dim=rotary_dim, rope_theta=base, original_max_position_embeddings=trained)


@pytest.mark.parametrize(("rotary_dim", "base"), [(128, 1e4), (128, 500.0), (64, 1e4), (32, 1e6), (6, 100.0)])
@pytest.mark.parametrize("ctx", [5, 9000])
def test_bound_is_the_definitions(rotary_dim, base, ctx):
    inv_freq = geometry(base, rotary_dim).inv_freq
    assert base_bound.base_bound(inv_freq, ctx) == reference.tells_apart(inv_freq.tolist(), ctx)


@pytest.mark.parametrize(
    ("ctx", "first"), [(1024, 5623), (2048, 15_849), (4096, 44_668), (8192, 141_254), (16_384, 501_187)]
)
def test_first_bases_that_pass(ctx, first):
    assert round(base_bound.smallest_base(geometry(), ctx, np.logspace(3, 6.2, 65))) == first
    assert round(base_bound.smallest_base(geometry(), ctx)) == first  # the table's own grid begins with that one


@pytest.mark.parametrize(
    ("base", "ctx", "passes"),
    [
        *[(4.30e3, 1024, True), (1.17e4, 2048, True), (2.71e4, 4096, True), (8.39e4, 8192, True)],  # of a finer grid
        *[(2.34e5, 16_384, True), (6.02e3, 1024, False), (2.28e4, 2048, False), (5.9e4, 4096, False)],
    ],
)
def test_passing_bases_are_not_one_interval(base, ctx, passes):
    finer = np.linspace(0.99 * base, 1.01 * base, 81)
    found = [base_bound.base_bound(geometry(b).inv_freq, ctx) == ctx for b in finer]
    assert any(found) if passes else not all(found)


def test_pairs_at_rest_count_as_cosines_of_zero():
    inv_freq = geometry().inv_freq
    assert base_bound.base_bound(inv_freq, 4096, resting=2) == reference.tells_apart([*inv_freq, 0.0], 4096)


def test_no_base_of_the_grid_may_pass():
    assert base_bound.smallest_base(geometry(), 16_384, np.logspace(3, 4, 5)) is None


def test_column_of_the_table():
    table = bounds.table(geometry(), 16_384, ["none", "ntk", "linear", "abf", "dca"]).set_index("method")
    assert table["base_bound"]["none"] == reference.tells_apart(reference.none(128, 1e4), 16_384)
    assert table["base_bound"]["ntk"] == reference.tells_apart(reference.ntk(128, 1e4, 4), 16_384)
    assert table["base_bound"]["linear"] == reference.tells_apart(reference.linear(128, 1e4, 4), 16_384)
    assert np.isnan(table["base_bound"]["dca"])  # attention sees trained distances only
