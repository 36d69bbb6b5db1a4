"""Negative log-likelihood per token in bounded memory: logits for scored positions only, in slices.

Cost of one window of L tokens: 2 x matrix parameters x L FLOPs, plus 2 x layers x heads x head_dim x L^2 for causal
attention, plus 2 x hidden x vocabulary for each scored token. Beyond weights and activations it holds one slice of
float32 logits (LOGITS_PER_SLICE numbers), never L x vocabulary.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from harness.models.parts import CausalLM, body_of, head_of, widths

Wanted = Literal["losses", "top1", "states"]  # of each scored token: its loss, top1 beside it, the state before it
_wanted: ContextVar[Wanted] = ContextVar("wanted", default="losses")
LOGITS_PER_SLICE = {"cpu": 2**23, "cuda": 2**28}  # float32 numbers held at once: 32 MiB, 1 GiB


@contextmanager
def with_top1() -> Iterator[None]:
    """Until the block ends every loss is a pair: the loss, and 1 where the target is the argmax of its logits, else 0.

    Of equal logits the first is the argmax, as greedy decoding takes it. From the same slices of logits.
    """
    with _wanting("top1"):
        yield


@contextmanager
def states_only() -> Iterator[None]:
    """Until the block ends, in place of losses the final hidden states that they would be made of."""
    with _wanting("states"):
        yield


@contextmanager
def _wanting(wanted: Wanted) -> Iterator[None]:
    token = _wanted.set(wanted)
    try:
        yield
    finally:
        _wanted.reset(token)


def per_token() -> tuple[int, ...]:
    """Shape of what a token is scored by: (), or (2,) within `with_top1`."""
    return (2,) if _wanted.get() == "top1" else ()


@torch.inference_mode()
def token_nll(model: CausalLM, ids: Tensor, score_from: int, *, sliced: bool = True, ahead: bool = False) -> Tensor:
    """Loss of the tokens at positions score_from .. L-1 of each row of `ids`, in nats, positive.

    ids: (batch, L) token ids; score_from >= 1, since the first position has no prediction. Returns float32
    (batch, L - score_from). With `sliced` the logits are made slice by slice from the last hidden states; without it
    the model's own forward makes them all, which any causal LM can do. `ahead`: the model is not given the last token,
    which no loss depends on unless the model looks at how long its input is.
    Within `with_top1` (batch, L - score_from, 2), within `states_only` (batch, L - score_from, hidden).
    """
    targets, last = ids[:, score_from:], ids.shape[1] - 1
    if ahead:
        ids = ids[:, :-1]
    if not sliced:
        logits = model(input_ids=ids, use_cache=False).logits[:, score_from - 1 : last]
        return _loss(logits, targets)
    hidden = body_of(model)(input_ids=ids, use_cache=False).last_hidden_state[:, score_from - 1 : last]
    return losses(model, hidden, targets)


def losses(model: CausalLM, hidden: Tensor, targets: Tensor) -> Tensor:
    """Losses (batch, tokens) of `targets` (batch, tokens), float32, logits made slice by slice.

    hidden: (batch, tokens, hidden), the last hidden state before each target. Within `with_top1` (batch, tokens, 2),
    within `states_only` (batch, tokens, hidden).
    """
    if _wanted.get() == "states":
        return hidden
    with head_of(model) as head:
        parts = [_loss(head(hidden[:, part]), targets[:, part]) for part in slices(model, targets)]
    return torch.cat(parts, dim=1)


def slices(model: CausalLM, targets: Tensor) -> list[slice]:
    """Parts of the tokens of `targets` (batch, tokens), each with as many logits as may exist at once."""
    rows = max(1, LOGITS_PER_SLICE.get(targets.device.type, 2**24) // widths(model).vocabulary)
    width = max(1, rows // len(targets))
    return [slice(begin, begin + width) for begin in range(0, targets.shape[1], width)]


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    flat, wanted = logits.float().flatten(0, 1), targets.flatten()
    nll = cross_entropy(flat, wanted, reduction="none")
    if _wanted.get() != "top1":
        return nll.view(targets.shape)
    return torch.stack((nll, (argmax(flat) == wanted).to(nll.dtype)), dim=-1).view(*targets.shape, 2)


def argmax(logits: Tensor) -> Tensor:
    """The first largest of each row, (rows,); NumPy's reads a CPU's memory four times as fast as PyTorch's."""
    return torch.from_numpy(logits.numpy().argmax(-1)) if logits.device.type == "cpu" else logits.argmax(-1)
