"""Losses equal those of single tokens in float64, however their logits are sliced."""

import copy

import numpy as np
import pytest
import torch

from harness.engine.nll import LOGITS_PER_SLICE, _loss, token_nll, with_top1
from tests.engine.small import VOCABULARY, tokens


@torch.no_grad()
def by_hand(model, ids, score_from):
    """Each token from a forward of its own over just what precedes it, in float64."""
    double = copy.deepcopy(model).double()
    losses = [
        -torch.log_softmax(double(ids[:, :n], use_cache=False).logits[:, -1], dim=-1).gather(1, ids[:, n : n + 1])
        for n in range(score_from, ids.shape[1])
    ]
    return torch.cat(losses, dim=1)


def test_loss_is_that_of_single_token_forwards_in_float64(model):
    ids = tokens(2, 33)
    torch.testing.assert_close(token_nll(model, ids, 5).double(), by_hand(model, ids, 5), atol=1e-5, rtol=0)


@pytest.mark.parametrize("numbers", [1, 3 * VOCABULARY, 10**9])
def test_slices_of_logits_change_nothing(llama, monkeypatch, numbers):
    ids = tokens(3, 40)
    whole = token_nll(llama, ids, 1, sliced=False)
    monkeypatch.setitem(LOGITS_PER_SLICE, "cpu", numbers)
    torch.testing.assert_close(token_nll(llama, ids, 1), whole, atol=1e-6, rtol=0)


def test_batches_do_not_mix_rows(llama):
    ids = tokens(5, 30)
    alone = torch.cat([token_nll(llama, row[None], 3) for row in ids])
    torch.testing.assert_close(token_nll(llama, ids, 3), alone, atol=1e-5, rtol=0)


def test_uniform_logits_cost_the_logarithm_of_the_vocabulary(llama):
    torch.nn.init.zeros_(llama.lm_head.weight)
    losses = token_nll(llama, tokens(2, 20), 1)
    np.testing.assert_allclose(losses.numpy(), np.log(VOCABULARY), rtol=1e-6)


def test_losses_are_taken_in_float32_also_of_bfloat16_logits(llama):
    half = copy.deepcopy(llama).to(torch.bfloat16)
    ids = tokens(2, 40)
    logits = half(ids, use_cache=False).logits[:, :-1].double()
    exact = -torch.log_softmax(logits, dim=-1).gather(2, ids[:, 1:, None])[..., 0]
    torch.testing.assert_close(token_nll(half, ids, 1).double(), exact, atol=2e-2, rtol=0)
    assert (token_nll(half, ids, 1, sliced=False).double() - exact).abs().max() < 1e-5


def test_top1_is_whether_the_target_is_the_argmax_and_losses_are_as_without(llama):
    ids = tokens(3, 20)
    logits = llama(input_ids=ids, use_cache=False).logits[:, 4:-1]
    likely = ids.clone()
    likely[:, 12] = logits[:, 7].argmax(-1)  # one target a row that is the argmax, the tokens before it unchanged
    logits = llama(input_ids=likely, use_cache=False).logits[:, 4:-1]
    for sliced in (True, False):
        with with_top1():
            both = token_nll(llama, likely, 5, sliced=sliced)
        assert torch.equal(both[..., 0], token_nll(llama, likely, 5, sliced=sliced))
        assert torch.equal(both[..., 1] > 0, logits.argmax(-1) == likely[:, 5:])
        assert both[:, 7, 1].tolist() == [1, 1, 1]


def test_of_equal_logits_the_first_is_the_argmax():
    with with_top1():
        both = _loss(torch.zeros(1, 3, 5), torch.tensor([[0, 1, 4]]))
    assert both[0, :, 1].tolist() == [1, 0, 0]
