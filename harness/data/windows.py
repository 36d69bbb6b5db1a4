"""Which tokens the model sees in one forward pass, and which of them are scored: what every protocol shares.

A window is tokens [begin, end) of one document, preceded by a BOS token where the policy says so. `ctx` counts every
token the model sees, BOS included, so a window with BOS holds ctx - 1 tokens of text. A BOS is never scored; without
one the first token of a window has no prediction and is not scored either.
"""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import ClassVar, Literal, NamedTuple, get_args

import numpy as np

from harness.errors import UserError, unknown

Bos = Literal["auto", "every_window", "first_window", "none"]
Promise = Literal["every_token", "once"]
BOS_POLICIES: tuple[Bos, ...] = get_args(Bos)


class Window(NamedTuple):
    """One forward pass over one document; positions count document tokens, BOS excluded."""

    begin: int
    end: int
    score_from: int  # first scored token; tokens [score_from, end) are scored
    bos: bool = False
    weight: float = 1.0  # how many windows of the full plan this one stands for

    @property
    def num_scored(self) -> int:
        """Tokens whose loss counts."""
        return self.end - self.score_from


@dataclass(frozen=True, kw_only=True)
class Protocol(ABC):
    """A rule that lists the windows of a document: a small frozen dataclass of its own parameters, a pure function.

    What it is stands on its class. `promises` is what property tests ask of its windows: "every_token", no token that
    has something before it is left out; "once", none is scored twice.
    """

    name: ClassVar[str]  # in PROTOCOLS, in conf/protocol, in rows and in errors
    source: ClassVar[str]  # whose numbers are made like this
    promises: ClassVar[tuple[Promise, ...]] = ()
    nested: ClassVar[bool] = False  # a shorter ctx scores the beginning of the same window: one pass serves them all

    bos: Bos = "auto"  # auto is resolved from the tokenizer
    max_windows: int | None = None  # None: all; else the first and a seeded sample of the others, weighted

    def __post_init__(self) -> None:
        if self.bos not in BOS_POLICIES:
            raise unknown("protocol.bos", self.bos, BOS_POLICIES)
        if self.max_windows is not None and self.max_windows < 2:
            raise UserError(
                "protocol.max_windows must be null (all windows) or at least 2 (the first and a sample of the "
                f"others), got {self.max_windows}."
            )

    @abstractmethod
    def windows(self, num_tokens: int, ctx: int) -> list[Window]:
        """All windows over a document of `num_tokens` >= `ctx` tokens, in their order; one may have nothing to score.

        Called with the BOS policy resolved and `ctx` checked.
        """

    def parameters(self) -> dict[str, int | str | None]:
        """What determines the windows, as JSON values; it is hashed into `cell_id`, so equal windows give equal ones.

        The parameters common to all and the protocol's own, which is what finished cells were hashed with.
        """
        return asdict(self)

    def check(self, ctx: int) -> None:
        """Raise UserError where windows of `ctx` tokens cannot follow this protocol."""
        if ctx < 2:
            raise UserError(f"ctx must be an integer of at least 2 tokens, got {ctx}.")

    def has_bos(self, index: int) -> bool:
        """Whether a BOS precedes a document's window number `index`."""
        return self.bos == "every_window" or (self.bos == "first_window" and index == 0)


def window(begin: int, end: int, score_from: int, bos: bool) -> Window:
    """A window whose first token is scored only behind a BOS."""
    return Window(begin, end, max(score_from, begin + (not bos)), bos)


def plan(num_tokens: int, ctx: int, protocol: Protocol, seed: int = 0) -> list[Window]:
    """The windows of a document of `num_tokens` tokens; `seed` draws the sample that `max_windows` asks for.

    Raises UserError where the document is shorter than one window, or the protocol does not fit `ctx`.
    """
    assert protocol.bos != "auto", "resolve the BOS policy before planning"
    protocol.check(ctx)
    if num_tokens < ctx:
        raise UserError(f"a document of {num_tokens} tokens is shorter than one window of ctx={ctx} tokens.")
    windows = [w for w in protocol.windows(num_tokens, ctx) if w.num_scored > 0]
    return _sample(windows, protocol.max_windows, seed)


def _sample(windows: list[Window], max_windows: int | None, seed: int) -> list[Window]:
    """The first window, and of the others a sample whose weights make every sum unbiased."""
    if max_windows is None or len(windows) <= max_windows:
        return windows
    others = len(windows) - 1
    drawn = np.random.default_rng(seed).choice(others, size=max_windows - 1, replace=False) + 1
    weight = others / (max_windows - 1)
    return [windows[0], *(windows[i]._replace(weight=weight) for i in sorted(drawn))]
