"""Long texts in pieces, where the tokens of the pieces are those of the whole: memory follows the piece, not the text.

A text is cut before a single space between two lower-case ASCII letters: `a| b`. No token reaches over that place, and
neither side looks beyond it, where the tokenizer

- normalizes by Unicode's forms alone (a letter and a space before a letter compose with nothing),
- splits text by a pattern that always ends a part there, and matches from there on by what follows alone (the patterns
  below have no look-behind and no anchors; a space begins a part, or stands alone), and
- knows no added token that could lie across, or strips what is around it.

Its model then sees the same parts one by one. At every cut the tokens around it are compared as well.
"""

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from harness.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PIECE = 1 << 18  # characters
LIMIT = 1 << 24  # characters that are tokenized at once where a text cannot be cut: about 4 GB of memory
AROUND = 1 << 10  # characters on either side of a cut that are tokenized together to compare
Step = Mapping[str, Any]  # of a pre-tokenizer, as `tokenizers` writes it down

_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_ENGLISH = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
PATTERNS = {
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",  # GPT-2
    rf"{_ENGLISH}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}",  # Llama 3
    rf"{_ENGLISH}|{_WORDS}|\p{{N}}|{_REST}",  # Qwen 2
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_ENGLISH}?|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_ENGLISH}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",  # o200k: gpt-oss
}
OF_DIGITS = {r"\p{N}", r"\p{N}{1,3}", r"[0-9]", r"[0-9][0-9][0-9]"}
FORMS = ("NFC", "NFD", "NFKC", "NFKD")
AT_SPACES = ("Whitespace", "WhitespaceSplit", "BertPreTokenizer")  # every part of a text ends at a space


def pieces(parts: Iterable[str]) -> Iterator[str]:
    """A text that comes in parts, in pieces of about PIECE characters; longer where there is no place to cut."""
    kept, searched = "", 0
    for part in itertools.chain.from_iterable(map(_sliced, parts)):
        kept += part
        while len(kept) > PIECE and (place := _last_cut(kept, searched)):
            yield kept[:place]
            kept, searched = kept[place:], 0
        if len(kept) > LIMIT:
            raise too_long("it has no single space between two letters from a to z to cut it at")
        searched = len(kept)
    if kept:
        yield kept


def _sliced(text: str) -> Iterator[str]:
    """A text in parts of at most PIECE characters."""
    return (text[begin : begin + PIECE] for begin in range(0, len(text), PIECE))


def too_long(reason: str) -> UserError:
    """The error for a text that fits no memory in one piece, and cannot be cut."""
    return UserError(
        f"a text of more than {LIMIT} characters must be tokenized in pieces, and {reason}; "
        "give it as several documents."
    )


def _last_cut(text: str, begin: int) -> int:
    """The last place behind `begin` before a single space between letters; 0: there is none."""
    end = len(text) - 1
    while (place := text.rfind(" ", max(begin - 2, 1), end)) > 0:
        if "a" <= text[place - 1] <= "z" and "a" <= text[place + 1] <= "z":
            return place
        end = place
    return 0


def same_around(left: str, right: str, tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether what lies around a cut has the same tokens together as apart."""
    before, after = left[-AROUND:], right[:AROUND]
    together, first, second = (_ids(text, tokenizer) for text in (before + after, before, after))
    return together == first + second


def _ids(text: str, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def may_be_cut(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether the tokens of pieces are surely those of the whole under this tokenizer."""
    return _may_be_cut(tokenizer.backend_tokenizer.to_str())


@lru_cache(maxsize=4)
def _may_be_cut(backend: str) -> bool:
    state = json.loads(backend)
    model = state["model"]
    is_plain = not (state.get("truncation") or state.get("padding") or model.get("dropout"))
    return (
        is_plain
        and _by_forms(state.get("normalizer"))
        and _ends_parts(state.get("pre_tokenizer"))
        and not any(_reaches_over(token) for token in state.get("added_tokens", ()))
    )


def _by_forms(normalizer: Step | None) -> bool:
    if normalizer is None:
        return True
    steps = normalizer.get("normalizers", [normalizer])
    return all(step["type"] in FORMS for step in steps)


def _ends_parts(pre_tokenizer: Step | None) -> bool:
    """Whether a part surely ends at every cut: what comes before that step splits off digits, if anything."""
    if pre_tokenizer is None:
        return False
    for step in pre_tokenizer.get("pretokenizers", [pre_tokenizer]):
        if step["type"] == "ByteLevel" and step["add_prefix_space"]:
            return False
        if _ends_at_cut(step):
            return not any(s.get("add_prefix_space") for s in pre_tokenizer.get("pretokenizers", ()))
        if not (step["type"] == "Digits" or _pattern(step) in OF_DIGITS):
            return False
    return False


def _ends_at_cut(step: Step) -> bool:
    by_pattern = step["type"] == "Split" and step["behavior"] in ("Isolated", "Removed")
    return (
        step["type"] in AT_SPACES
        or (step["type"] == "ByteLevel" and step["use_regex"])
        or (by_pattern and _pattern(step) in PATTERNS)
    )


def _pattern(step: Step) -> str | None:
    return step["pattern"].get("Regex") if step["type"] == "Split" else None


def _reaches_over(token: Step) -> bool:
    """Whether an added token could lie across a cut, or take what stands beside it."""
    content = token["content"]
    strips = (token["lstrip"] and content[:1].islower()) or (token["rstrip"] and content[-1:].islower())
    return bool(re.search("[a-z] ", content)) or content.startswith(" ") or strips
