"""Settings -> method -> settings is the identity, on many drawn at random; and method -> settings -> method."""

import json

import numpy as np
import pytest

from harness.deployment.express import express
from harness.deployment.recognise import geometry_of, recognise
from harness.deployment.settings import ROPE_TYPES, RopeSettings
from harness.errors import UserError
from harness.methods import RopeGeometry, build

DRAWS = 200
GEOMETRY = RopeGeometry(rotary_dim=64, rope_theta=10_000.0, original_max_position_embeddings=512)


def drawn(kind, generator):
    """Settings of a type as engines are given them: every field drawn, or left out where that is allowed."""
    maybe = lambda value: float(value) if generator.random() < 0.5 else None  # noqa: E731
    given = {"rope_type": kind, "rope_theta": float(10 ** generator.uniform(3, 7))}
    if kind != "default":
        given["factor"] = float(generator.uniform(1, 64))
    if kind in ("yarn", "llama3", "longrope"):
        given["original_max_position_embeddings"] = int(generator.integers(128, 131_073))
    if kind == "llama3":
        low = float(generator.uniform(0.5, 2))
        given |= {"low_freq_factor": low, "high_freq_factor": low + float(generator.uniform(0.5, 6))}
    if kind == "yarn":
        given |= {"beta_fast": maybe(generator.uniform(8, 64)), "beta_slow": maybe(generator.uniform(0.1, 4))}
        given |= {"truncate": False if generator.random() < 0.5 else None}
        scaling = generator.integers(3)
        given |= {"attention_factor": float(generator.uniform(0.5, 2))} if scaling == 1 else {}
        mscales = {name: float(generator.uniform(0.1, 2)) for name in ("mscale", "mscale_all_dim")}
        given |= mscales if scaling == 2 or (scaling == 1 and generator.random() < 0.5) else {}
    if kind == "longrope":
        long = tuple(generator.uniform(1, 40, 32).tolist())
        given |= {"long_factor": long, "short_factor": long}
        given |= {"short_factor": tuple(generator.uniform(1, 2, 32).tolist())} if generator.random() < 0.5 else {}
        given |= {"attention_factor": maybe(generator.uniform(1, 2))}
    return RopeSettings(**given)


@pytest.mark.parametrize("kind", ROPE_TYPES)
def test_settings_come_back_as_they_were(kind):
    generator = np.random.default_rng(ROPE_TYPES.index(kind))
    for _ in range(DRAWS):
        settings = drawn(kind, generator)
        assert RopeSettings.of(json.loads(json.dumps(settings.parameters())), 1.5) == settings
        geometry = geometry_of(settings, 64, 4096)
        length = int(generator.integers(1, 2 * 10**6))
        expression = express(recognise(settings, 4096).resolved(geometry, length), geometry, length)
        assert (expression.by_length or expression.settings) == settings
        assert not expression.lost


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("linear", {"factor": 3.0}),
        ("dynamic_ntk", {"factor": 2.0}),
        ("llama3", {"factor": 8.0, "high_freq_factor": 5.0}),
        ("yarn", {"factor": 4.0}),
        ("yarn", {"factor": 4.0, "beta_fast": 8.0, "truncate": False}),
        ("yarn", {"factor": 4.0, "mscale": 0.7, "mscale_all_dim": 1.0}),
        ("yarn", {"factor": 4.0, "attention_factor": 1.0}),
        ("longrope", {"factor": 4.0, "long_factor": [2.0] * 32}),
        ("longrope", {"factor": 4.0, "long_factor": [2.0] * 32, "short_factor": [1.5] * 32, "temperature": 1.1}),
    ],
)
def test_a_method_with_a_type_of_its_own_comes_back(name, params):
    method = build(name, params, GEOMETRY, 2048)
    expression = express(method, GEOMETRY, 2048)
    assert recognise(expression.by_length or expression.settings, 512) == method


@pytest.mark.parametrize("theta", [500_000.0, 77.0])
def test_another_base_is_abf_where_that_of_training_is_known(theta):
    method = build("abf", {"rope_theta": theta}, GEOMETRY, 2048)
    settings = express(method, GEOMETRY, 2048).settings
    assert recognise(settings, 512, trained=GEOMETRY) == method
    assert recognise(settings, 512).name == "none"


def test_a_base_and_a_factor_together_are_ntk_fixed():
    settings = express(build("ntk_fixed", {"factor": 4.0}, GEOMETRY, 2048), GEOMETRY, 2048).settings
    found = recognise(settings, 2048, trained=GEOMETRY)
    assert found.name == "ntk_fixed"
    assert found.factor == pytest.approx(4.0)
    assert recognise(settings, 2048).name == "linear"


def test_older_names_are_read():
    older = {"type": "su", "factor": 4, "long_factor": [1, 2], "short_factor": [1, 1]}
    settings = RopeSettings.of(older, 10_000.0)
    assert settings.rope_type == "longrope"
    assert settings.rope_theta == 10_000.0
    assert settings.long_factor == (1.0, 2.0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rope_type": "yarm"}, "Did you mean 'yarn'"),
        ({"rope_type": "yarn", "factor": "4"}, "factor must be a number, got '4'"),
        ({"rope_type": "longrope", "long_factor": 3}, "long_factor must be a list of numbers, got 3"),
    ],
)
def test_what_is_no_setting_is_refused(given, said):
    with pytest.raises(UserError, match=said):
        RopeSettings.of(given, 10_000.0)


@pytest.mark.parametrize(
    ("kind", "absent"),
    [("linear", "factor"), ("dynamic", "factor"), ("llama3", "factor"), ("longrope", "long_factor")],
)
def test_what_a_type_needs_is_named(kind, absent):
    with pytest.raises(UserError, match=f"{kind} needs {absent}"):
        recognise(
            RopeSettings(rope_type=kind, rope_theta=10_000.0, **({"factor": 2.0} if kind == "longrope" else {})), 512
        )
