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
Shorter = Literal["error", "whole"]  # documents shorter than `ctx`: refused, or scored as one short window each
BOS_POLICIES: tuple[Bos, ...] = get_args(Bos)


class Window(NamedTuple):
    """One forward pass over one document; positions count document tokens, BOS excluded.

    Where a protocol is `ahead`, the model sees [begin, end - 1) and the last token is only scored.
    """

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
    ahead: ClassVar[bool] = False  # the last token of a window is scored and not seen: windows hold ctx + 1 tokens
    lends_eos: ClassVar[bool] = False  # where a tokenizer has no BOS, its EOS stands in for it
    takes_shorter: ClassVar[bool] = True  # a document shorter than ctx can be one short window
    of_targets: ClassVar[bool] = False  # of a document that says how many of its last tokens count, those alone

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
        """All windows over a document of `num_tokens` tokens that fills one, in their order; one may score nothing.

        Called with the BOS policy resolved and `ctx` checked.
        """

    @property
    def version(self) -> int:
        """Of the windows under these parameters, raised where they change, so that cells of before are not mixed in."""
        return 1

    def parameters(self) -> dict[str, int | str | None]:
        """What determines the windows, as JSON values; it is hashed into `cell_id`, so equal windows give equal ones.

        The parameters common to all and the protocol's own, which is what finished cells were hashed with; a later
        version of the windows beside them.
        """
        return asdict(self) | ({"version": self.version} if self.version > 1 else {})

    def resolved_bos(self, adds_bos: bool) -> Bos:
        """The policy, where `auto` depends on whether the tokenizer adds a BOS by itself."""
        return self.bos if self.bos != "auto" else "every_window" if adds_bos else "none"

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


def plan(
    num_tokens: int,
    ctx: int,
    protocol: Protocol,
    seed: int = 0,
    shorter: Shorter = "error",
    num_targets: int | None = None,
) -> list[Window]:
    """The windows of a document of `num_tokens` tokens; `seed` draws the sample that `max_windows` asks for.

    A document that is shorter than `ctx` is one window of its own length where `shorter` is "whole". `num_targets`: how
    many of its last tokens count under a protocol that asks; None: all. Raises UserError where `shorter` is "error",
    where the protocol does not fit `ctx`, or where it cannot score short documents.
    """
    assert protocol.bos != "auto", "resolve the BOS policy before planning"
    protocol.check(ctx)
    if num_tokens < ctx:
        check_shorter(protocol, shorter)
        if shorter == "error":
            raise UserError(f"a document of {num_tokens} tokens is shorter than one window of ctx={ctx} tokens.")
        ctx = num_tokens + (protocol.has_bos(0) and not protocol.ahead)
    windows = protocol.windows(num_tokens, ctx)
    if protocol.of_targets and num_targets is not None:
        windows = [w._replace(score_from=max(w.score_from, w.end - num_targets)) for w in windows]
    windows = [w for w in windows if w.num_scored > 0]
    return _sample(windows, protocol.max_windows, seed)


def check_shorter(protocol: Protocol, shorter: Shorter) -> None:
    """Raise UserError where a protocol means nothing on documents shorter than `ctx`."""
    if shorter == "whole" and not protocol.takes_shorter:
        raise UserError(f"data.shorter must be error for protocol={protocol.name}, which scores full windows only.")


def _sample(windows: list[Window], max_windows: int | None, seed: int) -> list[Window]:
    """The first window, and of the others a sample whose weights make every sum unbiased."""
    if max_windows is None or len(windows) <= max_windows:
        return windows
    others = len(windows) - 1
    drawn = np.random.default_rng(seed).choice(others, size=max_windows - 1, replace=False) + 1
    weight = others / (max_windows - 1)
    return [windows[0], *(windows[i]._replace(weight=weight) for i in sorted(drawn))]
