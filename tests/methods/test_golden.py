"""Frequencies against papers, transformers and other code."""

import json
import math
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from harness.methods import RopeGeometry
from harness.methods.frequency.ramp import corner, dimension_ramp
from tests.methods.frequencies import (
    FLOAT32,
    FREQUENCY,
    GEOMETRIES,
    LLAMA2,
    LLAMA3,
    LONG,
    QWEN,
    SHORT,
    TIGHT,
    formula,
    frequencies,
    params,
)
from tests.reference import frequencies as reference

GOLDEN = json.loads((Path(__file__).parent / "golden_inv_freq.json").read_text())


def values(name: str, geometry: RopeGeometry, s: float) -> tuple[list[float], float]:
    """The method's formula and attention scaling in tests/reference, at s times the trained length."""
    trained = geometry.original_max_position_embeddings
    known = {
        "d": geometry.rotary_dim,
        "b": geometry.rope_theta,
        "trained": trained,
        "s": s,
        "length": round(s * trained),
    }
    known |= {"rescale": params(name, geometry).get("long_factor")}

    def called(function: Callable[..., Any]) -> Any:
        return function(**{name: known[name] for name in signature(function).parameters if name in known})

    attention = getattr(reference, f"{name}_attention", None)
    return called(formula(name)), 1 if attention is None else called(attention)


@pytest.mark.parametrize("name", FREQUENCY)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("s", [2, 8, 11.5])
def test_frequencies_are_the_papers(name: str, geometry: RopeGeometry, s: float) -> None:
    inv_freq, attention = values(name, geometry, s)
    result = frequencies(name, geometry, round(s * geometry.original_max_position_embeddings))
    assert_allclose(result.inv_freq, inv_freq, rtol=1e-9)
    assert_allclose(result.attention_scaling, attention, rtol=TIGHT)


def variants(geometry: RopeGeometry, s: float) -> list[tuple[str, dict[str, Any], list[float], float]]:
    """Method, parameters, the paper's frequencies and attention scaling, at s times the trained length."""
    d, b, trained = geometry.rotary_dim, geometry.rope_theta, geometry.original_max_position_embeddings
    length, attention = round(s * trained), reference.yarn_attention(s)
    rescale = [1 + i**1.5 / d for i in range(d // 2)]
    return [
        ("ntk_mixed", {"factor": 12, "beta": 0.625}, reference.ntk_mixed(d, b, 12, 0.625), 1),
        ("dynamic_ntk", {"factor": 4.0}, reference.dynamic_ntk(d, b, trained, length, 4), 1),
        ("dynamic_linear", {"factor": 3 * s}, reference.linear(d, b, 3 * s), 1),
        ("yarn", {"truncate": False}, reference.yarn(d, b, trained, s, rounded=False), attention),
        ("yarn", {"ramp": "rotations"}, reference.yarn_paper(d, b, trained, s), attention),
        ("yarn", {"blend": "harmonic"}, reference.yarn_harmonic(d, b, trained, s), attention),
        ("yarn", {"beta_fast": 128, "beta_slow": 2}, reference.yarn(d, b, trained, s, 128, 2), attention),
        ("yarn", {"attention_factor": 1.5}, reference.yarn(d, b, trained, s), 1.5),
        (
            "yarn",
            {"mscale": 0.707, "mscale_all_dim": 1.0},
            reference.yarn(d, b, trained, s),
            (0.0707 * math.log(s) + 1) / (0.1 * math.log(s) + 1),
        ),
        (
            "dynamic_yarn",
            {"factor": 2 * s},
            reference.yarn(d, b, trained, 2 * s),
            reference.yarn_attention(2 * s),
        ),
        (
            "longrope",
            {"long_factor": rescale},
            reference.longrope(d, b, rescale),
            reference.longrope_attention(s, trained),
        ),
        (
            "longrope",
            {"long_factor": rescale, "temperature": "yarn"},
            reference.longrope(d, b, rescale),
            attention,
        ),
        (
            "longrope",
            {"long_factor": rescale, "dynamic": True, "factor": 3 * s},
            reference.longrope_dynamic(d, b, rescale, 3 * s, trained, length),
            reference.longrope_attention(3 * s, trained),
        ),
        ("abf", {"rope_theta": 1e6}, reference.none(d, 1e6), 1),
        ("power", {"exponent": 2, "factor": 4}, reference.power(d, b, 2, 4), 1),
        (
            "truncated",
            {"cutoff_length": 700, "factor": 4, "exponent": 0.5},
            reference.truncated(d, b, 700, 4, 0.5),
            1,
        ),
        (
            "llama3",
            {"low_freq_factor": 2, "high_freq_factor": 16},
            reference.llama3(d, b, trained, s, 2, 16),
            1,
        ),
    ]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("s", [2, 8, 11.5])
def test_variants_are_the_papers(geometry: RopeGeometry, s: float) -> None:
    for name, given, inv_freq, attention in variants(geometry, s):
        result = frequencies(name, geometry, round(s * geometry.original_max_position_embeddings), **given)
        assert_allclose(result.inv_freq, inv_freq, rtol=1e-9, err_msg=f"{name} {given}")
        assert_allclose(result.attention_scaling, attention, rtol=TIGHT, err_msg=f"{name} {given}")


@pytest.mark.parametrize(
    ("key", "name", "given"),
    [
        ("default", "none", {}),
        ("linear", "linear", {}),
        ("ntk_aware", "ntk", {}),
        ("ntk_by_parts_v0", "ntk_by_parts", {}),
        ("yarn", "yarn", {}),
        ("yarn_paper_ramp", "yarn", {"ramp": "rotations"}),
        ("yarn_notrunc", "yarn", {"truncate": False}),
        ("ntk_mixed_k8_b0625", "ntk_mixed", {"beta": 0.625}),
        ("ntk_mixed_k12_b075", "ntk_mixed", {"factor": 12.0}),
        ("dynamic_ntk_factor8_at_32768", "dynamic_ntk", {"factor": 8.0}),
        ("llama3", "llama3", {}),
        ("giraffe_power_0_5", "power", {}),
        ("giraffe_trunc_2048", "truncated", {"cutoff_length": 2048}),
    ],
)
def test_frequencies_are_those_of_code_that_shares_nothing_with_ours(
    key: str, name: str, given: dict[str, Any]
) -> None:
    # d = 128, base 10000, trained length 4096, factor 8, computed apart from this project
    assert_allclose(frequencies(name, LLAMA2, 32768, **given).inv_freq, GOLDEN[key], rtol=FLOAT32)


def test_every_golden_list_is_used() -> None:
    source = Path(__file__).read_text()
    assert all(f'("{key}",' in source for key in GOLDEN if key != "config")


def from_transformers(kind: str, geometry: RopeGeometry, length: int, **declared: Any) -> tuple[np.ndarray, float]:
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = transformers.LlamaConfig(
        hidden_size=geometry.rotary_dim * 2,
        num_attention_heads=2,
        head_dim=geometry.rotary_dim,
        max_position_embeddings=geometry.original_max_position_embeddings,
        rope_parameters={
            "rope_type": kind,
            "rope_theta": geometry.rope_theta,
            "original_max_position_embeddings": geometry.original_max_position_embeddings,
        }
        | declared,
    )
    inv_freq, attention = ROPE_INIT_FUNCTIONS[kind](config, "cpu", seq_len=length)
    return inv_freq.double().numpy(), attention


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("geometry", [LLAMA2, LLAMA3, QWEN], ids=str)
@pytest.mark.parametrize("times", [0.5, 1, 4, 8])
@pytest.mark.parametrize(
    ("name", "kind", "given"),
    [
        ("linear", "linear", {"factor": 8.0}),
        ("dynamic_ntk", "dynamic", {"factor": 8.0}),
        ("yarn", "yarn", {"factor": 8.0}),
        ("yarn", "yarn", {"factor": 40.0, "truncate": False, "beta_fast": 16.0, "beta_slow": 2.0}),
        ("yarn", "yarn", {"factor": 40.0, "mscale": 0.707, "mscale_all_dim": 1.0}),
        ("yarn", "yarn", {"factor": 4.0, "attention_factor": 1.3}),
        ("longrope", "longrope", {"factor": 8.0, "short_factor": SHORT, "long_factor": LONG}),
        ("llama3", "llama3", {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}),
    ],
)
def test_frequencies_are_those_of_transformers(
    name: str, kind: str, given: dict[str, Any], times: float, geometry: RopeGeometry
) -> None:
    length = int(times * geometry.original_max_position_embeddings)
    inv_freq, attention = from_transformers(kind, geometry, length, **given)
    result = frequencies(name, geometry, length, **given)
    assert_allclose(result.inv_freq, inv_freq, rtol=FLOAT32)
    assert_allclose(result.attention_scaling, attention, rtol=1e-9)


@pytest.mark.parametrize(
    ("trained", "base", "d", "low", "high"),
    [
        (2048, 1e4, 128, 16, 41),
        (4096, 1e4, 128, 20, 46),
        (8192, 1e4, 128, 25, 50),
        (8192, 5e5, 128, 18, 35),
        (32768, 1e6, 128, 23, 40),
        (512, 1e4, 64, 3, 16),
        (1024, 1e4, 64, 5, 18),
    ],
)
def test_yarn_corners_of_known_models(trained: int, base: float, d: int, low: int, high: int) -> None:
    geometry = RopeGeometry(rotary_dim=d, rope_theta=base, original_max_position_embeddings=trained)
    assert (math.floor(corner(geometry, 32)), math.ceil(corner(geometry, 1))) == (low, high)
    ramp = dimension_ramp(geometry, 32, 1)
    assert np.flatnonzero(ramp > 0)[0] == low + 1
    assert np.flatnonzero(ramp < 1)[-1] == high - 1


@pytest.mark.parametrize(
    ("factor", "yarn", "su"),
    [(2, 1.0693, 1.0408), (4, 1.1386, 1.0801), (8, 1.2079, 1.1180), (16, 1.2773, 1.1547), (32, 1.3466, 1.1902)],
)
def test_attention_scaling_of_known_factors(factor: int, yarn: float, su: float) -> None:
    ones = {"long_factor": [1.0] * 64}
    length = factor * 4096
    assert frequencies("yarn", LLAMA2, length).attention_scaling == pytest.approx(yarn, abs=5e-5)
    assert frequencies("longrope", LLAMA2, length, **ones).attention_scaling == pytest.approx(su, abs=5e-5)


def test_ntk_and_its_kin_divide_the_slowest_by_the_factor() -> None:
    for name in ("ntk", "ntk_fixed", "ntk_mixed", "linear", "yarn", "llama3", "ntk_by_parts"):
        assert frequencies(name, LLAMA2, 32768).inv_freq[-1] / LLAMA2.inv_freq[-1] == pytest.approx(1 / 8, rel=1e-14)
    assert frequencies("ntk", LLAMA2, 32768).inv_freq[0] == 1
    assert 1 / frequencies("ntk_fixed", LLAMA2, 32768).inv_freq[0] == pytest.approx(1.033, abs=5e-4)


def test_truncation_counts_of_the_paper() -> None:
    inv_freq = frequencies("truncated", LLAMA2, 32768, cutoff_length=2048).inv_freq
    cutoff = 2 * math.pi / 2048
    assert [int(np.sum(part)) for part in (inv_freq >= cutoff, inv_freq == cutoff / 16, inv_freq == 0)] == [41, 14, 9]


def test_dynamic_conventions_differ_by_what_the_docstrings_say() -> None:
    paper = frequencies("dynamic_ntk", LLAMA2, 32768).inv_freq
    other = frequencies("dynamic_ntk", LLAMA2, 32768, factor=8).inv_freq
    assert paper[-1] / other[-1] == pytest.approx(57 / 8)
    assert_allclose(frequencies("ntk", LLAMA2, 32768, factor=57).inv_freq, other, rtol=TIGHT)

    def lowest(name: str, given: dict[str, Any], than: str, default: dict[str, Any]) -> float:
        ratio = (
            frequencies(name, LLAMA2, 32768, **given).inv_freq / frequencies(than, LLAMA2, 32768, **default).inv_freq
        )
        return float(ratio.min())

    assert lowest("yarn", {"ramp": "rotations"}, "yarn", {}) == pytest.approx(0.43, abs=0.005)
    assert lowest("yarn", {"truncate": False}, "yarn", {}) == pytest.approx(0.79, abs=0.005)
    assert lowest("yarn", {"blend": "harmonic"}, "yarn", {}) == pytest.approx(0.40, abs=0.005)
    assert lowest("yarn", {"ramp": "rotations"}, "ntk_by_parts", {}) == pytest.approx(1 - 0.62, abs=0.005)
    assert lowest("ntk_mixed", {"beta": 0.625}, "ntk_mixed", {}) == pytest.approx(1 - 0.13, abs=0.005)
