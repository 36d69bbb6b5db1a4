"""Frequency methods: properties of all, golden values from papers, transformers and other code, errors."""

import json
import math
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from omegaconf import OmegaConf

from harness.errors import UserError
from harness.methods import METHODS, RopeFrequencies, RopeGeometry, build, construct
from harness.methods.frequency.ramp import corner, dimension_ramp
from harness.methods.frequency.rescale_factors import published_sets, read
from harness.methods.modifiers.resonance import resonant
from tests.reference import frequencies as reference

LLAMA2 = RopeGeometry(rotary_dim=128, rope_theta=1e4, original_max_position_embeddings=4096)
LLAMA3 = RopeGeometry(rotary_dim=128, rope_theta=5e5, original_max_position_embeddings=8192)
QWEN = RopeGeometry(rotary_dim=128, rope_theta=1e6, original_max_position_embeddings=32768)
SMALL = RopeGeometry(rotary_dim=64, rope_theta=1e4, original_max_position_embeddings=512)
PARTIAL = RopeGeometry(rotary_dim=20, rope_theta=1e4, original_max_position_embeddings=2048)
GEOMETRIES = [LLAMA2, LLAMA3, QWEN, SMALL, PARTIAL]


def _names(name: str) -> set[str]:
    return {field.name for field in fields(METHODS[name])}


FREQUENCY = [name for name, method in METHODS.items() if method.kind == "frequency"]
SCALED = [name for name in FREQUENCY if name not in {"none", "abf", "power", "truncated", "longrope"}]
GOLDEN = json.loads((Path(__file__).parent / "golden_inv_freq.json").read_text())
TIGHT = 1e-12  # float64 against float64
FLOAT32 = 1e-6  # against implementations in float32


def params(name: str, geometry: RopeGeometry) -> dict[str, Any]:
    """What a method cannot do without."""
    if name == "longrope":
        return {"long_factor": np.linspace(1, 9, geometry.rotary_dim // 2).tolist()}
    return {}


def frequencies(name: str, geometry: RopeGeometry, length: int, **given: Any) -> RopeFrequencies:
    method = build(name, params(name, geometry) | given, geometry, length)
    result: RopeFrequencies = method(geometry, length)
    return result


# Properties of all methods.


@pytest.mark.parametrize("name", FREQUENCY)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_frequencies_are_finite_ordered_and_float64(name: str, geometry: RopeGeometry) -> None:
    trained = geometry.original_max_position_embeddings
    for length in (trained // 2, trained, trained + 1, 8 * trained, 64 * trained):
        result = frequencies(name, geometry, length)
        assert result.inv_freq.shape == (geometry.rotary_dim // 2,)
        assert result.inv_freq.dtype == np.float64
        assert np.all(np.isfinite(result.inv_freq))
        assert np.all(result.inv_freq >= 0) if name == "truncated" else np.all(result.inv_freq > 0)
        assert np.all(np.diff(result.inv_freq) <= 0)
        assert result.attention_scaling >= 1


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_no_scaling_within_the_trained_length(name: str, geometry: RopeGeometry) -> None:
    for length in (2, geometry.original_max_position_embeddings):
        result = frequencies(name, geometry, length)
        assert_allclose(result.inv_freq, geometry.inv_freq, rtol=TIGHT)
        assert result.attention_scaling == 1
        assert result.unscaled_prefix == 0


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("factor", [2, 8, 32])
def test_scaling_stays_between_default_and_interpolation(name: str, geometry: RopeGeometry, factor: int) -> None:
    result = frequencies(name, geometry, factor * geometry.original_max_position_embeddings)
    ratio = result.inv_freq / geometry.inv_freq
    assert np.all(ratio <= 1 + TIGHT)
    assert np.all(ratio >= 1 / factor - TIGHT)
    assert ratio[-1] < 0.6  # the slowest is scaled


@pytest.mark.parametrize("name", FREQUENCY)
def test_a_call_leaves_no_trace(name: str) -> None:
    method = build(name, params(name, LLAMA2), LLAMA2, 32768)
    first = method(LLAMA2, 32768)
    for length in (131072, 4096, 17):
        method(LLAMA2, length)
    again = method(LLAMA2, 32768)
    assert_array_equal(first.inv_freq, again.inv_freq)
    assert first[1:] == again[1:]
    with pytest.raises(FrozenInstanceError):
        method.version = 2


@pytest.mark.parametrize("name", FREQUENCY)
def test_depends_on_length_is_true_to_its_word(name: str) -> None:
    method = build(name, params(name, LLAMA2), LLAMA2, 32768)
    results = [method(LLAMA2, length) for length in (100, 4096, 8192, 32768)]
    same = all(np.array_equal(results[0].inv_freq, other.inv_freq) for other in results[1:])
    assert same != method.depends_on_length


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_what_it_is(name: str) -> None:
    method = METHODS[name]
    assert method.kind in {"frequency", "native", "attention", "encoding"}
    assert method.changes
    assert method.source
    assert method.version >= 1
    assert hasattr(method, "depends_on_length")


@pytest.mark.parametrize("name", METHODS)
def test_configuration_writes_out_the_defaults(name: str) -> None:
    path = Path(__file__).parents[2] / "conf" / "method" / f"{name}.yaml"
    written = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(written, dict)
    assert written.pop("name") == name
    assert written.pop("logn") is False
    assert written.pop("resonance") is False
    assert written == {field.name: field.default for field in fields(METHODS[name])}


# Golden values.


def reference_values(geometry: RopeGeometry, s: float) -> list[tuple[str, dict[str, Any], list[float], float]]:
    """Method, parameters, the paper's frequencies and attention scaling, at s times the trained length."""
    d, b, trained = geometry.rotary_dim, geometry.rope_theta, geometry.original_max_position_embeddings
    length, attention = round(s * trained), reference.yarn_attention(s)
    rescale = [1 + i**1.5 / d for i in range(d // 2)]
    su = reference.su_attention(s, trained)
    return [
        ("none", {}, reference.none(d, b), 1),
        ("linear", {}, reference.linear(d, b, s), 1),
        ("ntk", {}, reference.ntk(d, b, s), 1),
        ("ntk_fixed", {}, reference.ntk_fixed(d, b, s), 1),
        ("ntk_mixed", {}, reference.ntk_mixed(d, b, s, 0.75), 1),
        ("ntk_mixed", {"factor": 12, "beta": 0.625}, reference.ntk_mixed(d, b, 12, 0.625), 1),
        ("ntk_by_parts", {}, reference.ntk_by_parts(d, b, trained, s), 1),
        ("dynamic_ntk", {}, reference.dynamic_ntk(d, b, trained, length), 1),
        ("dynamic_ntk", {"factor": 4.0}, reference.dynamic_ntk(d, b, trained, length, 4), 1),
        ("dynamic_linear", {}, reference.linear(d, b, s), 1),
        ("dynamic_linear", {"factor": 3 * s}, reference.linear(d, b, 3 * s), 1),
        ("yarn", {}, reference.yarn(d, b, trained, s), attention),
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
        ("dynamic_yarn", {}, reference.yarn(d, b, trained, s), attention),
        (
            "dynamic_yarn",
            {"factor": 2 * s},
            reference.yarn(d, b, trained, 2 * s),
            reference.yarn_attention(2 * s),
        ),
        ("longrope", {"long_factor": rescale}, reference.longrope(d, b, rescale), su),
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
            reference.su_attention(3 * s, trained),
        ),
        ("abf", {"rope_theta": 1e6}, reference.none(d, 1e6), 1),
        ("abf", {}, reference.none(d, 5e5), 1),
        ("power", {}, reference.power(d, b, 0.5), 1),
        ("power", {"exponent": 2, "factor": 4}, reference.power(d, b, 2, 4), 1),
        ("truncated", {}, reference.truncated(d, b, trained), 1),
        (
            "truncated",
            {"cutoff_length": 700, "factor": 4, "exponent": 0.5},
            reference.truncated(d, b, 700, 4, 0.5),
            1,
        ),
        ("llama3", {}, reference.llama3(d, b, trained, s), 1),
        (
            "llama3",
            {"low_freq_factor": 2, "high_freq_factor": 16},
            reference.llama3(d, b, trained, s, 2, 16),
            1,
        ),
    ]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("s", [2, 8, 11.5])
def test_frequencies_are_the_papers(geometry: RopeGeometry, s: float) -> None:
    cases = reference_values(geometry, s)
    assert {name for name, *_ in cases} == set(FREQUENCY)
    for name, given, inv_freq, attention in cases:
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


LONG = np.geomspace(1, 30, 64).tolist()
SHORT = np.linspace(1, 1.3, 64).tolist()


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


# Factors.


def test_factor_is_resolved_from_the_length_once() -> None:
    method = construct("yarn", {})
    assert method.factor is None
    assert method.resolved(LLAMA2, 32768).factor == 8
    assert method.resolved(LLAMA2, 1024).factor == 1
    assert construct("yarn", {"factor": 2}).resolved(LLAMA2, 32768).factor == 2
    assert type(construct("yarn", {"factor": 2}).factor) is float
    assert construct("yarn", {"factor": 2}) == construct("yarn", {"factor": 2.0})


# LongRoPE.


def test_longrope_switches_factors_at_the_trained_length() -> None:
    method = build("longrope", {"long_factor": LONG, "short_factor": SHORT, "factor": 8.0}, LLAMA2, 32768)
    assert method.depends_on_length
    assert_allclose(method(LLAMA2, 4096).inv_freq, reference.longrope(128, 1e4, SHORT), rtol=TIGHT)
    assert_allclose(method(LLAMA2, 4097).inv_freq, reference.longrope(128, 1e4, LONG), rtol=TIGHT)
    assert method(LLAMA2, 4096).attention_scaling == method(LLAMA2, 4097).attention_scaling > 1


def test_longrope_options() -> None:
    ours = {"long_factor": LONG, "factor": 8.0}
    assert frequencies("longrope", LLAMA2, 32768, **ours, unscaled_prefix=12).unscaled_prefix == 12
    assert frequencies("longrope", LLAMA2, 32768, **ours, temperature="none").attention_scaling == 1
    assert frequencies("longrope", LLAMA2, 32768, **ours, temperature=1.25).attention_scaling == 1.25
    late = build("longrope", ours | {"short_temperature": False}, LLAMA2, 32768)
    assert late.depends_on_length
    assert late(LLAMA2, 4096).attention_scaling == 1 < late(LLAMA2, 4097).attention_scaling
    dynamic = build("longrope", ours | {"dynamic": True}, LLAMA2, 32768)
    assert dynamic.depends_on_length
    assert_allclose(dynamic(LLAMA2, 2048).inv_freq, LLAMA2.inv_freq, rtol=TIGHT)  # never raised
    assert_allclose(dynamic(LLAMA2, 32768).inv_freq, reference.longrope(128, 1e4, LONG), rtol=TIGHT)


def test_published_sets_are_complete() -> None:
    assert len(published_sets()) == 30
    for name, published in published_sets().items():
        factors = read(name).long_factor
        assert len(factors) == 64
        assert min(factors) >= 1
        assert max(factors) < 1.5 * max(published.target_ctx, published.finetuned_ctx) / 4096
        assert name in published.source
        assert build("longrope", {"factors": name}, LLAMA2, 32768).long_factor == factors


def test_published_values() -> None:
    # as printed in the authors' files
    assert_allclose(
        read("ft_la2_256k").long_factor[:4] + read("ft_la2_256k").long_factor[-1:],
        [1.019999980926514, 1.029999971389771, 1.049999952316284, 1.049999952316284, 64.76999664306641],
        rtol=1e-7,
    )
    assert read("ft_la2_128k").long_factor[:19] == [1.0] * 19
    assert read("ft_la2_128k").long_factor[-20:] == [32.0] * 20
    descents = {n: int(np.sum(np.diff(read(n).long_factor) < 0)) for n in ("ft_mis_128k", "ft_mis_256k", "ft_la2_256k")}
    assert descents == {"ft_mis_128k": 4, "ft_mis_256k": 1, "ft_la2_256k": 0}


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("list.json", json.dumps(LONG)),
        ("pair.json", json.dumps({"long_factor": LONG, "short_factor": SHORT})),
        ("config.json", json.dumps({"rope_scaling": {"type": "longrope", "long_factor": LONG, "short_factor": SHORT}})),
        ("row.csv", ",".join(map(repr, LONG))),
        ("column.txt", "\n".join(map(repr, LONG))),
        ("layers.csv", "\n".join([",".join(map(repr, LONG))] * 3)),
    ],
)
def test_factor_files(tmp_path: Path, file: str, content: str) -> None:
    (tmp_path / file).write_text(content)
    method = build("longrope", {"factors": str(tmp_path / file)}, LLAMA2, 32768)
    assert method.long_factor == LONG
    assert method.short_factor == (SHORT if "short_factor" in content else None)
    assert method.factors is None  # numbers identify a method, not where they lay
    both = {"long_factor": SHORT, "short_factors": str(tmp_path / file)}
    assert build("longrope", both, LLAMA2, 32768).short_factor == LONG


# Resonance.


@pytest.mark.parametrize("name", FREQUENCY)
def test_resonance_makes_wavelengths_whole(name: str) -> None:
    scaled = frequencies(name, LLAMA2, 32768)
    result = resonant(scaled)
    assert_allclose(result.inv_freq, reference.resonance(scaled.inv_freq.tolist()), rtol=TIGHT)
    turning = result.inv_freq > 0
    assert_array_equal(turning, scaled.inv_freq > 0)
    wavelengths = 2 * np.pi / result.inv_freq[turning]
    assert_allclose(wavelengths, np.round(wavelengths), rtol=TIGHT)
    assert np.all(result.inv_freq <= scaled.inv_freq * (1 + 1 / 12))
    assert result[1:] == scaled[1:]


# Errors: one line, what is allowed, what was given.


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
        *[(n, {"factor": 0.5}, [n, "factor must be", ">= 1", "0.5"]) for n in FREQUENCY if "factor" in _names(n)],
        *[(n, {"factor": math.nan}, [n, "factor", "nan"]) for n in FREQUENCY if "factor" in _names(n)],
        *[(n, {"factor": math.inf}, [n, "factor", "inf"]) for n in FREQUENCY if "factor" in _names(n)],
        ("yarn", {"beta_fast": 1, "beta_slow": 32}, ["beta_fast must be > beta_slow (32", "1.0"]),
        ("dynamic_yarn", {"beta_fast": 0.5}, ["dynamic_yarn: beta_fast must be > beta_slow"]),
        ("yarn", {"beta_slow": 0}, ["beta_slow", "> 0"]),
        ("yarn", {"ramp": "dimensions"}, ["ramp", "'dimension'", "rotations"]),
        ("yarn", {"blend": "geometric"}, ["blend", "arithmetic", "harmonic"]),
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
def test_mistakes_are_told_in_one_line(name: str, given: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as raised:
        frequencies(name, LLAMA2, 32768, **given)
    message = str(raised.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("bad.json", "[1, 2", "not JSON"),
        ("words.json", '["a"]', "list of numbers"),
        ("none.json", '{"factor": 8}', "long_factor"),
        ("words.csv", "a,b", "numbers"),
        ("layers.csv", "1,2\n1,3", "different layers"),
    ],
)
def test_bad_factor_files(tmp_path: Path, file: str, content: str, words: str) -> None:
    (tmp_path / file).write_text(content)
    with pytest.raises(UserError, match=words) as raised:
        build("longrope", {"factors": str(tmp_path / file)}, LLAMA2, 32768)
    assert "\n" not in str(raised.value)


def test_geometries_that_cannot_be() -> None:
    for wrong in ({"rotary_dim": 3}, {"rope_theta": 1.0}, {"original_max_position_embeddings": 1}):
        with pytest.raises(UserError, match=str(next(iter(wrong.values())))):
            RopeGeometry(**({"rotary_dim": 4, "rope_theta": 2.0, "original_max_position_embeddings": 2} | wrong))
    two = RopeGeometry(rotary_dim=2, rope_theta=1e4, original_max_position_embeddings=512)
    with pytest.raises(UserError, match="rotary_dim >= 4"):
        frequencies("ntk", two, 1024)


def test_resonance_refuses_wavelengths_below_half_a_token() -> None:
    with pytest.raises(UserError, match="half a token"):
        resonant(RopeFrequencies(np.array([20.0, 1.0])))
