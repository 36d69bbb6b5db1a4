"""What every scaling method shares: the model's rotary geometry, the frequencies, the contract."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, NamedTuple, Self, get_args

import numpy as np
from numpy.typing import NDArray

from harness.errors import UserError, unknown


@dataclass(frozen=True, kw_only=True)
class RopeGeometry:
    """The rotary embedding that a checkpoint was trained with."""

    rotary_dim: int  # channels that rotate: head_dim x partial_rotary_factor
    rope_theta: float
    original_max_position_embeddings: int  # tokens
    resting: int = 0  # channels beside them that count in the exponent, and do not rotate (Gemma 4's `proportional`)
    dual_chunk: tuple[int, int] | None = None  # tokens: chunk and local window that the checkpoint declares (Qwen 1M)

    def __post_init__(self) -> None:
        if self.dual_chunk is not None:
            object.__setattr__(self, "dual_chunk", tuple(self.dual_chunk))  # a list where it was JSON
        if self.rotary_dim < 2 or self.rotary_dim % 2:
            raise UserError(f"rotary_dim must be even and >= 2, got {self.rotary_dim}.")
        if self.resting < 0 or self.resting % 2:
            raise UserError(f"resting must be even and >= 0, got {self.resting}.")
        if self.rope_theta <= 1:
            raise UserError(f"rope_theta must be > 1, got {self.rope_theta}.")
        if self.original_max_position_embeddings < 2:
            raise UserError(
                f"original_max_position_embeddings must be >= 2 tokens, got {self.original_max_position_embeddings}."
            )

    @property
    def inv_freq(self) -> NDArray[np.float64]:
        """Unscaled frequencies rope_theta^(-2 i / exponent_dim), shape (rotary_dim // 2,), radians a token."""
        exponent = np.arange(0, self.rotary_dim, 2, dtype=np.float64) / self.exponent_dim
        return self.rope_theta**-exponent

    @property
    def exponent_dim(self) -> int:
        """The channels that the exponent of a frequency is counted in: those that rotate and those that rest."""
        return self.rotary_dim + self.resting

    @property
    def values(self) -> dict[str, float]:
        """What frequencies follow from, as JSON; without `resting` where nothing rests, as before there was any."""
        values = {name: value for name, value in asdict(self).items() if name != "resting" or value}
        del values["dual_chunk"]  # a parameter of the method that follows it
        return values


class RopeFrequencies(NamedTuple):
    """What a method asks the rotary module to use for one window."""

    inv_freq: NDArray[np.float64]  # (rotary_dim // 2,), radians a token
    attention_scaling: float = 1.0  # multiplies cos and sin, so logits by its square
    unscaled_prefix: int = 0  # positions below it keep the unscaled frequencies (LongRoPE's n-hat)
    logit_scaling: float = 1.0  # multiplies all logits, those of channels that do not rotate, too


def added(default: Any) -> Any:
    """A parameter younger than finished cells: at its default a method is what it was before, and so is its cell."""
    return field(default=default, metadata={"added": True})


Kind = Literal["frequency", "native", "attention", "encoding"]  # native: the checkpoint's own scaling
Promise = Literal["positive", "identity", "interpolation"]
PROMISES: tuple[Promise, ...] = get_args(Promise)


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """A method: a small frozen dataclass of its own parameters, called as a pure function.

    What it is stands on its class. `promises` is what property tests ask of its frequencies: "positive", none of them
    is zero; "identity", within the trained length they are the unscaled ones; "interpolation", at a window s times as
    long as trained they lie between the unscaled ones and those divided by s, the slowest well below the unscaled.
    """

    kind: ClassVar[Kind]
    name: ClassVar[str]  # in METHODS, in conf/method and in errors
    changes: ClassVar[str]  # one line for the table of methods
    source: ClassVar[str]  # arXiv number, or where the method was published instead
    version: ClassVar[int] = 1  # of the numbers: raised when the formula changes, so that old cells are not reused
    promises: ClassVar[tuple[Promise, ...]] = ()
    as_it_is: ClassVar[bool] = False  # changes nothing, so that it runs on models without rotary embedding as well

    @property
    def depends_on_length(self) -> bool:
        """Whether frequencies change with the window's length once the factor is resolved.

        A subclass says `depends_on_length: ClassVar[bool] = True`, or has a property where its parameters decide.
        """
        return False

    @property
    def factor(self) -> float | None:
        """How many times longer than the trained length; None without such a parameter and until it is resolved."""
        return None

    def resolved(self, geometry: RopeGeometry, length: int) -> Self:
        """The method with every parameter left open filled in for windows of up to `length` tokens.

        A parameter `factor` of None becomes `growth`. Raises UserError where parameters do not fit the geometry.
        """
        if self.factor is not None or all(field.name != "factor" for field in fields(self)):
            return self
        filled: dict[str, Any] = {"factor": growth(geometry, length)}
        return replace(self, **filled)

    @abstractmethod
    def __call__(self, geometry: RopeGeometry, length: int) -> RopeFrequencies:
        """Frequencies, (rotary_dim // 2,), for windows of `length` tokens; called on a resolved method.

        Of kinds without frequencies of their own, native and encoding, a call is a mistake of ours: TypeError.
        """


def parameters(method: Method) -> dict[str, Any]:
    """A method's own parameters as JSON values, those `added` later only where they differ from their defaults."""
    named = {f.name: getattr(method, f.name) for f in fields(method)}
    return {f.name: named[f.name] for f in fields(method) if not f.metadata or named[f.name] != f.default}


def check_factor(method: str, factor: float | None) -> None:
    """Raise unless `factor` is None (resolved later) or at least 1."""
    if factor is not None and not 1 <= factor < math.inf:
        raise UserError(f"{method}: factor must be >= 1 (ctx / original_max_position_embeddings), got {factor}.")


def resolved_factor(method: Method) -> float:
    """The method's factor; an error of ours if `resolved` has not filled it in."""
    assert method.factor is not None, f"{method.name}: resolve the factor before the call"
    return float(method.factor)


def check_choice(method: str, field: str, given: str, allowed: Iterable[str]) -> None:
    """Raise unless `given` is one of the allowed values of the method's field."""
    allowed = tuple(allowed)
    if given not in allowed:
        raise unknown(f"{method} {field}", given, allowed)


def check_positive(method: str, **numbers: float | None) -> None:
    """Raise unless every number given by name is finite and above 0, or None."""
    for name, number in numbers.items():
        if number is not None and not 0 < number < math.inf:
            raise UserError(f"{method}: {name} must be finite and > 0, got {number}.")


def check_multiplier(method: str, factor: float) -> None:
    """Raise unless a factor that is not derived from the length is finite and at least 1."""
    if not 1 <= factor < math.inf:
        raise UserError(f"{method}: factor must be finite and >= 1, got {factor}.")


def check_rotations(method: str, **fast_slow: float) -> None:
    """Raise unless, of two rotation counts given by name, the second is above 0 and the first above the second."""
    (fast_name, fast), (slow_name, slow) = fast_slow.items()
    check_positive(method, **{slow_name: slow})
    if not slow < fast < math.inf:
        raise UserError(f"{method}: {fast_name} must be > {slow_name} ({slow}), got {fast}.")


def growth(geometry: RopeGeometry, length: int) -> float:
    """How many times longer than the trained length a window is, at least 1."""
    return max(1.0, length / geometry.original_max_position_embeddings)
