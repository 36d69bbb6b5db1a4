import math
import tracemalloc

import numpy as np
import pytest

from harness.statistics import intervals
from harness.statistics.intervals import MIN_DOCUMENTS, RESAMPLES, contrast, interval
from tests.reference import statistics


def ones(n: int) -> np.ndarray:
    return np.ones((1, n))


def test_standard_error_of_equal_documents_is_that_of_a_mean() -> None:
    y = np.random.default_rng(0).gamma(2.0, 0.5, 12)
    (value,), (error,) = contrast(ones(12), y[:, None], np.ones((12, 1)), np.ones(1), log=False)
    assert value == pytest.approx(y.mean(), rel=1e-14)
    assert error == pytest.approx(statistics.standard_error_of_a_mean(list(y)), rel=1e-12)


def test_standard_error_of_a_ratio_is_near_the_jackknife() -> None:
    rng = np.random.default_rng(1)
    x = rng.uniform(900, 1100, 400)
    y = x * rng.gamma(2.0, 0.5, 400)
    _, (error,) = contrast(ones(400), y[:, None], x[:, None], np.ones(1), log=False)
    assert error == pytest.approx(statistics.jackknife_error(list(y), list(x)), rel=0.005)


def test_logarithm_divides_the_error_by_the_ratio() -> None:
    y = np.random.default_rng(2).gamma(2.0, 0.5, (30, 1)) + 5
    (value,), (error,) = contrast(ones(30), y, np.ones((30, 1)), np.ones(1), log=False)
    (log_value,), (log_error,) = contrast(ones(30), y, np.ones((30, 1)), np.ones(1), log=True)
    assert log_value == pytest.approx(math.log(value), rel=1e-14)
    assert log_error == pytest.approx(error / value, rel=1e-12)


def test_paired_difference_leaves_out_what_documents_share() -> None:
    rng = np.random.default_rng(3)
    difficulty = rng.gamma(2.0, 0.5, 20)
    gain = rng.normal(0.05, 0.01, 20)
    y = np.column_stack([difficulty, difficulty - gain])
    paired = interval(y, np.ones((20, 2)), np.array([1.0, -1.0]))
    assert paired.value == pytest.approx(gain.mean(), rel=1e-12)
    assert paired.low > 0.03
    assert paired.high < 0.07
    alone = interval(y[:, :1], np.ones((20, 1)))
    assert alone.high - alone.low > 10 * (paired.high - paired.low)


@pytest.mark.parametrize("n", [5, 10, 20, 100])
@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_coverage_over_skewed_documents(n: int, confidence: float) -> None:
    """Exponential losses and unequal lengths; Student's t covers 0.87 of 0.95 at n = 5 and fails here."""
    rng = np.random.default_rng([n, 7])
    repeats, truth, hits = (300 if n < 100 else 100), 2.5, 0
    for repeat in range(repeats):
        x = rng.uniform(0.8, 1.2, (n, 1))
        y = x * (2 + rng.exponential(0.5, (n, 1)))
        estimate = interval(y, x, confidence=confidence, seed=repeat)
        hits += estimate.low <= truth <= estimate.high
    slack = 3 * math.sqrt(confidence * (1 - confidence) / repeats)
    assert confidence - 0.02 - slack < hits / repeats < confidence + 0.02 + slack


def test_too_few_documents_have_no_limits_and_alike_documents_no_width() -> None:
    rng = np.random.default_rng(4)
    few = interval(rng.uniform(1, 2, (MIN_DOCUMENTS - 1, 1)), np.ones((MIN_DOCUMENTS - 1, 1)))
    assert math.isfinite(few.value)
    assert math.isnan(few.low)
    assert math.isnan(few.high)
    one = interval(np.array([[3.0]]), np.array([[1.0]]))
    assert one.value == 3.0
    assert math.isnan(one.low)
    alike = interval(np.full((9, 1), 3.25), np.ones((9, 1)))
    assert alike == (3.25, 3.25, 3.25)


@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_limits_are_those_of_the_resamples_one_by_one(confidence: float) -> None:
    rng = np.random.default_rng(6)
    x = rng.uniform(500, 1500, 7)
    y = x * rng.gamma(2.0, 0.5, 7)
    drawn = np.random.default_rng(11).integers(0, 7, size=(RESAMPLES, 7))
    draws = np.array([[(row == d).sum() for d in range(7)] for row in drawn])
    expected = statistics.studentised_interval(list(y), list(x), draws.tolist(), confidence)
    estimate = interval(y[:, None], x[:, None], confidence=confidence, seed=11)
    assert (estimate.low, estimate.high) == pytest.approx(expected, rel=1e-10)


def test_the_draws_are_blocks_of_one_stream_whatever_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    y = np.random.default_rng(8).gamma(2.0, 0.5, (40, 2))
    whole = interval(y, np.ones((40, 2)), np.array([1.0, -1.0]), seed=3)
    intervals._multiplied.cache_clear()
    monkeypatch.setattr(intervals, "BLOCK", 40 * 77)
    monkeypatch.setattr(intervals, "KEPT", 0)
    assert interval(y, np.ones((40, 2)), np.array([1.0, -1.0]), seed=3) == pytest.approx(whole, rel=1e-12)


def test_cells_of_as_many_documents_share_one_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, before = [], intervals._drawn
    intervals._multiplied.cache_clear()
    monkeypatch.setattr(intervals, "_drawn", lambda *given: drawn.append(given) or before(*given))
    rng = np.random.default_rng(9)
    for _ in range(5):
        interval(rng.gamma(2.0, 0.5, (6, 1)), np.ones((6, 1)), seed=4)
    interval(rng.gamma(2.0, 0.5, (7, 1)), np.ones((7, 1)), seed=4)
    assert drawn == [(6, 4), (7, 4)]
    intervals._multiplied.cache_clear()


def test_memory_does_not_grow_with_the_documents() -> None:
    """30 000 documents drawn in one piece are 4.8 GB."""
    y = np.random.default_rng(10).gamma(2.0, 0.5, (30_000, 1))
    tracemalloc.start()
    counts = next(iter(intervals.resamples(30_000, 0)))
    intervals.contrast(counts.astype(np.float64), y, np.ones_like(y), np.ones(1), log=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6


def test_little_of_the_width_is_left_to_the_seed() -> None:
    y = np.random.default_rng(12).normal(3.0, 0.3, (10, 1))  # 1999 resamples leave 0.03
    found = np.array([interval(y, np.ones((10, 1)), seed=seed)[1:] for seed in range(12)])
    assert (found.std(axis=0) / (found[:, 1] - found[:, 0]).mean() < 0.012).all()


def test_seeded() -> None:
    y = np.random.default_rng(5).uniform(1, 2, (8, 1))
    assert interval(y, np.ones((8, 1)), seed=1) == interval(y, np.ones((8, 1)), seed=1)
    assert interval(y, np.ones((8, 1)), seed=1) != interval(y, np.ones((8, 1)), seed=2)
