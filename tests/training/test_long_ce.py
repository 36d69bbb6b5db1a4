"""LongCE against its definition, a token at a time."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from harness.training.config import LongCE
from harness.training.long_ce import LongCETrainer, token_nll, weights
from tests.reference import training as reference

IDS = torch.randint(50, (2, 23), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = LlamaConfig(vocab_size=50, max_position_embeddings=16, initializer_range=0.6, **sizes)
    return LlamaForCausalLM(config).eval().double()


def nll(model: LlamaForCausalLM, ids: list[int], place: int) -> float:
    """Of the token at `place` behind all tokens before it in `ids`."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids[:place]])).logits[0, -1]
    return float(logits.logsumexp(0) - logits[ids[place]])


def loss(model: LlamaForCausalLM, spec: LongCE, **options: object) -> torch.Tensor:
    trainer = LongCETrainer.__new__(LongCETrainer)
    trainer.spec = spec
    return trainer.compute_loss(model, {"input_ids": IDS, "labels": IDS}, **options)


@pytest.mark.parametrize(("short_ctx", "stride"), [(8, 4), (5, 7), (1, 1), (22, 3)])
def test_the_loss_is_that_of_the_definition(model: LlamaForCausalLM, short_ctx: int, stride: int) -> None:
    of_rows = []
    begins = reference.short_contexts(IDS.shape[1], short_ctx, stride)
    for ids in IDS.tolist():
        long = [nll(model, ids, place) for place in range(1, len(ids))]
        short = [None if b is None else nll(model, ids[b:], place - b) for place, b in enumerate(begins, start=1)]
        of_rows.append(reference.long_ce(long, short, cap=2.0))
    given = loss(model, LongCE(short_ctx=short_ctx, stride=stride, cap=2.0)).detach()
    assert float(given) == pytest.approx(sum(of_rows) / 2, rel=1e-5)


def test_check_values() -> None:
    assert reference.long_ce([1.0, 2.0, 0.5], [None, 2.5, 4.0]) == pytest.approx((1 + 2 * 1.6487213 + 0.5 * 5) / 3)
    assert reference.short_contexts(9, 4, 2) == [None, None, None, 0, 0, 2, 2, 4]


def test_with_weights_of_1_it_is_cross_entropy(model: LlamaForCausalLM) -> None:
    plain = model(input_ids=IDS, labels=IDS).loss
    no_shorter = LongCE(short_ctx=IDS.shape[1])
    assert loss(model, no_shorter).item() == pytest.approx(plain.item(), rel=1e-6)
    tokens = torch.tensor(88)  # of a step of two such batches
    shared = model(input_ids=IDS, labels=IDS, num_items_in_batch=tokens).loss
    assert loss(model, no_shorter, num_items_in_batch=tokens).item() == pytest.approx(shared.item(), rel=1e-6)


def test_no_gradient_passes_through_the_weights(model: LlamaForCausalLM) -> None:
    spec = LongCE(short_ctx=6, stride=3)

    def logits(ids: torch.Tensor) -> torch.Tensor:
        return model(input_ids=ids).logits

    losses = token_nll(logits(IDS), IDS)
    fixed = weights(logits, IDS, losses.detach(), spec)
    assert not fixed.requires_grad
    assert (fixed != 1).any()
    wanted = torch.autograd.grad((fixed * losses).mean(), model.lm_head.weight)[0]
    given = torch.autograd.grad(loss(model, spec), model.lm_head.weight)[0]
    torch.testing.assert_close(given, wanted)
