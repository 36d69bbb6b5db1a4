import math

import numpy as np
import pytest

from harness.errors import UserError
from harness.statistics.context_length import effective_context_length, slope
from tests import synthetic
from tests.synthetic import exact


def test_effective_length_is_the_last_before_the_first_failure() -> None:
    recovering = exact({256: 3.2, 512: 3.0, 1024: 3.04, 2048: 3.2, 4096: 2.9})
    line = effective_context_length(recovering, tolerance=0.05).iloc[0]
    assert (line["effective_ctx"], line["beyond"]) == (1024, False)
    assert (line["low"], line["high"]) == (1024, 1024)
    assert effective_context_length(recovering, 0.03).iloc[0]["effective_ctx"] == 512
    kept = effective_context_length(recovering, 0.3).iloc[0]
    assert (kept["effective_ctx"], kept["beyond"]) == (4096, True)


def test_effective_length_compares_with_the_best_of_all_shorter_lengths() -> None:
    """Each step is within 5 %, their sum is not."""
    creeping = exact({256: 3.0, 512: 3.04, 1024: 3.08, 2048: 3.12})
    assert effective_context_length(creeping, 0.05).iloc[0]["effective_ctx"] == 512


def test_effective_length_interval_is_as_wide_as_the_doubt() -> None:
    doubtful = exact({512: 3.0, 1024: 3.045, 2048: 3.5})
    noise = np.where(doubtful["document_index"] % 2, 0.03, -0.03) * (doubtful["ctx"] == 1024)
    doubtful["nll_sum"] += noise * doubtful["num_scored"]
    line = effective_context_length(doubtful, 0.05).iloc[0]
    assert (line["low"], line["effective_ctx"], line["high"]) == (512, 1024, 1024)
    few = effective_context_length(doubtful[doubtful["document_index"] < 4], 0.05).iloc[0]
    assert few["effective_ctx"] == 1024
    assert math.isnan(few["low"])
    with pytest.raises(UserError, match="tolerance must be >= 0"):
        effective_context_length(doubtful, -0.1)


def test_slope_is_the_least_squares_line() -> None:
    means = {256: 3.3, 512: 3.0, 2048: 3.1, 4096: 3.9}
    line = slope(exact(means)).iloc[0]
    expected = np.polyfit(np.log2(list(means)), list(means.values()), 1)[0]
    assert line["slope"] == pytest.approx(expected, rel=1e-12)
    assert slope(exact(means), shortest=512).iloc[0]["slope"] == pytest.approx(
        np.polyfit([9, 11, 12], [3.0, 3.1, 3.9], 1)[0], rel=1e-12
    )
    assert slope(exact({256: 3.3})).empty


def test_slope_interval_covers_the_truth_and_is_paired() -> None:
    table = slope(synthetic.sweep(), shortest=512).set_index("curve")
    truth = {"none": 1.06, "linear": 0.41, "ntk": 0.28, "yarn": 0.01}
    for curve, expected in truth.items():
        assert table.loc[curve, "low"] - 0.005 < expected < table.loc[curve, "high"] + 0.005
        assert table.loc[curve, "high"] - table.loc[curve, "low"] < 0.03
