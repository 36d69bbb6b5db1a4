"""The parts of a causal language model as transformers puts it together: body, decoder layers, final norms, head."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import MoeModelOutputWithPast

from harness.models.checkpoint.families import CACHE_NAMES, DECODER_LAYER, INNER_SIZE, NORM, first_set
from harness.models.swap import swapped

CausalLM = PreTrainedModel  # what transformers builds for a causal language model
LayerOutput = Tensor | tuple[Tensor, ...]  # of a decoder layer: hidden states, in some families the first of several


class Widths(NamedTuple):
    """Numbers a token, by what they are."""

    hidden: int  # residual stream
    inner: int  # inside of the MLP
    vocabulary: int  # logits
    keys: int  # of one layer; as many values


def widths(model: CausalLM) -> Widths:
    """The widths of the text part, from the model's configuration."""
    config = model.config.get_text_config()
    inner = first_set(config, INNER_SIZE) or 4 * config.hidden_size
    heads = getattr(config, "num_attention_heads", None) or 1
    head = getattr(config, "head_dim", None) or config.hidden_size // heads
    keys = head * (getattr(config, "num_key_value_heads", None) or heads)
    return Widths(int(config.hidden_size), int(inner), int(config.vocab_size), int(keys))


def body_of(model: CausalLM) -> nn.Module:
    """The model without its language-model head."""
    body: nn.Module = getattr(model, model.base_model_prefix)
    return body


def decoder_layers(model: CausalLM) -> nn.ModuleList:
    """The list of decoder layers; LookupError where there is none."""
    body = body_of(model)
    lists = [
        m for m in body.children() if isinstance(m, nn.ModuleList) and all(DECODER_LAYER in type(x).__name__ for x in m)
    ]
    if len(lists) != 1:
        raise LookupError(f"{type(body).__name__} has {len(lists)} lists of decoder layers, one is needed")
    return lists[0]


def final_norms(model: CausalLM) -> list[nn.Module]:
    """Norms that the body applies to the whole sequence."""
    return [m for m in body_of(model).children() if type(m).__name__.endswith(NORM)]


def cache_name(layer: nn.Module) -> str:
    """What a decoder layer's forward calls its cache; LookupError where it takes none."""
    known = inspect.signature(layer.forward).parameters
    named = [name for name in CACHE_NAMES if name in known]
    if not named:
        raise LookupError(f"{type(layer).__name__} takes no cache")
    return named[0]


class _Given(nn.Module):
    """Stands for the model's body and returns hidden states that were computed before."""

    hidden: Tensor

    def forward(self, *args: object, **kwargs: object) -> MoeModelOutputWithPast:
        return MoeModelOutputWithPast(last_hidden_state=self.hidden)  # it has the fields that any family reads


@contextmanager
def head_of(model: CausalLM) -> Iterator[Callable[[Tensor], Tensor]]:
    """Last hidden states (batch, tokens, hidden) -> logits (batch, tokens, vocabulary), until the block ends.

    By the model's own forward: families scale, cap or bias their logits there.
    """
    given = _Given()
    ids = torch.zeros((1, 1), dtype=torch.long, device=model.device)

    def head(hidden: Tensor) -> Tensor:
        given.hidden = hidden
        return model(input_ids=ids, use_cache=False).logits

    with swapped(model, model.base_model_prefix, given):
        yield head
