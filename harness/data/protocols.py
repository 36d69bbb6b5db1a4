"""The protocols, a class each with its own parameters, registered in PROTOCOLS; docs/protocols.md draws them.

L is `ctx`, S `stride`, K `num_targets`, all in tokens. Where windows lie on a grid, the last one is cut at the
document's end or left out, as the protocol says. Under `first_window` the grid is that of the stream [BOS] + text, of
which the BOS is token 0: what begins at n in the stream begins at n - 1 in the document.
"""

from dataclasses import dataclass

from harness.data.strided import Last, OverlappingFull, Sliding, check_room, check_targets
from harness.data.windows import Bos, Protocol, Window, window
from harness.errors import UserError


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
    source = "common practice; chunks of a text without anything before them"
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
class Rolling(Protocol):
    """[0, L + 1), [L, 2 L + 1), ... of the stream [BOS] + text: the first L tokens are seen, the last L scored.

    One token of context is in front of the first scored one, the BOS or the last token of the window before; with a BOS
    in every window it is that one. The last window is filled up with context to L + 1 tokens. A tokenizer without BOS
    lends its EOS.
    """

    name = "rolling"
    source = "lm-eval, loglikelihood_rolling"
    promises = ("every_token", "once")
    ahead = True
    lends_eos = True

    def resolved_bos(self, adds_bos: bool) -> Bos:
        """Every text has its prefix token, whatever the tokenizer does."""
        return "first_window" if self.bos == "auto" else self.bos

    def windows(self, num_tokens: int, ctx: int) -> list[Window]:
        """About num_tokens / L windows."""
        text = ctx + (self.bos != "every_window")  # tokens of every window but the first, all but one of them seen
        windows: list[Window] = []
        scored = 0
        while scored < num_tokens:
            bos = self.has_bos(len(windows))
            end = min(num_tokens, scored + ctx + (self.bos == "none" and not windows))
            begin = max(0, end - text)
            windows.append(window(begin, end, scored, bos))
            scored = end
        return windows


@dataclass(frozen=True, kw_only=True)
class SecondHalf(Protocol):
    """Chunks [0, L), [L, 2 L), ... of the stream [BOS] + text, full ones only; scored behind position L / 2.

    As in llama.cpp, which tokenizes with a BOS where the model has one, and lets it overwrite the first token of every
    chunk: chunk n has the tokens [n L, n L + L - 1) of the text. The token at L / 2 itself is context, so that
    L - L // 2 - 1 tokens are scored. Without BOS the stream is the text.
    """

    name = "second_half"
    source = "llama.cpp, llama-perplexity"
    promises = ("once",)
    takes_shorter = False

    @property
    def version(self) -> int:
        """Before the second, chunks with a BOS lay as those without, one token later than in the stream."""
        return 2 if self.bos in ("every_window", "first_window") else 1

    def check(self, ctx: int) -> None:
        """Also where nothing lies behind the middle."""
        super().check(ctx)
        if ctx < 3:
            raise UserError(f"ctx must be at least 3 tokens for {self.name}, which scores behind ctx // 2, got {ctx}.")

    def windows(self, num_tokens: int, ctx: int) -> list[Window]:
        """About num_tokens // L windows."""
        ahead = self.has_bos(0)  # tokens of the stream before the text
        windows: list[Window] = []
        for index, chunk in enumerate(range(0, num_tokens + ahead - ctx + 1, ctx)):
            begin, bos = chunk - ahead, self.has_bos(index)
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
        check_targets(self.num_targets)

    def check(self, ctx: int) -> None:
        """Also where the window does not hold its scored tokens."""
        super().check(ctx)
        check_room(self.name, self.num_targets, ctx)

    def windows(self, num_tokens: int, ctx: int) -> list[Window]:
        """One window."""
        bos = self.has_bos(0)
        return [window(num_tokens - ctx + bos, num_tokens, num_tokens - self.num_targets, bos)]


@dataclass(frozen=True, kw_only=True)
class Targets(Protocol):
    """The L tokens that end at the document's end; of these the tokens that the document says count, or all.

    How many count is the document's: its answer, its target column (`harness.data.documents.Document.num_targets`).
    """

    name = "targets"
    source = "passkeys of Mohtashami & Jaggi 2023, arXiv:2305.16300; loglikelihood of lm-eval"
    promises = ("once",)
    of_targets = True

    def windows(self, num_tokens: int, ctx: int) -> list[Window]:
        """One window."""
        bos = self.has_bos(0)
        return [window(num_tokens - ctx + bos, num_tokens, 0, bos)]


PROTOCOLS: dict[str, type[Protocol]] = {
    protocol.name: protocol
    for protocol in (Sliding, SinglePass, Disjoint, Rolling, Last, SecondHalf, FixedTargets, OverlappingFull, Targets)
}
