"""Queries scaled by position: the forms, and log-n through models, alone and under any method."""

import numpy as np
import pytest
import torch
from transformers import logging

from harness import methods
from harness.errors import UserError
from harness.methods.modifiers.query_scale import LogN, query_scale
from harness.models.attention.route import routed
from harness.models.attention.scaled_queries import scaled_queries
from harness.models.checkpoint.geometry import geometry
from harness.models.install import applied
from tests.attention_maps import MAPS, NAMES
from tests.models.attention.cases import attended, naive, random_states
from tests.reference import attention as reference
from tests.tiny import TRAINED, logits, tiny_config, tiny_llama, tiny_model, tokens

logging.set_verbosity_error()


def test_log_n_against_the_definition():
    expected = [reference.log_n(position, 512) for position in range(5000)]
    np.testing.assert_allclose(LogN()(5000, 512), expected, rtol=1e-14)
    assert LogN()(5000, 512)[511] == 1 < LogN()(5000, 512)[512]


@pytest.mark.parametrize(
    ("given", "formula"),
    [
        ("floor", lambda p: reference.floor_scale(p, 512)),
        ({"name": "floor", "beta": 0.3, "every": 100, "first": 0}, lambda p: reference.floor_scale(p, 100, 0.3, 0)),
        ("power", reference.power_scale),
        ({"name": "power", "every": 50, "exponent": 0.5}, lambda p: reference.power_scale(p, 50, 0.5)),
        ("ssmax", lambda p: reference.ssmax_scale(p, 512)),
        ({"name": "ssmax", "s": 0.2}, lambda p: reference.ssmax_scale(p, 512, 0.2)),
    ],
)
def test_forms_against_their_definitions(given, formula):
    expected = [formula(position) for position in range(1500)]
    np.testing.assert_allclose(query_scale(given)(1500, 512), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("given", "expected"),
    [  # at positions 8190, 8191, 16383, 65535, 131071, 1048575
        ({"name": "floor", "beta": 0.1, "every": 8192}, [1, 1.069315, 1.109861, 1.219722, 1.283321, 1.485981]),
        ({"name": "floor", "every": 16384, "first": 0}, [1, 1, 1, 1.138629, 1.207944, 1.415888]),
        ("power", [1.174607, 1.174619, 1.245731, 1.418572, 1.518068, 1.866430]),
    ],
)
def test_forms_at_known_positions(given, expected):
    found = query_scale(given)(1_048_576, 16_384)
    np.testing.assert_allclose(found[[8190, 8191, 16383, 65535, 131071, 1048575]], expected, atol=5e-7)


@pytest.mark.parametrize(("trained", "s"), [(512, 0.19061), (1024, 0.16847), (8192, 0.12482)])
def test_scalable_softmax_keeps_queries_as_long_as_in_training(trained, s):
    found = query_scale("ssmax")(trained, trained)
    np.testing.assert_allclose(found[-1] / np.log(trained), s, atol=5e-6)
    np.testing.assert_allclose(found.mean(), 1, rtol=1e-12)
    np.testing.assert_allclose(query_scale({"name": "ssmax", "s": 0.5})(9, trained), 0.5 * np.log(np.arange(1, 10)))


def test_a_scale_of_one_is_the_plain_model():
    model, ids = tiny_llama(), tokens(40)
    with applied(model, methods.METHODS["none"](), 40, query_scale=query_scale({"name": "floor", "every": 64})):
        torch.testing.assert_close(logits(model, ids), logits(tiny_llama(), ids), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("logn", "Did you mean 'log_n'"),
        ({"name": "power", "beta": 1}, "Unknown parameter of query_scale power"),
        ({"name": "floor", "every": 0}, "every must be finite and > 0"),
        ({"name": "floor", "beta": "x"}, "beta must be a number"),
        ({"beta": 1}, "Unknown method.query_scale 'None'"),
        (True, "Unknown method.query_scale 'True'"),
    ],
)
def test_mistakes_take_one_line(given, words):
    with pytest.raises(UserError, match=words):
        query_scale(given)


def recorded_queries(model, ids, **options):
    """Queries that reach the attention of each layer, attention itself left out."""
    seen = []

    def record(module, query, key, value, *_, **__):
        seen.append(query)
        return value.repeat_interleave(query.shape[1] // value.shape[1], dim=1).transpose(1, 2), None

    with routed(model, record, lambda **_: None):
        if options:
            with scaled_queries(model, lambda length: LogN()(length, **options), "logn"):
                logits(model, ids)
            return seen[-2:]
        logits(model, ids)
    return seen[-2:]


def test_every_query_grows_with_log_n():
    model, ids = tiny_llama(), tokens(50, 2)
    plain, grown = recorded_queries(model, ids), recorded_queries(model, ids, trained=16)
    multipliers = torch.tensor([reference.log_n(position, 16) for position in range(50)], dtype=torch.float32)
    for a, b in zip(plain, grown, strict=True):
        torch.testing.assert_close(b, a * multipliers[:, None], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ["none", "yarn", "native", *NAMES])
def test_log_n_combines_with_any_method(name, implementation):
    model, ids = tiny_llama(), tokens(3 * TRAINED)
    model.set_attn_implementation(implementation)
    method = methods.build(name, {}, geometry(model.config), 3 * TRAINED)
    with applied(model, method, 3 * TRAINED):
        plain = logits(model, ids)
    with applied(model, method, 3 * TRAINED, query_scale=LogN()):
        grown = logits(model, ids)
    torch.testing.assert_close(grown[:, :TRAINED], plain[:, :TRAINED], rtol=0, atol=1e-5)
    assert (grown - plain)[:, TRAINED + 1 :].abs().max() > 1e-3
    assert model.config._attn_implementation == implementation


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("name", ["rerope", "dca"])
def test_log_n_and_a_method_against_the_definition(name):
    method, relative = MAPS[name]
    states = random_states("grouped", 53, torch.float32)
    grown = states[0] * torch.from_numpy(LogN()(53, 16)).float()[:, None]
    expected = naive(relative, "grouped", *states, trained=16)
    np.testing.assert_allclose(attended(method, "grouped", grown, *states[1:]), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["falcon", "gptj"])
def test_log_n_is_refused_by_name_where_attention_cannot_be_reached(family):
    model = tiny_model(tiny_config(family))
    method = methods.build("none", {}, geometry(model.config), 16)
    with pytest.raises(UserError, match=family), applied(model, method, 16, query_scale=LogN()):
        pass


def test_log_n_on_a_model_without_rotary_embedding():
    model, ids = tiny_model(tiny_config("gpt2")), tokens(32)
    with applied(model, methods.METHODS["none"](), 32, trained=8, query_scale=LogN()):
        grown = logits(model, ids)
    assert (grown - logits(model, ids)).abs().max() > 1e-4
