"""A text as tokens, with what they cover of it: bytes, words, and the target behind a prompt."""

import io
import itertools
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.data.pieces import LIMIT, may_be_cut, pieces, same_around, too_long

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Tokens(NamedTuple):
    """The tokens of a text, without special ones."""

    ids: NDArray[np.int64]  # (num_tokens,)
    byte_ends: NDArray[np.int64]  # (num_tokens + 1,): UTF-8 bytes of the first n tokens
    word_ends: NDArray[np.int64]  # (num_tokens + 1,): words begun in the first n tokens

    def behind(self, prompt: str) -> int:
        """How many of the last tokens hold something of what stands behind the prompt that the text begins with."""
        return int((self.byte_ends[1:] > len(prompt.encode())).sum())


class _Piece(NamedTuple):
    """The tokens of a part of a text."""

    ids: NDArray[np.int64]  # (num_tokens,)
    ends: NDArray[np.int64]  # (num_tokens,): UTF-8 bytes of the piece up to the end of each
    runs: NDArray[np.int64]  # (runs,): bytes of the piece before each run of white space
    num_bytes: int


def tokens_of(text: str, tokenizer: "PreTrainedTokenizerBase") -> Tokens:
    """The tokens of a text under a fast tokenizer."""
    return _joined([_piece(text, tokenizer)], is_whole=True)


def tokens_of_long(parts: Iterable[str], tokenizer: "PreTrainedTokenizerBase", enough: int | None = None) -> Tokens:
    """The tokens of a text that comes in parts: all, or at least the first `enough` and one more, where there are more.

    Those of `tokens_of` the whole, whatever its parts. A long text is tokenized in pieces; raises UserError where that
    may give other tokens under this tokenizer, and the text is too long for one piece.
    """
    found = pieces(parts)
    first, second = next(found, ""), next(found, None)
    if second is not None and not may_be_cut(tokenizer):
        return tokens_of(_whole(itertools.chain([first, second], found)), tokenizer)
    made: list[_Piece] = []
    count, left = 0, ""
    for text in itertools.chain([first], () if second is None else [second], found):
        assert not left or same_around(left, text, tokenizer), "this tokenizer looks beyond a space between letters"
        made.append(_piece(text, tokenizer))
        count, left = count + len(made[-1].ids), text
        if enough is not None and count > enough:
            return _joined(made, is_whole=False)
    return _joined(made, is_whole=True)


def _whole(parts: Iterable[str]) -> str:
    """A text from its parts. Raises UserError where it is too long to be tokenized at once."""
    text = io.StringIO()
    for part in parts:
        if text.tell() + len(part) > LIMIT:
            raise too_long("the tokenizer may join what lies on both sides of any place where it could be cut")
        text.write(part)
    return text.getvalue()


def _piece(text: str, tokenizer: "PreTrainedTokenizerBase") -> _Piece:
    encoded = tokenizer(
        text, add_special_tokens=False, return_offsets_mapping=True, verbose=False, return_attention_mask=False
    )
    ids = np.asarray(encoded["input_ids"], dtype=np.int64)
    characters = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    widths = 1 + (characters >= 0x80).astype(np.int64) + (characters >= 0x800) + (characters >= 0x10000)
    bytes_before = np.concatenate([[0], np.cumsum(widths)])
    ends = np.asarray(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2)[:, 1]
    runs = np.array([run.start() for run in re.finditer(r"\s+", text)], dtype=np.int64)
    return _Piece(ids, bytes_before[ends], bytes_before[runs], int(bytes_before[-1]))


def _joined(made: Sequence[_Piece], *, is_whole: bool) -> Tokens:
    """The tokens of pieces that follow each other; `is_whole`: nothing follows the last."""
    begins = np.cumsum([0, *(piece.num_bytes for piece in made)])
    ids = np.concatenate([piece.ids for piece in made])
    # Tokens that share a character end at the same place; whitespace that no token covers goes to the next one.
    ends = np.concatenate([[0], *(piece.ends + begin for piece, begin in zip(made, begins, strict=False))])
    byte_ends = np.maximum.accumulate(ends).astype(np.int64)
    if is_whole and len(ids):
        byte_ends[-1] = begins[-1]
    runs = np.concatenate([piece.runs + begin for piece, begin in zip(made, begins, strict=False)])
    return Tokens(ids, byte_ends, _words_before(runs, byte_ends))


def _words_before(runs: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Words in the first `ends` bytes of a text, (num_tokens + 1,): of the first n, what lm-eval would count.

    That is the number of parts between runs of white space, an empty one at an end counted as well. None before the
    first token. `runs`: bytes before each run.
    """
    words = 1 + np.searchsorted(runs, ends, side="left")
    words[0] = 0
    return words.astype(np.int64)
