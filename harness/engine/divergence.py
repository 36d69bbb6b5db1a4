"""KL of one model to another for every scored token, both logits made slice by slice from final hidden states.

    KL(base || this) = sum over the vocabulary of p (ln p - ln q),      p of the base, q of this model, in nats

Summed as p (e^d - 1 - d) with d = ln q - ln p, which is the same because p and q sum to one, and of which no term is
negative: KL is 0 for equal logits, and small ones do not drown in the rounding of large terms.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax

from harness.engine.nll import argmax, slices
from harness.engine.packed import Weights, packed
from harness.models.parts import CausalLM, head_of

PER_BLOCK = {"cpu": 2**21, "cuda": 2**25}  # float32 numbers of a distribution that are held at once, several times over
COLUMNS = 5  # loss, top1, loss of the base, KL, same top


class Side(NamedTuple):
    """A model with its final hidden states before the scored tokens."""

    model: CausalLM
    weights: Weights  # packed
    states: Tensor  # (batch, tokens, hidden), on any device


Head = Callable[[Tensor], Tensor]


@torch.inference_mode()
def compared(own: Side, base: Side, targets: Tensor) -> Tensor:
    """For every target the columns (batch, tokens, 5): own loss, top1, loss under the base, KL(base || own), same top.

    targets: (batch, tokens). Losses and KL in nats, float32; top1 says whether the target is the argmax of the model's
    own logits, same top whether both have one argmax.
    """
    parts = []
    with _heads(own, base) as (head, base_head):
        for part in slices(own.model, targets):
            logits = head(own.states[:, part].to(own.model.device))
            other = base_head(base.states[:, part].to(base.model.device)).to(logits.device)
            parts.append(_columns(logits, other, targets[:, part]))
    return torch.cat(parts, dim=1)


@contextmanager
def _heads(own: Side, base: Side) -> Iterator[tuple[Head, Head]]:
    """What makes logits of hidden states; one model compared with itself has one head."""
    with ExitStack() as stack:
        for side in (own, base):
            stack.enter_context(packed(side.model, side.weights))
        head = stack.enter_context(head_of(own.model))
        yield head, head if base.model is own.model else stack.enter_context(head_of(base.model))


def _columns(logits: Tensor, base: Tensor, targets: Tensor) -> Tensor:
    wanted = targets.flatten()
    this, that = (x.float().flatten(0, 1) for x in (logits, base))
    nll, base_nll = (cross_entropy(x, wanted, reduction="none") for x in (this, that))
    top, base_top = argmax(this), argmax(that)
    flags = [(x == y).to(nll.dtype) for x, y in ((top, wanted), (top, base_top))]
    size = max(1, PER_BLOCK.get(targets.device.type, 2**21) // this.shape[1])
    kl = torch.cat([divergence(x, y) for x, y in zip(this.split(size), that.split(size), strict=True)])
    return torch.stack((nll, flags[0], base_nll, kl, flags[1]), dim=-1).view(*targets.shape, COLUMNS)


def divergence(logits: Tensor, base: Tensor) -> Tensor:
    """KL(base || this) of each row of logits (rows, vocabulary), float32 or float64, in nats, at least 0: (rows,).

    Tokens that both rule out count nothing; one that this model alone rules out makes it infinite.
    """
    log_q, log_p = log_softmax(logits, dim=-1), log_softmax(base, dim=-1)
    p = log_p.exp()
    d = torch.where(log_q == log_p, 0.0, log_q - log_p)  # both may be -inf
    near = p * (torch.expm1(d) - d)
    far = log_q.exp() - p - torch.where(p > 0, p * d, 0.0)
    return torch.where(d > 1, far, near).sum(dim=-1)
