"""Running a model with a trained encoding under a method that makes sense on it."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from torch import nn

from harness.methods.base import Method
from harness.methods.encoding.base import Encoding
from harness.methods.encoding.trained_with import TrainedWith
from harness.methods.frequency.linear import Linear
from harness.models.encoded.model import EncodedForCausalLM
from harness.models.installed import Installed
from harness.models.parts import CausalLM
from harness.models.swap import swapped


@contextmanager
def encoded_as(
    model: CausalLM, trained_with: TrainedWith, method: Method, length: int
) -> Iterator[tuple[Installed, ...]]:
    """Until the block ends, the model runs windows of up to `length` tokens under `method`.

    The block is given the frequencies that were put in, where there are any.
    Raises UserError, with the reason, for methods that make no sense on its encoding.
    """
    method = trained_with.resolve(method, length)
    assert isinstance(model, EncodedForCausalLM), "no other model has an encoding of its own"
    encoding = model.model.encoding
    if isinstance(method, Encoding) and method != trained_with.encoding:
        with swapped(model.model, "encoding", _with_other_parameters(model, method)):
            yield ()
    elif isinstance(method, Linear):
        with swapped(encoding, "stretch", method.factor):
            yield ()
    elif method.kind == "frequency" and not method.as_it_is:
        with swapped(encoding, "inv_freq", tuple(method(trained_with.geometry, length).inv_freq)):
            yield (Installed("model.encoding", None, np.array(encoding.inv_freq), 1.0, 0),)
    else:
        yield ()


def _with_other_parameters(model: EncodedForCausalLM, method: Encoding) -> nn.Module:
    """The encoding with other free parameters: no weight depends on them."""
    old, module = model.model.encoding, method.module(model.config.shape)
    module.load_state_dict(old.state_dict())
    return module.to(model.device, model.dtype).train(old.training)
