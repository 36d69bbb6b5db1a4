"""LongCE: cross-entropy that weighs a token by what the long context gives it. Fang et al. 2024, arXiv:2410.23771.

    loss = mean of w_i nll_i,    w_i = min(exp(nll_i behind a short context - nll_i), cap)
No gradient passes through the weights. Short contexts are as in the paper's code (PKU-ML/LongPPL): a window begins
every `stride` tokens, has `short_ctx` + `stride` of them, and its last `stride` count; the first `short_ctx` tokens
have no shorter context and the weight 1.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import Trainer

from harness.training.config import LongCE

Logits = Callable[[Tensor], Tensor]  # ids (rows, length) -> (rows, length, vocabulary)


def token_nll(logits: Tensor, ids: Tensor) -> Tensor:
    """Nats (rows, length - 1), float32, of every token but the first."""
    return cross_entropy(logits[:, :-1].float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(
        len(ids), -1
    )


@torch.no_grad()
def weights(logits: Logits, ids: Tensor, nll: Tensor, spec: LongCE) -> Tensor:
    """Weights (rows, length - 1) of tokens whose losses in the whole window are `nll`, of the same shape."""
    weight = torch.ones_like(nll)
    for begin in range(0, ids.shape[1] - spec.short_ctx, spec.stride):
        window = ids[:, begin : begin + spec.short_ctx + spec.stride]
        short = token_nll(logits(window), window)[:, spec.short_ctx - 1 :]
        counted = slice(begin + spec.short_ctx - 1, begin + spec.short_ctx - 1 + short.shape[1])
        weight[:, counted] = (short - nll[:, counted]).exp().clamp(max=spec.cap)
    return weight


class LongCETrainer(Trainer):
    """A trainer that minimises LongCE."""

    spec: LongCE

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """The loss () in nats of some rows of a step: the mean over their tokens, or their share of the step's mean."""
        ids = inputs["input_ids"]

        def logits(window: Tensor) -> Tensor:
            of_window: Tensor = model(input_ids=window).logits
            return of_window

        nll = token_nll(logits(ids), ids)
        weighted = (weights(logits, ids, nll.detach(), self.spec) * nll).sum()
        return weighted / (nll.numel() if num_items_in_batch is None else num_items_in_batch)
