"""The parts of a causal language model as transformers puts it together: body, decoder layers, final norms, head."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import MoeModelOutputWithPast

from harness.models.checkpoint.families import CACHE_NAMES, DECODER_LAYER, INNER_SIZE, NORM, TEXT_PARTS, first_set
from harness.models.checkpoint.geometry import check_one_width, text_config
from harness.models.checkpoint.layers import layer_configs
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
    """The widths of the text part, from the model's configuration: of its widest layer where they differ."""
    config = text_config(model.config)
    check_one_width(config)
    layers = layer_configs(config)
    inner, keys = max(_inner(layer) for layer in layers), max(_keys(layer) for layer in layers)
    return Widths(int(config.hidden_size), inner, int(config.vocab_size), keys)


def vocabulary(model: CausalLM) -> int:
    """Token ids that text may hold; of a model made of parts, rows of its embedding."""
    declared = getattr(text_config(model.config), "vocab_size", None)
    embedding: Any = model.get_input_embeddings()
    return int(declared or embedding.weight.shape[0])


def _inner(layer: PretrainedConfig) -> int:
    inner = first_set(layer, INNER_SIZE) or 4 * layer.hidden_size
    return int(max(inner) if isinstance(inner, list | tuple) else inner)  # one a layer (Gemma 3n)


def _keys(layer: PretrainedConfig) -> int:
    heads = getattr(layer, "num_attention_heads", None) or 1
    head = getattr(layer, "head_dim", None) or layer.hidden_size // heads
    return int(head * (getattr(layer, "num_key_value_heads", None) or heads))


def body_of(model: CausalLM) -> nn.Module:
    """The model without its language-model head; LookupError where it cannot be told from the rest."""
    body = getattr(model, model.base_model_prefix, None)
    inside = [part for part in model.children() if isinstance(part, PreTrainedModel)]
    if not isinstance(body, nn.Module) and len(inside) == 1:  # a class of its own kind of checkpoint (Llama 4's text)
        body = inside[0]
    if not isinstance(body, nn.Module):
        raise LookupError(f"{type(model).__name__} has no body named {model.base_model_prefix!r}")
    return body


def decoder_of(model: CausalLM) -> nn.Module:
    """The part of the body that holds decoder layers: in models that also see or hear, that for text."""
    body = body_of(model)
    return next((part for name in TEXT_PARTS if isinstance(part := getattr(body, name, None), nn.Module)), body)


def decoder_layers(model: CausalLM) -> nn.ModuleList:
    """The list of decoder layers; LookupError where there is none."""
    body = decoder_of(model)
    lists = [
        m for m in body.children() if isinstance(m, nn.ModuleList) and all(DECODER_LAYER in type(x).__name__ for x in m)
    ]
    if len(lists) != 1:
        raise LookupError(f"{type(body).__name__} has {len(lists)} lists of decoder layers, one is needed")
    return lists[0]


def final_norms(model: CausalLM) -> list[nn.Module]:
    """Norms that the body applies to the whole sequence."""
    return [m for m in decoder_of(model).children() if type(m).__name__.endswith(NORM)]


def cache_name(layer: nn.Module) -> str:
    """What a decoder layer's forward calls its cache; LookupError where it takes none."""
    known = inspect.signature(layer.forward).parameters
    named = [name for name in CACHE_NAMES if name in known]
    if not named:
        raise LookupError(f"{type(layer).__name__} takes no cache")
    return named[0]


class _Given(MoeModelOutputWithPast):
    """Hidden states that were computed before, as a body's output: whatever else a family's head looks at is None."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


@contextmanager
def head_of(model: CausalLM) -> Iterator[Callable[[Tensor], Tensor]]:
    """Last hidden states (batch, tokens, hidden) -> logits (batch, tokens, vocabulary), until the block ends.

    By the model's own forward: families scale, cap or bias their logits there.
    """
    ids = torch.zeros((1, 1), dtype=torch.long, device=model.device)

    def head(hidden: Tensor) -> Tensor:
        given.last_hidden_state = hidden
        return model(input_ids=ids, use_cache=False).logits

    given = _Given()
    with ExitStack() as stack:
        for part in {body_of(model), decoder_of(model)}:  # some heads ask the decoder inside the body (OPT)
            stack.enter_context(swapped(part, "forward", lambda *_, **__: given))
        yield head
