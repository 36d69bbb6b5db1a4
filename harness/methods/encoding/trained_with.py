"""Which methods make sense on a model that was trained with an encoding, and with which parameters."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from harness import methods
from harness.errors import UserError
from harness.methods.base import Method, RopeGeometry, parameters
from harness.methods.encoding.base import Encoding


@dataclass(frozen=True)
class TrainedWith:
    """The encoding of a model, its parameters all in place."""

    encoding: Encoding
    hidden_size: int
    length: int  # tokens of a training window

    @classmethod
    def of(cls, config: Any) -> Self | None:
        """What a transformers configuration says; None for a model without an encoding of ours."""
        declared: Mapping[str, Any] | None = getattr(config, "position_encoding", None)
        if not isinstance(declared, Mapping):
            return None
        own = dict(declared)
        encoding, trained = methods.construct(str(own.pop("name")), own), int(config.max_position_embeddings)
        assert isinstance(encoding, Encoding), f"position_encoding names {encoding.name}, which is no encoding"
        return cls(encoding.filled(trained), int(config.hidden_size), trained)

    @property
    def name(self) -> str:
        """The encoding's."""
        return self.encoding.name

    @property
    def geometry(self) -> RopeGeometry:
        """The frequencies of a sinusoidal table, and the trained length that every factor is relative to."""
        return RopeGeometry(
            rotary_dim=self.hidden_size, rope_theta=10_000.0, original_max_position_embeddings=self.length
        )

    @property
    def no_modifiers(self) -> str:
        """Why modifiers are refused."""
        return (
            "method.query_scale, .kv_cache, .resonance and other modifiers are of rotary models; this one was trained "
            f"with {self.name}."
        )

    def resolve(self, method: Method, length: int) -> Method:
        """The method with everything filled in, for windows of `length` tokens.

        Raises UserError, with the reason, for methods and lengths that make no sense on this model.
        """
        own, grown = self.encoding, 1.0
        if isinstance(method, type(own)):
            method = own = self._with_free(method)
        elif method.name in own.scalings:
            method = method.resolved(self.geometry, length)
            grown = method.factor or 1.0
        elif not method.as_it_is:
            allowed = ", ".join([*methods.AS_IT_IS, self.name, *own.scalings])
            raise UserError(
                f"method={method.name} makes no sense on a model trained with {self.name}: {own.why_not}. "
                f"Allowed: {allowed}."
            )
        reach = own.reach(self.length)
        if reach is not None and length > int(reach * grown):
            raise UserError(
                f"{self.name}: ctx must be <= {int(reach * grown)} tokens, the positions that the model has, "
                f"got {length}."
            )
        return method

    def _with_free(self, given: Encoding) -> Encoding:
        """The encoding, those of its parameters that were not learned as given."""
        chosen = {}
        for parameter, value in parameters(given).items():
            learned = getattr(self.encoding, parameter)
            if value is not None and value != learned:
                if parameter not in given.free:
                    raise UserError(f"{self.name}: the model was trained with {parameter}={learned}, got {value}.")
                chosen[parameter] = value
        return replace(self.encoding, **chosen)


def not_trained_with(encoding: Method) -> UserError:
    """The error for an encoding on a model that was not trained with any."""
    return UserError(
        f"method={encoding.name} is an encoding that a model must be trained with, and this one was not: "
        f"python -m harness.train method={encoding.name} trains one."
    )
