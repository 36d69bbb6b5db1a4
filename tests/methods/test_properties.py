"""What every frequency method keeps, and what each promises."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from harness.errors import UserError
from harness.methods import METHODS, RopeFrequencies, RopeGeometry, build
from harness.methods.base import Promise
from harness.methods.modifiers.resonance import resonant
from tests.methods.frequencies import FREQUENCY, GEOMETRIES, LLAMA2, TIGHT, frequencies, params
from tests.reference import frequencies as reference


def promising(promise: Promise) -> list[str]:
    """The methods that a promise is asked of."""
    return [name for name in FREQUENCY if promise in METHODS[name].promises]


def broken(name: str, promise: Promise) -> str:
    """What to do about a promise that is not kept."""
    method = METHODS[name]
    file = method.__module__.replace(".", "/") + ".py"
    kept = tuple(other for other in method.promises if other != promise)
    return (
        f"{name} does not keep {promise!r} (harness/methods/base.py says what that is). Correct the formula or, where "
        f"it is meant so, write in {file}: promises: ClassVar[tuple[Promise, ...]] = {kept}"
    )


@pytest.mark.parametrize("name", FREQUENCY)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_frequencies_are_finite_ordered_and_float64(name: str, geometry: RopeGeometry) -> None:
    trained = geometry.original_max_position_embeddings
    for length in (trained // 2, trained, trained + 1, 8 * trained, 64 * trained):
        result = frequencies(name, geometry, length)
        assert result.inv_freq.shape == (geometry.rotary_dim // 2,)
        assert result.inv_freq.dtype == np.float64
        assert np.all(np.isfinite(result.inv_freq))
        assert np.all(result.inv_freq >= 0)
        assert np.all(result.inv_freq > 0) or "positive" not in METHODS[name].promises, broken(name, "positive")
        assert np.all(np.diff(result.inv_freq) <= 0)
        assert result.attention_scaling >= 1


@pytest.mark.parametrize("name", promising("identity"))
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_no_scaling_within_the_trained_length(name: str, geometry: RopeGeometry) -> None:
    for length in (2, geometry.original_max_position_embeddings):
        result = frequencies(name, geometry, length)
        assert_allclose(result.inv_freq, geometry.inv_freq, rtol=TIGHT, err_msg=broken(name, "identity"))
        assert result.attention_scaling == 1
        assert result.unscaled_prefix == 0


@pytest.mark.parametrize("name", promising("interpolation"))
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("factor", [2, 8, 32])
def test_scaling_stays_between_default_and_interpolation(name: str, geometry: RopeGeometry, factor: int) -> None:
    result = frequencies(name, geometry, factor * geometry.original_max_position_embeddings)
    ratio = result.inv_freq / geometry.inv_freq
    assert np.all(ratio <= 1 + TIGHT), broken(name, "interpolation")
    assert np.all(ratio >= 1 / factor - TIGHT), broken(name, "interpolation")
    assert ratio[-1] < 0.6, broken(name, "interpolation")  # the slowest is scaled


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
    file = type(method).__module__.replace(".", "/") + ".py"
    assert same != method.depends_on_length, f"{name}: write in {file}: depends_on_length: ClassVar[bool] = {not same}"


def test_what_methods_promise() -> None:
    # what a method no longer promises is no longer tested: this list is to be changed knowingly
    growing = {"linear", "ntk", "ntk_fixed", "ntk_mixed", "ntk_by_parts", "yarn", "llama3"}
    growing |= {"dynamic_linear", "dynamic_ntk", "dynamic_yarn"}
    assert {*growing, "none"} <= set(promising("identity"))
    assert growing <= set(promising("interpolation"))
    assert {*growing, "none", "abf", "power", "longrope"} <= set(promising("positive"))


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


def test_resonance_refuses_wavelengths_below_half_a_token() -> None:
    with pytest.raises(UserError, match="half a token"):
        resonant(RopeFrequencies(np.array([20.0, 1.0])))
