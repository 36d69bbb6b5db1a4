"""Parameters and geometries: how they are resolved, and mistakes in them."""

import math
from typing import Any

import pytest

from harness.errors import UserError
from harness.methods import RopeGeometry, construct
from tests.methods.frequencies import FREQUENCY, LLAMA2, LONG, frequencies, parameters


def test_factor_is_resolved_from_the_length_once() -> None:
    method = construct("yarn", {})
    assert method.factor is None
    assert method.resolved(LLAMA2, 32768).factor == 8
    assert method.resolved(LLAMA2, 1024).factor == 1
    assert construct("yarn", {"factor": 2}).resolved(LLAMA2, 32768).factor == 2
    assert type(construct("yarn", {"factor": 2}).factor) is float
    assert construct("yarn", {"factor": 2}) == construct("yarn", {"factor": 2.0})


# One line: what is allowed, what was given.


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("yarm", {}, ["'yarm'", "'yarn'", "linear"]),
        ("yarn", {"facto": 2}, ["'facto'", "'factor'"]),
        ("none", {"factor": 2}, ["none has no parameters", "'factor'"]),
        ("yarn", {"factor": "eight"}, ["factor", "float", "'eight'"]),
        ("yarn", {"factor": True}, ["factor", "True"]),
        ("yarn", {"truncate": 1}, ["truncate", "bool", "1"]),
        ("dynamic_ntk", {"factor": None}, ["factor", "None"]),
        *[(n, {"factor": 0.5}, [n, "factor must be", ">= 1", "0.5"]) for n in FREQUENCY if "factor" in parameters(n)],
        *[(n, {"factor": math.nan}, [n, "factor", "nan"]) for n in FREQUENCY if "factor" in parameters(n)],
        *[(n, {"factor": math.inf}, [n, "factor", "inf"]) for n in FREQUENCY if "factor" in parameters(n)],
        ("yarn", {"beta_fast": 1, "beta_slow": 32}, ["beta_fast must be > beta_slow (32", "1.0"]),
        ("dynamic_yarn", {"beta_fast": 0.5}, ["dynamic_yarn: beta_fast must be > beta_slow"]),
        ("yarn", {"beta_slow": 0}, ["beta_slow", "> 0"]),
        ("yarn", {"ramp": "dimensions"}, ["ramp", "'dimension'", "rotations"]),
        ("yarn", {"blend": "geometrical"}, ["blend", "arithmetic", "harmonic"]),
        ("yarn", {"attention_factor": -1}, ["attention_factor", "> 0", "-1"]),
        ("yarn", {"mscale": 1}, ["mscale_all_dim", "None"]),
        ("ntk_by_parts", {"beta_fast": 0.5}, ["beta_fast must be > beta_slow", "0.5"]),
        ("ntk_by_parts", {"gamma_fast": 1}, ["gamma_fast must be > gamma_slow", "1.0"]),
        ("ntk_mixed", {"beta": 0}, ["beta", "> 0"]),
        ("llama3", {"low_freq_factor": 4}, ["high_freq_factor must be > low_freq_factor"]),
        ("abf", {"rope_theta": 1}, ["rope_theta", "> 1"]),
        ("power", {"exponent": 0}, ["exponent", "> 0"]),
        ("truncated", {"exponent": -1}, ["exponent", ">= 0"]),
        ("truncated", {"cutoff_length": 0}, ["cutoff_length", ">= 1"]),
        ("longrope", {"long_factor": None}, ["factors", "long_factor"]),
        ("longrope", {"factors": "ft_la2_256k"}, ["either"]),
        ("longrope", {"short_factor": LONG, "short_factors": "x"}, ["either"]),
        ("longrope", {"long_factor": [1.0] * 63}, ["64 factors", "63"]),
        ("longrope", {"short_factor": [1.0] * 65}, ["short_factor", "64 factors", "65"]),
        ("longrope", {"long_factor": [1.0] * 63 + [0.0]}, ["long_factor", "> 0", "0.0"]),
        ("longrope", {"short_factor": [-1.0] * 64}, ["short_factor", "> 0", "-1"]),
        ("longrope", {"long_factor": ["1"] * 64}, ["long_factor"]),
        ("longrope", {"long_factor": None, "factors": "ft_la2_25k"}, ["'ft_la2_25k'", "'ft_la2_256k'"]),
        ("longrope", {"long_factor": None, "factors": "no/such.json"}, ["no/such.json"]),
        ("longrope", {"temperature": "sue"}, ["temperature", "'su'", "yarn"]),
        ("longrope", {"temperature": 0}, ["temperature", "0"]),
        ("longrope", {"temperature": [1]}, ["temperature", "[1]"]),
        ("longrope", {"unscaled_prefix": -1}, ["unscaled_prefix", ">= 0"]),
        ("longrope", {"dynamic": True}, ["dynamic", "factor > 1", "None"]),
    ],
)
def test_mistakes_are_reported_in_one_line(name: str, given: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as raised:
        frequencies(name, LLAMA2, 32768, **given)
    message = str(raised.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_geometries_that_cannot_be() -> None:
    for wrong in ({"rotary_dim": 3}, {"rope_theta": 1.0}, {"original_max_position_embeddings": 1}):
        with pytest.raises(UserError, match=str(next(iter(wrong.values())))):
            RopeGeometry(**({"rotary_dim": 4, "rope_theta": 2.0, "original_max_position_embeddings": 2} | wrong))
    two = RopeGeometry(rotary_dim=2, rope_theta=1e4, original_max_position_embeddings=512)
    with pytest.raises(UserError, match="rotary_dim >= 4"):
        frequencies("ntk", two, 1024)
