"""KL from slices of logits: the definition in float64, exactly 0 of equal ones, and the right way round."""

import numpy as np
import pytest
import torch

from harness.engine import divergence as module
from harness.engine import nll
from harness.engine.divergence import Side, compared, divergence
from harness.engine.nll import token_nll, with_top1
from tests.reference import divergence as reference
from tests.tiny import tiny_llama

INF = float("inf")


def test_sign_and_asymmetry_by_hand():
    """KL((9, 1) / 10 || (1, 1) / 2) = 0.9 ln 1.8 + 0.1 ln 0.2, and the other way round 0.5 ln (5 / 9) + 0.5 ln 5."""
    uneven, even = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.5, 0.5]]).log()
    assert divergence(even, uneven).item() == pytest.approx(0.3680642071684971, abs=1e-7)
    assert divergence(uneven, even).item() == pytest.approx(0.5108256237659907, abs=1e-7)


def test_equal_logits_have_none_at_all():
    logits = 30 * torch.randn(50, 1000, generator=torch.Generator().manual_seed(0))
    assert not divergence(logits, logits.clone()).any()


@pytest.mark.parametrize("apart", [1e-3, 0.1, 3.0, 40.0])
def test_float32_equals_the_definition_in_float64(apart):
    draw = torch.Generator().manual_seed(1)
    base = 4 * torch.randn(40, 997, generator=draw)
    other = base + apart * torch.randn(40, 997, generator=draw)
    expected = reference.kl(base.double().numpy(), other.double().numpy())
    got = divergence(other, base).numpy()
    np.testing.assert_allclose(got, expected, rtol=5e-6, atol=1e-9)
    assert (got >= 0).all()


def test_small_divergences_keep_their_digits():
    """Differences of 1e-4 nats make a KL of 1e-9, far below the rounding of ln p in float32."""
    draw = torch.Generator().manual_seed(2)
    base = torch.randn(20, 500, generator=draw)
    other = base + 1e-4 * torch.randn(20, 500, generator=draw)
    expected = reference.kl(base.double().numpy(), other.double().numpy())
    np.testing.assert_allclose(divergence(other, base).numpy(), expected, rtol=2e-2)


def test_what_both_rule_out_counts_nothing_and_what_one_rules_out_is_infinite():
    both = torch.tensor([[0.0, 1.0, -INF]])
    only_base = torch.tensor([[0.0, 1.0, 2.0]])
    assert divergence(both, both).item() == 0
    assert divergence(both, only_base).item() == INF
    expected = reference.kl(np.array([[0.0, 1.0]]), np.array([[0.0, 1.0]])) - np.log(1 - np.e**2 / (1 + np.e + np.e**2))
    assert divergence(only_base, both).item() == pytest.approx(expected.item(), abs=1e-6)


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(3)
    other = tiny_llama()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return tiny_llama(), other


@torch.inference_mode()
def states(model, ids):
    return model.model(input_ids=ids).last_hidden_state[:, :-1]


def columns(own, base, ids):
    return compared(Side(own, {}, states(own, ids)), Side(base, {}, states(base, ids)), ids[:, 1:])


@pytest.mark.parametrize("held", [1, 700, 2**21])
def test_models_equal_the_definition_on_their_full_logits(models, monkeypatch, held):
    base, own = models
    monkeypatch.setitem(nll.LOGITS_PER_SLICE, "cpu", 3 * held)
    monkeypatch.setitem(module.PER_BLOCK, "cpu", held)
    ids = torch.randint(0, 96, (2, 40), generator=torch.Generator().manual_seed(4))
    got = columns(own, base, ids).double().numpy()
    with torch.inference_mode():
        full = [m.double()(input_ids=ids).logits[:, :-1].numpy() for m in (own, base)]
    own.float(), base.float()
    logits, base_logits = full
    wanted = ids[:, 1:].numpy()[..., None]
    expected = reference.kl(base_logits, logits)
    assert 1e-4 < expected.mean() < 1
    np.testing.assert_allclose(got[..., 3], expected, atol=1e-6)
    for place, of in ((0, logits), (2, base_logits)):
        np.testing.assert_allclose(
            got[..., place], -np.take_along_axis(reference.log_softmax(of), wanted, 2)[..., 0], atol=2e-6
        )
    assert (got[..., 1] == (logits.argmax(-1) == wanted[..., 0])).all()
    assert (got[..., 4] == (logits.argmax(-1) == base_logits.argmax(-1))).all()
    assert 0 < got[..., 4].mean() < 1


def test_own_columns_are_those_of_a_run_without_a_base_bit_for_bit(models):
    base, own = models
    ids = torch.randint(0, 96, (2, 40), generator=torch.Generator().manual_seed(5))
    got = columns(own, base, ids)
    with with_top1():
        assert torch.equal(got[..., :2], token_nll(own, ids, 1))
    assert torch.equal(got[..., 2], token_nll(base, ids, 1))


def test_a_model_compared_with_itself_has_one_head(models):
    own, _ = models
    ids = torch.randint(0, 96, (1, 20), generator=torch.Generator().manual_seed(6))
    got = columns(own, own, ids)
    assert not got[..., 3].any()
    assert got[..., 4].all()
    assert torch.equal(got[..., 0], got[..., 2])
