"""Perplexity on held-out books while training runs."""

import math
from collections.abc import Collection, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from harness.errors import UserError


@torch.no_grad()
def perplexity(model: PreTrainedModel, documents: Sequence[NDArray[np.int32]], length: int) -> float:
    """exp of the mean of document means of the nll over each document's first `length` tokens, in one pass.

    The first token is context only. Float32 cross-entropy, whatever the model computes in.
    """
    was_training = model.training
    model.eval()
    means = []
    for document in documents:
        ids = torch.from_numpy(document[:length].astype(np.int64)).to(model.device)
        logits = model(input_ids=ids[None]).logits[0, :-1].float()
        means.append(float(cross_entropy(logits, ids[1:])))
    model.train(was_training)
    return math.exp(sum(means) / len(means))


class HeldOutPerplexity(TrainerCallback):
    """Logs the perplexity of held-out documents, under the frequencies in training, after the steps `due`.

    The figures join the trainer's own log history, so that a resumed run still has the earlier ones.
    """

    def __init__(self, documents: Sequence[NDArray[np.int32]], lengths: Sequence[int], due: Collection[int]) -> None:
        shortest = min(map(len, documents), default=0)
        if documents and max(lengths, default=0) > shortest:
            raise UserError(
                f"train.eval_lengths must be <= {shortest} tokens, the shortest held-out book, got {lengths}."
            )
        self.documents, self.lengths, self.due = documents, lengths, due

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: PreTrainedModel | None = None,
        **kwargs: object,
    ) -> None:
        """Evaluate before the first step where that is due."""
        if state.global_step == 0:
            self._measure(state, model)

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: PreTrainedModel | None = None,
        **kwargs: object,
    ) -> None:
        """Evaluate where it is due."""
        self._measure(state, model)

    def _measure(self, state: TrainerState, model: PreTrainedModel | None) -> None:
        assert model is not None  # the trainer hands it to every call
        if self.documents and state.global_step in self.due:
            figures = {f"perplexity_{length}": perplexity(model, self.documents, length) for length in self.lengths}
            state.log_history.append({"step": state.global_step, **figures})
