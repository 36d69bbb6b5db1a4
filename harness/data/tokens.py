"""A text as tokens, with what they cover of it: bytes, words, and the target behind a prompt."""

import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

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


def tokens_of(text: str, tokenizer: "PreTrainedTokenizerBase") -> Tokens:
    """The tokens of a text under a fast tokenizer."""
    encoded = tokenizer(
        text, add_special_tokens=False, return_offsets_mapping=True, verbose=False, return_attention_mask=False
    )
    ids = np.asarray(encoded["input_ids"], dtype=np.int64)
    characters = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    widths = 1 + (characters >= 0x80).astype(np.int64) + (characters >= 0x800) + (characters >= 0x10000)
    bytes_before = np.concatenate([[0], np.cumsum(widths)])
    ends = np.asarray(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2)[:, 1]
    # Tokens that share a character end at the same place; whitespace that no token covers goes to the next one.
    byte_ends = np.concatenate([[0], np.maximum.accumulate(bytes_before[ends])]) if len(ids) else np.zeros(1)
    if len(ids):
        byte_ends[-1] = bytes_before[-1]
    characters_before = np.searchsorted(bytes_before, byte_ends)
    return Tokens(ids, byte_ends.astype(np.int64), _words_before(text, characters_before))


def _words_before(text: str, ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Words in the first `ends` characters of a text, (num_tokens + 1,): of the first n, what lm-eval would count.

    That is the number of parts between runs of white space, an empty one at an end counted as well. None before the
    first token.
    """
    runs = np.array([run.start() for run in re.finditer(r"\s+", text)], dtype=np.int64)
    words = 1 + np.searchsorted(runs, ends, side="left")
    words[0] = 0
    return words.astype(np.int64)
