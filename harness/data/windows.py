"""Which tokens the model sees in one forward pass, and which of them are scored: one pure function a protocol.

A window is tokens [begin, end) of one document, preceded by a BOS token where the policy says so. `ctx` counts every
token the model sees, BOS included, so a window with BOS holds ctx - 1 tokens of text. A BOS is never scored; without
one the first token of a window has no prediction and is not scored either. Windows lie on the stride's grid; the last
one is cut at the document's end (the recipe of Press et al. 2022, arXiv:2108.12409, and of the transformers docs).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from harness.errors import UserError, unknown


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
class Protocol:
    """A rule that lists windows for a document, and nothing else."""

    name: str = "sliding"
    stride: int = 256  # tokens; not used by single_pass, disjoint, second_half, fixed_targets
    bos: str = "auto"  # auto | every_window | first_window | none; auto is resolved from the tokenizer
    max_windows: int | None = None  # null: all; else the first and a seeded sample of the others, weighted
    num_targets: int | None = None  # scored tokens of `last` (null: stride) and `fixed_targets`

    def __post_init__(self) -> None:
        if self.name not in PROTOCOLS:
            raise unknown("protocol", self.name, PROTOCOLS)
        if self.bos not in BOS_POLICIES:
            raise unknown("protocol.bos", self.bos, BOS_POLICIES)
        if self.stride < 1:
            raise UserError(f"protocol.stride must be at least 1 token, got {self.stride}.")
        if self.max_windows is not None and self.max_windows < 2:
            raise UserError(
                "protocol.max_windows must be null (all windows) or at least 2 (the first and a sample of the "
                f"others), got {self.max_windows}."
            )
        if self.num_targets is not None and self.num_targets < 1:
            raise UserError(f"protocol.num_targets must be at least 1 token, got {self.num_targets}.")
        if self.name == "fixed_targets" and self.num_targets is None:
            raise UserError("protocol fixed_targets needs protocol.num_targets, the scored tokens of a window.")

    @property
    def uses_stride(self) -> bool:
        """Whether the stride is a parameter of this protocol."""
        return self.name in ("sliding", "last", "overlapping_full")

    def parameters(self) -> dict[str, int | str | None]:
        """What determines this protocol's windows, and nothing that does not."""
        parameters: dict[str, int | str | None] = {"bos": self.bos, "max_windows": self.max_windows}
        if self.uses_stride:
            parameters["stride"] = self.stride
        if self.name == "last":
            parameters["num_targets"] = self.num_targets or self.stride
        if self.name == "fixed_targets":
            parameters["num_targets"] = self.num_targets
        return parameters

    def check(self, ctx: int) -> None:
        """Raise UserError where windows of `ctx` tokens cannot follow this protocol."""
        if ctx < 2:
            raise UserError(f"ctx must be an integer of at least 2 tokens, got {ctx}.")
        text = ctx - (self.bos in ("every_window", "first_window"))
        if self.uses_stride and self.stride > text:
            raise UserError(
                f"protocol.stride must be at most the {text} text tokens of a window (ctx={ctx}, bos={self.bos}), "
                f"got {self.stride}."
            )
        if self.name == "second_half" and ctx < 3:
            raise UserError(f"ctx must be at least 3 tokens for second_half, which scores behind ctx // 2, got {ctx}.")
        if self.name in ("last", "fixed_targets"):
            targets = self.num_targets or self.stride
            room = ctx - 1
            if targets > room:
                raise UserError(
                    f"protocol.num_targets must be at most ctx - 1 = {room} for {self.name}, got {targets}."
                )


BOS_POLICIES = ("auto", "every_window", "first_window", "none")


def plan(num_tokens: int, ctx: int, protocol: Protocol, seed: int = 0) -> list[Window]:
    """The windows of a document of `num_tokens` tokens; `seed` draws the sample that `max_windows` asks for.

    Raises UserError where the document is shorter than one window, or the protocol does not fit `ctx`.
    """
    assert protocol.bos != "auto", "resolve the BOS policy before planning"
    protocol.check(ctx)
    if num_tokens < ctx:
        raise UserError(f"a document of {num_tokens} tokens is shorter than one window of ctx={ctx} tokens.")
    windows = [w for w in PROTOCOLS[protocol.name](num_tokens, ctx, protocol) if w.num_scored > 0]
    return _sample(windows, protocol.max_windows, seed)


def _sample(windows: list[Window], max_windows: int | None, seed: int) -> list[Window]:
    """The first window, and of the others a sample whose weights make every sum unbiased."""
    if max_windows is None or len(windows) <= max_windows:
        return windows
    others = len(windows) - 1
    drawn = np.random.default_rng(seed).choice(others, size=max_windows - 1, replace=False) + 1
    weight = others / (max_windows - 1)
    return [windows[0], *(windows[i]._replace(weight=weight) for i in sorted(drawn))]


def _has_bos(protocol: Protocol, index: int) -> bool:
    return protocol.bos == "every_window" or (protocol.bos == "first_window" and index == 0)


def _window(begin: int, end: int, score_from: int, bos: bool) -> Window:
    """A window whose first token is scored only behind a BOS."""
    return Window(begin, end, max(score_from, begin + (not bos)), bos)


def _sliding(num_tokens: int, ctx: int, protocol: Protocol) -> list[Window]:
    """[0, L), [S, S + L), ...: the first window scores all, every other one only its new tokens."""
    windows: list[Window] = []
    end = 0
    while end < num_tokens:
        bos = _has_bos(protocol, len(windows))
        full = end + protocol.stride if windows else ctx - bos
        begin = full - (ctx - bos)
        windows.append(_window(begin, min(full, num_tokens), end, bos))
        end = full
    return windows


def _single_pass(num_tokens: int, ctx: int, protocol: Protocol) -> list[Window]:
    """[0, L): one window, all scored."""
    bos = _has_bos(protocol, 0)
    return [_window(0, ctx - bos, 0, bos)]


def _disjoint(num_tokens: int, ctx: int, protocol: Protocol) -> list[Window]:
    """[0, L), [L, 2 L), ...: all scored; the last window may be shorter."""
    windows: list[Window] = []
    begin = 0
    while begin < num_tokens:
        bos = _has_bos(protocol, len(windows))
        end = begin + ctx - bos
        windows.append(_window(begin, min(end, num_tokens), begin, bos))
        begin = end
    return windows


def _full_windows(num_tokens: int, ctx: int, protocol: Protocol) -> list[Window]:
    """Every full window on the stride's grid, all scored."""
    windows: list[Window] = []
    begin = 0
    while begin + ctx - (bos := _has_bos(protocol, len(windows))) <= num_tokens:
        windows.append(_window(begin, begin + ctx - bos, begin, bos))
        begin += protocol.stride
    return windows


def _last(num_tokens: int, ctx: int, protocol: Protocol) -> list[Window]:
    """Full windows on the stride's grid, of which only the last tokens are scored."""
    targets = protocol.num_targets or protocol.stride
    return [w._replace(score_from=max(w.end - targets, w.score_from)) for w in _full_windows(num_tokens, ctx, protocol)]


def _second_half(num_tokens: int, ctx: int, protocol: Protocol) -> list[Window]:
    """Chunks [0, L), [L, 2 L), ..., full ones only; scored are the tokens behind position L / 2.

    As in llama.cpp, a BOS overwrites the first token of a chunk, and the token at L / 2 itself is context, so that
    L - L // 2 - 1 tokens are scored.
    """
    windows: list[Window] = []
    for index, begin in enumerate(range(0, num_tokens - ctx + 1, ctx)):
        bos = _has_bos(protocol, index)
        windows.append(_window(begin + bos, begin + ctx, begin + ctx // 2 + 1, bos))
    return windows


def _fixed_targets(num_tokens: int, ctx: int, protocol: Protocol) -> list[Window]:
    """The L tokens that end at the document's end; the same last tokens are scored at every length."""
    assert protocol.num_targets is not None
    bos = _has_bos(protocol, 0)
    return [_window(num_tokens - ctx + bos, num_tokens, num_tokens - protocol.num_targets, bos)]


PROTOCOLS: dict[str, Callable[[int, int, Protocol], list[Window]]] = {
    "sliding": _sliding,
    "single_pass": _single_pass,
    "disjoint": _disjoint,
    "last": _last,
    "second_half": _second_half,
    "fixed_targets": _fixed_targets,
    "overlapping_full": _full_windows,
}
