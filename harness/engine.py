"""Negative log-likelihood per token in bounded memory: logits for scored positions only, in slices.

Cost of one window of L tokens: 2 x matrix parameters x L FLOPs, plus 2 x layers x heads x head_dim x L^2 for causal
attention, plus 2 x hidden x vocabulary for each scored token. Beyond weights and activations it holds one slice of
float32 logits (`logits_per_slice` numbers), never L x vocabulary.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers.modeling_outputs import BaseModelOutputWithPast

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

LOGITS_PER_SLICE = {"cpu": 2**23, "cuda": 2**28}  # float32 numbers held at once: 32 MiB, 1 GiB
PROBE_TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}  # nats a token


@torch.inference_mode()
def token_nll(model: "PreTrainedModel", ids: Tensor, score_from: int, *, sliced: bool = True) -> Tensor:
    """Loss of the tokens at positions score_from .. L-1 of each row of `ids`, in nats, positive.

    ids: (batch, L) token ids; score_from >= 1, since the first position has no prediction. Returns float32
    (batch, L - score_from). With `sliced` the logits are made slice by slice from the last hidden states; without it
    the model's own forward makes them all, which any causal LM can do.
    """
    targets = ids[:, score_from:]
    if not sliced:
        logits = model(input_ids=ids, use_cache=False).logits[:, score_from - 1 : -1]
        return _loss(logits, targets)
    hidden = _body(model)(input_ids=ids, use_cache=False).last_hidden_state[:, score_from - 1 : -1]
    rows = max(1, LOGITS_PER_SLICE.get(ids.device.type, 2**24) // _vocabulary(model))
    width = max(1, rows // len(ids))
    with _head(model) as head:
        losses = [
            _loss(head(hidden[:, begin : begin + width]), targets[:, begin : begin + width])
            for begin in range(0, targets.shape[1], width)
        ]
    return torch.cat(losses, dim=1)


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    flat = cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
    return flat.view(targets.shape)


def _body(model: "PreTrainedModel") -> nn.Module:
    """The model without its language-model head."""
    return getattr(model, model.base_model_prefix)


def _vocabulary(model: "PreTrainedModel") -> int:
    return int(model.config.get_text_config().vocab_size)


class _Given(nn.Module):
    """Stands for the model's body and returns hidden states that were computed before."""

    hidden: Tensor

    def forward(self, *args: Any, **kwargs: Any) -> BaseModelOutputWithPast:
        return BaseModelOutputWithPast(last_hidden_state=self.hidden)


@contextmanager
def _head(model: "PreTrainedModel") -> Iterator[Callable[[Tensor], Tensor]]:
    """Hidden states -> logits, by the model's own forward: families scale, cap or bias their logits there."""
    given, prefix = _Given(), model.base_model_prefix
    body = getattr(model, prefix)
    ids = torch.zeros((1, 1), dtype=torch.long, device=model.device)

    def head(hidden: Tensor) -> Tensor:
        given.hidden = hidden
        return model(input_ids=ids, use_cache=False).logits

    setattr(model, prefix, given)
    try:
        yield head
    finally:
        setattr(model, prefix, body)


def can_slice(model: "PreTrainedModel", seed: int = 0) -> bool:
    """Whether sliced logits equal the model's own forward on a probe; says so in the log where they do not."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, _vocabulary(model), (2, 24), generator=generator).to(model.device)
    expected = token_nll(model, ids, 1, sliced=False)
    try:
        difference = (token_nll(model, ids, 1) - expected).abs().max().item()
    except (AttributeError, TypeError, RuntimeError, ValueError) as error:
        difference, reason = float("nan"), f"{type(error).__name__}: {str(error).splitlines()[0]}"
    else:
        reason = f"losses differ by {difference:.3g} nats"
    if difference <= PROBE_TOLERANCE.get(model.dtype, 1e-1):
        return True
    log.warning(
        "%s: logits cannot be made in slices (%s); using the model's own forward, which holds all of them",
        type(model).__name__,
        reason,
    )
    return False
