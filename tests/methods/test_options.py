"""Options of methods, and methods that fade frequencies: limits, formulas anew and values worked out elsewhere."""

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from harness import methods
from harness.errors import UserError
from harness.methods.base import parameters
from tests.methods.frequencies import GEOMETRIES, LLAMA2, LLAMA3, TIGHT, frequencies
from tests.reference import frequencies as reference


def test_an_option_at_its_default_is_no_part_of_a_cell() -> None:
    # cells computed before there was the option keep their identity
    plain = methods.construct("yarn", {"factor": 4.0})
    assert set(parameters(plain)) == {
        "factor", "beta_fast", "beta_slow", "ramp", "truncate", "blend", "attention_factor", "mscale", "mscale_all_dim",
    }  # fmt: skip
    changed = methods.construct("yarn", {"factor": 4.0, "temperature_coefficient": 0.07})
    assert parameters(changed) == parameters(plain) | {"temperature_coefficient": 0.07}


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_extrapolation_factor_leads_from_interpolation_to_yarn(geometry) -> None:
    length = 8 * geometry.original_max_position_embeddings
    whole, none = (frequencies("yarn", geometry, length, extrapolation_factor=e) for e in (1.0, 0.0))
    assert_array_equal(whole.inv_freq, frequencies("yarn", geometry, length).inv_freq)
    assert_allclose(none.inv_freq, frequencies("linear", geometry, length).inv_freq, rtol=TIGHT)
    d, b, trained = geometry.rotary_dim, geometry.rope_theta, geometry.original_max_position_embeddings
    expected = reference.yarn_extrapolated(d, b, trained, 8, 0.3)
    assert_allclose(frequencies("yarn", geometry, length, extrapolation_factor=0.3).inv_freq, expected, rtol=1e-9)


def test_geometric_blend_of_llama2_at_eight() -> None:
    arithmetic, geometric, harmonic = (
        frequencies("yarn", LLAMA2, 32768, blend=b).inv_freq for b in ("arithmetic", "geometric", "harmonic")
    )
    ratio = geometric / arithmetic
    assert np.argmin(ratio) == 37
    assert_allclose(ratio[37], 0.6001, atol=5e-5)
    assert_allclose(geometric[37], 0.00125031110, rtol=1e-8)
    assert_allclose(harmonic[37] / geometric[37], 0.6984, atol=5e-5)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("s", [2, 8, 11.5])
def test_geometric_blend_is_that_of_logarithms(geometry, s) -> None:
    d, b, trained = geometry.rotary_dim, geometry.rope_theta, geometry.original_max_position_embeddings
    found = frequencies("yarn", geometry, round(s * trained), blend="geometric").inv_freq
    assert_allclose(found, reference.yarn_geometric(d, b, trained, s), rtol=1e-9)


def test_temperature_coefficient_of_telechat() -> None:
    assert_allclose(
        frequencies("yarn", LLAMA2, 16384, temperature_coefficient=0.07).attention_scaling, 1.09704, atol=5e-6
    )
    assert_allclose(frequencies("yarn", LLAMA2, 16384).attention_scaling, 1.13863, atol=5e-6)


def test_temperature_on_logits_is_the_square_of_that_on_both() -> None:
    both, all_of_it = (frequencies("yarn", LLAMA2, 16384, temperature_on=on) for on in ("rotated", "logits"))
    assert_array_equal(both.inv_freq, all_of_it.inv_freq)
    assert (both.logit_scaling, all_of_it.attention_scaling) == (1, 1)
    assert_allclose(all_of_it.logit_scaling, (0.1 * math.log(4) + 1) ** 2, rtol=TIGHT)


@pytest.mark.parametrize(("length", "factor"), [(100, 1), (4096, 1), (4097, 2), (8192, 2), (8193, 8), (32768, 8)])
def test_static_factors_take_the_smallest_that_covers_the_window(length: int, factor: float) -> None:
    found = frequencies("yarn", LLAMA2, length, static_factors=[8.0, 1.0, 2.0])
    assert_array_equal(found.inv_freq, frequencies("yarn", LLAMA2, length, factor=factor).inv_freq)


def test_cope_of_llama3() -> None:
    found = frequencies("cope", LLAMA3, 8192, channels=20).inv_freq
    assert_array_equal(found[:44], LLAMA3.inv_freq[:44])
    for i, value in {45: 9.771021437e-5, 54: 7.129065036e-6, 62: 2.055254846e-8, 63: 0}.items():
        assert_allclose(found[i], value, rtol=1e-9)
    hard = frequencies("cope", LLAMA3, 8192, channels=20, hard=True).inv_freq
    assert_array_equal(hard, np.where(np.arange(64) < 44, LLAMA3.inv_freq, 0))


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_hard_clip_is_at_rest_where_cope_fades(geometry) -> None:
    d, b, trained = geometry.rotary_dim, geometry.rope_theta, geometry.original_max_position_embeddings
    expected = np.array(reference.cope_hard(d, b, trained))
    if np.count_nonzero(expected == 0) < 2:
        pytest.skip("every channel turns once within the trained length")
    assert_allclose(frequencies("cope", geometry, 2 * trained, hard=True).inv_freq, expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("trained", "base", "channels"),
    [(8192, 5e5, 29), (4096, 1e4, 18), (8192, 1e4, 14), (32768, 1e6, 24), (40960, 1e6, 23)],
)
def test_cope_fades_what_never_turned_once(trained: int, base: float, channels: int) -> None:
    geometry = methods.RopeGeometry(rotary_dim=128, rope_theta=base, original_max_position_embeddings=trained)
    assert methods.build("cope", {}, geometry, 8192).channels == channels


def test_p_rope_keeps_the_fastest() -> None:
    found = frequencies("p_rope", LLAMA2, 4096, share=0.25).inv_freq
    assert_array_equal(found, np.where(np.arange(64) < 16, LLAMA2.inv_freq, 0))
    assert_array_equal(frequencies("p_rope", LLAMA2, 4096, share=1.0).inv_freq, LLAMA2.inv_freq)


def test_base_that_just_reaches_the_window() -> None:
    geometry = methods.RopeGeometry(rotary_dim=128, rope_theta=1e4, original_max_position_embeddings=8192)
    found = methods.build("abf", {"base": "beta0"}, geometry, 16 * 8192)
    assert_allclose(found.rope_theta, 351_655.34, rtol=1e-7)
    for length, base in {4096: 10_000, 16_384: 71_738, 32_768: 192_144}.items():
        assert_allclose(methods.build("abf", {"base": "beta0"}, LLAMA2, length).rope_theta, base, rtol=1e-5)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("s", [1, 2, 11.5])
def test_that_base_is_the_formulas(geometry, s) -> None:
    trained, b = geometry.original_max_position_embeddings, geometry.rope_theta
    found = methods.build("abf", {"base": "beta0"}, geometry, round(s * trained)).rope_theta
    assert_allclose(found, reference.beta0(b, trained, round(s * trained)), rtol=1e-9)


def test_mscales_stand_for_the_temperature_on_their_side() -> None:
    given = {"long_factor": [2.0] * 64, "factor": 8.0, "short_mscale": 1.1, "long_mscale": 1.3}
    within, beyond = (frequencies("longrope", LLAMA2, length, **given).attention_scaling for length in (4096, 4097))
    assert (within, beyond) == (1.1, 1.3)
    assert methods.build("longrope", given, LLAMA2, 4096).depends_on_length
    plain = frequencies("longrope", LLAMA2, 32768, long_factor=[2.0] * 64, factor=8.0)
    assert_allclose(plain.attention_scaling, math.sqrt(1 + math.log(8) / math.log(4096)), rtol=TIGHT)


def test_dca_takes_another_coefficient() -> None:
    ours, qwen = (frequencies("dca", LLAMA2, 32768, **given) for given in ({}, {"temperature_coefficient": 0.1}))
    assert_allclose(ours.attention_scaling, 0.05 * math.log(8) + 1, rtol=TIGHT)
    assert_allclose(qwen.attention_scaling, 0.1 * math.log(8) + 1, rtol=TIGHT)


def test_dca_with_the_lengths_that_a_checkpoint_declares() -> None:
    qwen = replace(LLAMA2, original_max_position_embeddings=262_144, dual_chunk=(262_144, 8192))
    declared = methods.build("dca", {"form": "declared"}, qwen, 1_010_000)
    assert (declared.chunk, declared.local, declared.temperature) == (262_144, 8192, True)
    assert_allclose(declared(qwen, 1_010_000).attention_scaling, 0.1 * math.log(1_010_000 / 262_144) + 1, rtol=TIGHT)
    assert declared(qwen, 100_000).attention_scaling == 1  # clipped: never below
    halved = methods.build("dca", {"form": "declared", "local": 4096, "temperature_coefficient": 0.05}, qwen, 524_288)
    assert (halved.chunk, halved.local) == (262_144, 4096)
    assert_allclose(halved(qwen, 524_288).attention_scaling, 0.05 * math.log(2) + 1, rtol=TIGHT)
    assert qwen.values == replace(qwen, dual_chunk=None).values  # other methods' cells are what they were


def test_dcas_own_coefficient_is_no_part_of_a_cell() -> None:
    given = ({}, {"temperature_coefficient": 0.05}, {"form": "paper", "temperature_coefficient": 0.05})
    assert ["temperature_coefficient" in parameters(methods.build("dca", g, LLAMA2, 8192)) for g in given] == [
        False
    ] * 3
    assert parameters(methods.build("dca", {"temperature_coefficient": 0.1}, LLAMA2, 8192))["temperature_coefficient"]


@pytest.mark.parametrize("length", [1000, 4096, 131_072])
def test_strings_code_sharpens_attention_at_every_length(length: int) -> None:
    paper, code = (frequencies("string", LLAMA2, length, form=form) for form in ("paper", "code"))
    assert_array_equal(code.inv_freq, LLAMA2.inv_freq)
    assert paper.attention_scaling == 1
    assert_allclose(code.attention_scaling, 1.0693147, rtol=1e-7)
    assert "form" not in parameters(methods.build("string", {}, LLAMA2, length))


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("yarn", {"extrapolation_factor": 1.5}, r"extrapolation_factor must lie in \[0, 1\], got 1.5"),
        ("yarn", {"temperature_on": "logit"}, "Did you mean 'logits'"),
        ("yarn", {"static_factors": [1.0, 2.0]}, "must hold one of at least 8"),
        ("yarn", {"static_factors": [0.5]}, "factor must be finite and >= 1"),
        ("yarn", {"static_factors": [8.0], "factor": 4.0}, "give either factor or static_factors"),
        ("yarn", {"temperature_coefficient": -1.0}, "temperature_coefficient must be"),
        ("dynamic_yarn", {"static_factors": [8.0]}, "static_factors belong to yarn"),
        ("cope", {"channels": 1}, "channels must be >= 2"),
        ("cope", {"channels": 65}, "channels must be <= 64"),
        ("p_rope", {"share": 1.5}, "share must lie"),
        ("abf", {"base": "beta1"}, "Did you mean 'beta0'"),
        ("dca", {"form": "declared"}, "needs a checkpoint with dual_chunk_attention_config"),
        ("dca", {"form": "declard"}, "Did you mean 'declared'"),
        ("string", {"form": "cod"}, "Did you mean 'code'"),
    ],
)
def test_mistakes_take_one_line(name: str, given: dict, words: str) -> None:
    with pytest.raises(UserError, match=words) as raised:
        frequencies(name, LLAMA2, 32768, **given)
    assert "\n" not in str(raised.value)
