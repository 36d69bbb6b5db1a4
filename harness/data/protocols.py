"""The protocols, a class each with its own parameters, registered in PROTOCOLS; docs/protocols.md draws them.

L is `ctx`, S `stride`, K `num_targets`, all in tokens. Where windows lie on a grid, the last one is cut at the
document's end or left out, as the protocol says.
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
        begin = 0
        while begin + ctx - (bos := self.has_bos(len(windows))) <= num_tokens:
            windows.append(window(begin, begin + ctx - bos, begin, bos))
            begin += self.stride
        return windows


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
class SinglePass(Protocol):
    """[0, L): one window, all scored."""

    name = "single_pass"
    source = "Peng et al. 2023, arXiv:2309.00071, its code with --truncate"
    promises = ("once",)
    nested = True

    def windows(self, num_tokens: int, ctx: int) -> list[Window]:
        """One window."""
        bos = self.has_bos(0)
        return [window(0, ctx - bos, 0, bos)]


@dataclass(frozen=True, kw_only=True)
class Disjoint(Protocol):
    """[0, L), [L, 2 L), ...: all scored; the last window may be shorter."""

    name = "disjoint"
    source = "lm-eval, rolling likelihood"
    promises = ("every_token", "once")

    def windows(self, num_tokens: int, ctx: int) -> list[Window]:
        """About num_tokens / L windows."""
        windows: list[Window] = []
        begin = 0
        while begin < num_tokens:
            bos = self.has_bos(len(windows))
            end = begin + ctx - bos
            windows.append(window(begin, min(end, num_tokens), begin, bos))
            begin = end
        return windows


@dataclass(frozen=True, kw_only=True)
class Last(Strided):
    """[0, L), [S, S + L), ...: full windows only, of each the last K tokens scored."""

    name = "last"
    source = "Yen et al. 2024, arXiv:2402.16617 (CEPE); llama.cpp with a stride"

    num_targets: int | None = None  # scored tokens of a window; None: the stride

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_targets(self.targets)

    @property
    def targets(self) -> int:
        """Scored tokens of a window."""
        return self.stride if self.num_targets is None else self.num_targets

    def parameters(self) -> dict[str, int | str | None]:
        """The scored tokens as a number: left open or given as the stride, the windows are the same."""
        return super().parameters() | {"num_targets": self.targets}

    def check(self, ctx: int) -> None:
        """Also where a window does not hold its scored tokens."""
        super().check(ctx)
        _check_room(self.name, self.targets, ctx)

    def windows(self, num_tokens: int, ctx: int) -> list[Window]:
        """About (num_tokens - L) / S windows."""
        full = self.full_windows(num_tokens, ctx)
        return [w._replace(score_from=max(w.end - self.targets, w.score_from)) for w in full]


@dataclass(frozen=True, kw_only=True)
class SecondHalf(Protocol):
    """Chunks [0, L), [L, 2 L), ..., full ones only; scored are the tokens behind position L / 2.

    As in llama.cpp, a BOS overwrites the first token of a chunk, and the token at L / 2 itself is context, so that
    L - L // 2 - 1 tokens are scored.
    """

    name = "second_half"
    source = "llama.cpp, llama-perplexity"
    promises = ("once",)

    def check(self, ctx: int) -> None:
        """Also where nothing lies behind the middle."""
        super().check(ctx)
        if ctx < 3:
            raise UserError(f"ctx must be at least 3 tokens for {self.name}, which scores behind ctx // 2, got {ctx}.")

    def windows(self, num_tokens: int, ctx: int) -> list[Window]:
        """num_tokens // L windows."""
        windows: list[Window] = []
        for index, begin in enumerate(range(0, num_tokens - ctx + 1, ctx)):
            bos = self.has_bos(index)
            windows.append(window(begin + bos, begin + ctx, begin + ctx // 2 + 1, bos))
        return windows


@dataclass(frozen=True, kw_only=True)
class FixedTargets(Protocol):
    """The L tokens that end at the document's end, the last K scored: the same tokens at every length."""

    name = "fixed_targets"
    source = "Su 2023, ReRoPE (github.com/bojone/rerope)"
    promises = ("once",)

    num_targets: int = 256  # scored tokens

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_targets(self.num_targets)

    def check(self, ctx: int) -> None:
        """Also where the window does not hold its scored tokens."""
        super().check(ctx)
        _check_room(self.name, self.num_targets, ctx)

    def windows(self, num_tokens: int, ctx: int) -> list[Window]:
        """One window."""
        bos = self.has_bos(0)
        return [window(num_tokens - ctx + bos, num_tokens, num_tokens - self.num_targets, bos)]


@dataclass(frozen=True, kw_only=True)
class OverlappingFull(Strided):
    """[0, L), [S, S + L), ...: full windows only, every position scored, so that tokens count about L / S times."""

    name = "overlapping_full"
    source = "Chen et al. 2023, arXiv:2309.12307 (LongLoRA), its code"

    def windows(self, num_tokens: int, ctx: int) -> list[Window]:
        """About (num_tokens - L) / S windows."""
        return self.full_windows(num_tokens, ctx)


def _check_targets(num_targets: int) -> None:
    if num_targets < 1:
        raise UserError(f"protocol.num_targets must be at least 1 token, got {num_targets}.")


def _check_room(name: str, num_targets: int, ctx: int) -> None:
    if num_targets > ctx - 1:
        raise UserError(f"protocol.num_targets must be at most ctx - 1 = {ctx - 1} for {name}, got {num_targets}.")


PROTOCOLS: dict[str, type[Protocol]] = {
    protocol.name: protocol
    for protocol in (Sliding, SinglePass, Disjoint, Last, SecondHalf, FixedTargets, OverlappingFull)
}
