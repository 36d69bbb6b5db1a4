"""The log-n modifier through models, alone and under any method."""

import numpy as np
import pytest
import torch
from transformers import logging

from harness import methods
from harness.errors import UserError
from harness.methods.modifiers.log_n import log_n
from harness.models.attention.log_n import growing_queries
from harness.models.attention.route import routed
from harness.models.checkpoint.geometry import geometry
from harness.models.install import applied
from tests.attention_maps import MAPS, NAMES
from tests.models.attention.cases import attended, naive, random_states
from tests.reference import attention as reference
from tests.tiny import TRAINED, logits, tiny_config, tiny_llama, tiny_model, tokens

logging.set_verbosity_error()


def test_log_n_against_the_definition():
    expected = [reference.log_n(position, 512) for position in range(5000)]
    np.testing.assert_allclose(log_n(5000, 512), expected, rtol=1e-14)
    assert log_n(5000, 512)[511] == 1 < log_n(5000, 512)[512]


def recorded_queries(model, ids, **options):
    """Queries that reach the attention of each layer, attention itself left out."""
    seen = []

    def record(module, query, key, value, *_, **__):
        seen.append(query)
        return value.repeat_interleave(query.shape[1] // value.shape[1], dim=1).transpose(1, 2), None

    with routed(model, record, lambda **_: None):
        if options:
            with growing_queries(model, **options):
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
    with applied(model, method, 3 * TRAINED, logn=True):
        grown = logits(model, ids)
    torch.testing.assert_close(grown[:, :TRAINED], plain[:, :TRAINED], rtol=0, atol=1e-5)
    assert (grown - plain)[:, TRAINED + 1 :].abs().max() > 1e-3
    assert model.config._attn_implementation == implementation


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("name", ["rerope", "dca"])
def test_log_n_and_a_method_against_the_definition(name):
    method, relative = MAPS[name]
    states = random_states("grouped", 53, torch.float32)
    grown = states[0] * torch.from_numpy(log_n(53, 16)).float()[:, None]
    expected = naive(relative, "grouped", *states, trained=16)
    np.testing.assert_allclose(attended(method, "grouped", grown, *states[1:]), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["falcon", "gptj"])
def test_log_n_is_refused_by_name_where_attention_cannot_be_reached(family):
    model = tiny_model(tiny_config(family))
    method = methods.build("none", {}, geometry(model.config), 16)
    with pytest.raises(UserError, match=family), applied(model, method, 16, logn=True):
        pass


def test_log_n_on_a_model_without_rotary_embedding():
    model, ids = tiny_model(tiny_config("gpt2")), tokens(32)
    with applied(model, methods.METHODS["none"](), 32, trained=8, logn=True):
        grown = logits(model, ids)
    assert (grown - logits(model, ids)).abs().max() > 1e-4
