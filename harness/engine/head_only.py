"""A model of which only logits are still asked: the weights of its layers are given back."""

import gc

import torch

from harness.engine.engine import Engine
from harness.engine.packed import remaining
from harness.models.parts import decoder_layers


def keep_head(engine: Engine) -> None:
    """Free the decoder layers of an engine's model, and what was made of them; its head works as before."""
    for layer in decoder_layers(engine.model):
        for tensor in (*layer.parameters(), *layer.buffers()):
            tensor.data = tensor.data.new_empty(0)
    engine.weights = remaining(engine.model, engine.weights)
    engine.forwards = []
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
