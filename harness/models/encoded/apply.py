"""Running a model with a trained encoding under a method that makes sense on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from harness.methods.base import Method
from harness.methods.encoding.base import Encoding
from harness.methods.encoding.modules.base import EncodingModule
from harness.methods.encoding.trained_with import TrainedWith
from harness.methods.frequency.linear import Linear
from harness.models.swap import swapped


@contextmanager
def applied(model: Any, trained_with: TrainedWith, method: Method, length: int) -> Iterator[None]:
    """Until the block ends, the model runs windows of up to `length` tokens under `method`.

    Raises UserError, with the reason, for methods that make no sense on its encoding.
    """
    method = trained_with.resolve(method, length)
    encoding: EncodingModule = model.model.encoding
    if isinstance(method, Encoding) and method != trained_with.encoding:
        with swapped(model.model, "encoding", _with_other_parameters(model, method)):
            yield
    elif isinstance(method, Linear):
        with swapped(encoding, "stretch", method.factor):
            yield
    elif method.kind == "frequency" and not method.as_it_is:
        with swapped(encoding, "inv_freq", tuple(method(trained_with.geometry, length).inv_freq)):
            yield
    else:
        yield


def _with_other_parameters(model: Any, method: Encoding) -> nn.Module:
    """The encoding with other free parameters: no weight depends on them."""
    old, module = model.model.encoding, method.module(model.config.shape)
    module.load_state_dict(old.state_dict())
    return module.to(model.device, model.dtype).train(old.training)
