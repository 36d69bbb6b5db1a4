"""Queries scaled by their position, a modifier of any method: one class a form."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from harness.errors import UserError, unknown
from harness.methods.base import check_positive


@dataclass(frozen=True, kw_only=True)
class QueryScale(ABC):
    """Multiplier of the query at each position p = 0, 1, ... of a window; a pure function of its parameters."""

    name: ClassVar[str]

    @abstractmethod
    def __call__(self, length: int, trained: int) -> NDArray[np.float64]:
        """The multipliers (length,) for a model trained at `trained` tokens."""

    @property
    def parameters(self) -> dict[str, Any]:
        """As JSON values for a cell's identity and labels; log-n as it was called when it was the only form."""
        return {"logn": True} if self.name == "log_n" else {"query_scale": {"name": self.name, **asdict(self)}}

    def __str__(self) -> str:
        given = [f"{f.name}={v}" for f in fields(self) if (v := getattr(self, f.name)) != f.default]
        return f"{self.name}({', '.join(given)})" if given else self.name


@dataclass(frozen=True, kw_only=True)
class LogN(QueryScale):
    """max(1, ln(p + 1) / ln(trained)): keeps the entropy of attention what it was in training.

    Su 2021, kexue.fm/archives/8823; used with ReRoPE and NTK-mixed in github.com/bojone/rerope, and by Grok-2.
    """

    name: ClassVar[str] = "log_n"

    def __call__(self, length: int, trained: int) -> NDArray[np.float64]:
        """The multipliers, (length,)."""
        return np.maximum(1.0, np.log(np.arange(1, length + 1)) / np.log(trained))


@dataclass(frozen=True, kw_only=True)
class Floor(QueryScale):
    """1 + beta ln(1 + floor((p + first) / every)): a step every so many tokens.

    Llama 4 (in layers without positions): beta 0.1, every 8192, first 1. Ministral 3: every = the trained length,
    first 0. Here in all layers.
    """

    name: ClassVar[str] = "floor"
    beta: float = 0.1
    every: int | None = None  # tokens; None: the trained length
    first: int = 1  # the number of the first position

    def __post_init__(self) -> None:
        check_positive("query_scale floor", beta=self.beta, every=self.every)
        if self.first not in (0, 1):
            raise UserError(f"query_scale floor: first must be 0 or 1, got {self.first}.")

    def __call__(self, length: int, trained: int) -> NDArray[np.float64]:
        """The multipliers, (length,)."""
        steps = (np.arange(length) + self.first) // (self.every or trained)
        return 1 + self.beta * np.log1p(steps)


@dataclass(frozen=True, kw_only=True)
class Power(QueryScale):
    """(1 + (p + 1) / every) ^ exponent, as in Beam's layers without positions (2048 tokens, 0.1); here in all."""

    name: ClassVar[str] = "power"
    every: int = 2048  # tokens
    exponent: float = 0.1

    def __post_init__(self) -> None:
        check_positive("query_scale power", every=self.every, exponent=self.exponent)

    def __call__(self, length: int, trained: int) -> NDArray[np.float64]:
        """The multipliers, (length,)."""
        return (1 + np.arange(1, length + 1) / self.every) ** self.exponent


@dataclass(frozen=True, kw_only=True)
class SsMax(QueryScale):
    """s ln(p + 1): scalable softmax, put on a finished model.

    Nakanishi 2025, arXiv:2501.19399, trains s; without one it is 1 / mean ln(n) over n = 1 .. trained, so that queries
    are on average as long as in training.
    """

    name: ClassVar[str] = "ssmax"
    s: float | None = None

    def __post_init__(self) -> None:
        check_positive("query_scale ssmax", s=self.s)

    def __call__(self, length: int, trained: int) -> NDArray[np.float64]:
        """The multipliers, (length,); 0 at the first position, which sees itself alone."""
        s = self.s or trained / math.lgamma(trained + 1)
        return s * np.log(np.arange(1, length + 1))


QUERY_SCALES: dict[str, type[QueryScale]] = {form.name: form for form in (Floor, LogN, Power, SsMax)}


def query_scale(given: object) -> QueryScale | None:
    """The form that a configuration names: null, a name, or a name with parameters. Raises UserError."""
    if given is None:
        return None
    params = dict(given) if isinstance(given, Mapping) else {"name": given}
    name = params.pop("name", None)
    if not isinstance(name, str) or name not in QUERY_SCALES:
        raise unknown("method.query_scale", str(name), QUERY_SCALES)
    form = QUERY_SCALES[name]
    known = {f.name: f.default for f in fields(form)}
    for param, value in params.items():
        if param not in known:
            raise unknown(f"parameter of query_scale {name}", str(param), known)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"query_scale {name}: {param} must be a number, got {value!r}.")
    return form(**params)
