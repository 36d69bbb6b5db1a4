"""Protocols whose windows begin every S tokens; docs/protocols.md draws them.

L is `ctx`, S `stride`, K `num_targets`, all in tokens. Under `first_window` the grid is that of the stream [BOS] +
text, of which the BOS is token 0: what begins at n in the stream begins at n - 1 in the document.
"""

from dataclasses import dataclass

from harness.data.windows import Protocol, Window, window
from harness.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Strided(Protocol):
    """What protocols have in common whose windows begin every S tokens."""

    stride: int = 256  # tokens

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stride < 1:
            raise UserError(f"protocol.stride must be at least 1 token, got {self.stride}.")

    def check(self, ctx: int) -> None:
        """Also where the stride leaves tokens out between windows."""
        super().check(ctx)
        text = ctx - (self.bos in ("every_window", "first_window"))
        if self.stride > text:
            raise UserError(
                f"protocol.stride must be at most the {text} text tokens of a window (ctx={ctx}, bos={self.bos}), "
                f"got {self.stride}."
            )

    def full_windows(self, num_tokens: int, ctx: int) -> list[Window]:
        """[0, L), [S, S + L), ...: full ones only, all scored."""
        windows: list[Window] = []
        text = ctx - (self.bos == "every_window")  # tokens of every window but the first
        end = ctx - self.has_bos(0)
        while end <= num_tokens:
            bos = self.has_bos(len(windows))
            begin = end - text if windows else 0
            windows.append(window(begin, end, begin, bos))
            end += self.stride
        return windows

    @property
    def on_stream(self) -> int:
        """Version of `full_windows`: before the second, a BOS in front of the first did not shift the others."""
        return 2 if self.bos == "first_window" else 1


@dataclass(frozen=True, kw_only=True)
class Sliding(Strided):
    """[0, L), [S, S + L), ...: the first window scores all, every other one only its new tokens.

    The last window is cut at the document's end.
    """

    name = "sliding"
    source = "Press et al. 2022, arXiv:2108.12409; documentation of transformers"
    promises = ("every_token", "once")

    def windows(self, num_tokens: int, ctx: int) -> list[Window]:
        """About num_tokens / S windows."""
        windows: list[Window] = []
        end = 0
        while end < num_tokens:
            bos = self.has_bos(len(windows))
            full = end + self.stride if windows else ctx - bos
            begin = full - (ctx - bos)
            windows.append(window(begin, min(full, num_tokens), end, bos))
            end = full
        return windows


@dataclass(frozen=True, kw_only=True)
class Last(Strided):
    """[0, L), [S, S + L), ...: full windows only, of each the last K tokens scored."""

    name = "last"
    source = "Yen et al. 2024, arXiv:2402.16617 (CEPE); llama.cpp with a stride"

    num_targets: int | None = None  # scored tokens of a window; None: the stride

    def __post_init__(self) -> None:
        super().__post_init__()
        check_targets(self.targets)

    @property
    def targets(self) -> int:
        """Scored tokens of a window."""
        return self.stride if self.num_targets is None else self.num_targets

    @property
    def version(self) -> int:
        """As of the windows."""
        return self.on_stream

    def parameters(self) -> dict[str, int | str | None]:
        """The scored tokens as a number: left open or given as the stride, the windows are the same."""
        return super().parameters() | {"num_targets": self.targets}

    def check(self, ctx: int) -> None:
        """Also where a window does not hold its scored tokens."""
        super().check(ctx)
        check_room(self.name, self.targets, ctx)

    def windows(self, num_tokens: int, ctx: int) -> list[Window]:
        """About (num_tokens - L) / S windows."""
        full = self.full_windows(num_tokens, ctx)
        return [w._replace(score_from=max(w.end - self.targets, w.score_from)) for w in full]


@dataclass(frozen=True, kw_only=True)
class OverlappingFull(Strided):
    """[0, L), [S, S + L), ...: full windows only, every position scored, so that tokens count about L / S times."""

    name = "overlapping_full"
    source = "Chen et al. 2023, arXiv:2309.12307 (LongLoRA), its code"

    def windows(self, num_tokens: int, ctx: int) -> list[Window]:
        """About (num_tokens - L) / S windows."""
        return self.full_windows(num_tokens, ctx)

    @property
    def version(self) -> int:
        """As of the windows."""
        return self.on_stream


def check_targets(num_targets: int) -> None:
    """Raise UserError for fewer than one scored token."""
    if num_targets < 1:
        raise UserError(f"protocol.num_targets must be at least 1 token, got {num_targets}.")


def check_room(name: str, num_targets: int, ctx: int) -> None:
    """Raise UserError where a window does not hold its scored tokens behind one of context."""
    if num_targets > ctx - 1:
        raise UserError(f"protocol.num_targets must be at most ctx - 1 = {ctx - 1} for {name}, got {num_targets}.")
