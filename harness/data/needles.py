"""Documents with a needle: a fact in a haystack, a question at the end, the answer.

A document of length tokens is  haystack[:p] fact haystack[p:] question answer,  with p = depth x haystack, moved to the
nearest end of a sentence; distractors lie in it likewise. One token of the haystack stands before everything, whose
place a BOS may take. Everything but depth and the number in the fact is the same in all documents of a repeat, so that
the two documents of one depth differ in nothing but that number.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from harness.data.documents import Document, DocumentSet
from harness.data.needle_spec import Asked, NeedleSpec
from harness.data.needle_templates import KEYS, TEMPLATES, Part, Template, parity
from harness.data.sources import DataSpec
from harness.data.tokens import tokens_of
from harness.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TRIES = 1000  # draws of a number
BETWEEN = "\n\n"  # documents of a haystack


class Piece(NamedTuple):
    """Tokens and the bytes of text that each covers, both (num_tokens,)."""

    ids: NDArray[np.int64]
    widths: NDArray[np.int64]

    @classmethod
    def of(cls, text: str, tokenizer: "PreTrainedTokenizerBase") -> "Piece":
        """A text by itself."""
        tokens = tokens_of(text, tokenizer)
        return cls(tokens.ids, np.diff(tokens.byte_ends))

    @classmethod
    def joined(cls, pieces: Sequence["Piece"]) -> "Piece":
        """One behind the other."""
        return cls(np.concatenate([p.ids for p in pieces]), np.concatenate([p.widths for p in pieces]))

    def at(self, places: NDArray[np.int64]) -> "Piece":
        """The tokens at these places."""
        return Piece(self.ids[places], self.widths[places])


class Text(NamedTuple):
    """All of the text that haystacks are cut from."""

    stream: Piece
    ends: NDArray[np.bool_]  # (num_tokens,): a sentence ends with it
    is_repeated: bool  # it goes on from its beginning: the papers' filler

    def haystack(self, length: int, where: float) -> tuple[Piece, NDArray[np.bool_]]:
        """`length` tokens and where sentences end, (length,), from a share `where` in [0, 1) of all beginnings on."""
        size = len(self.stream.ids)
        begin = int(where * (size if self.is_repeated else size - length + 1))
        places = np.arange(begin, begin + length) % size
        return self.stream.at(places), self.ends[places]


class Drawn(NamedTuple):
    """What is drawn for a repeat: the same at every length."""

    where: float  # its haystack
    right: Piece  # the fact
    wrong: Piece  # with another number
    distractors: list[tuple[float, Piece]]  # with their depths
    tail: Piece  # question and answer
    num_targets: int  # tokens of the answer


def planted(
    found: DocumentSet, data: DataSpec, tokenizer: "PreTrainedTokenizerBase", length: int, seed: int,
    part: Part = "evaluation",
) -> DocumentSet:  # fmt: skip
    """The documents of a needle grid, each of `length` tokens, in the text of the documents `found` of `data`.

    Their order: by repeat, depth, right before wrong. Raises UserError where the text or the length is too short.
    """
    spec = data.needles or NeedleSpec()
    text = _text(found, tokenizer, is_repeated=data.source == "filler")
    documents = [
        document
        for repeat in range(spec.repeats)
        for document in _of_repeat(found.name, text, spec, _drawn(spec, tokenizer, seed, repeat, part), length, repeat)
    ]
    selection = f"{spec.repeats} repeats at {len(spec.depths)} depths in {found.selection}"
    return DocumentSet(found.name, documents, found.fingerprint, selection)


def _text(found: DocumentSet, tokenizer: "PreTrainedTokenizerBase", *, is_repeated: bool) -> Text:
    between = Piece.of(BETWEEN, tokenizer)
    pieces = [Piece(d.ids, np.diff(d.byte_ends)) for d in found.documents]
    stream = Piece.joined([part for piece in pieces for part in (piece, between)][:-1])
    known, inverse = np.unique(stream.ids, return_inverse=True)
    words = tokenizer.batch_decode([[int(i)] for i in known])
    ends = np.array([word.rstrip().endswith((".", "!", "?")) or "\n" in word for word in words])
    return Text(stream, ends[inverse], is_repeated)


def _drawn(spec: NeedleSpec, tokenizer: "PreTrainedTokenizerBase", seed: int, repeat: int, part: Part) -> Drawn:
    rng = np.random.default_rng([seed, parity(part), repeat])
    where = float(rng.random())
    names = spec.templates if spec.templates is not None and part == "evaluation" else list(TEMPLATES[part])
    template = TEMPLATES[part][names[repeat % len(names)]]
    key, *others = (KEYS[part][i] for i in rng.permutation(len(KEYS[part]))[: 1 + spec.distractors])
    number, right, wrong = _pair(template, key, spec.digits, tokenizer, rng, part)
    distractors = []
    for other in others:
        own = _number(rng, spec.digits, part, but=number)
        distractors.append((float(rng.random()), _fact(template, other, own, tokenizer)))
    question = "\n" + template.question.format(key=key)
    tail = tokens_of(f"{question} {number}", tokenizer)
    return Drawn(where, right, wrong, distractors, Piece(tail.ids, np.diff(tail.byte_ends)), tail.behind(question))


def _number(rng: Generator, digits: int, part: Part, but: str = "") -> str:
    """A number of the part's parity, its first digit no zero, which has no digit in common with `but` at its place."""
    while True:
        number = str(rng.integers(10 ** (digits - 1), 10**digits))
        differs = all(a != b for a, b in zip(number, but, strict=False))
        if sum(map(int, number)) % 2 == parity(part) and differs:
            return number


def _fact(template: Template, key: str, number: str, tokenizer: "PreTrainedTokenizerBase") -> Piece:
    return Piece.of(" " + template.fact.format(key=key, number=number), tokenizer)


def _pair(
    template: Template, key: str, digits: int, tokenizer: "PreTrainedTokenizerBase", rng: Generator, part: Part
) -> tuple[str, Piece, Piece]:
    """A number, the fact with it, and with another that differs in every digit and is as many tokens long."""
    for _ in range(TRIES):
        number = _number(rng, digits, part)
        other = _number(rng, digits, part, but=number)
        right, wrong = (_fact(template, key, one, tokenizer) for one in (number, other))
        if len(right.ids) == len(wrong.ids):
            return number, right, wrong
    raise UserError(f"needles: the tokenizer has no two numbers of {digits} digits and as many tokens; take fewer.")


def _of_repeat(name: str, text: Text, spec: NeedleSpec, drawn: Drawn, length: int, repeat: int) -> Iterator[Document]:
    own = [len(drawn.right.ids), len(drawn.tail.ids), *(len(fact.ids) for _, fact in drawn.distractors)]
    size = length - sum(own)
    if size < 2:
        raise UserError(f"data={name}: ctx must be at least {sum(own) + 2} tokens to hold the needle, got {length}.")
    if size > len(text.stream.ids) and not text.is_repeated:
        raise UserError(
            f"data={name}: a haystack of {size} tokens (ctx={length}) is wanted, and the text has "
            f"{len(text.stream.ids)}; take more or longer documents, or data=passkey."
        )
    haystack, ends = text.haystack(size, drawn.where)
    others = [(_place(depth, ends), fact) for depth, fact in drawn.distractors]
    for depth in spec.depths:
        for right in (True, False):
            facts = [(_place(depth, ends), drawn.right if right else drawn.wrong), *others]
            whole = _with_facts(haystack, facts, drawn.tail)
            byte_ends = np.concatenate([[0], np.cumsum(whole.widths)])
            title = f"repeat {repeat}, depth {depth:g}, {'right' if right else 'wrong'}"
            asked = Asked(float(depth), repeat, right)
            yield Document(title, whole.ids, byte_ends, None, drawn.num_targets, asked)


def _place(depth: float, ends: NDArray[np.bool_]) -> int:
    """Tokens of the haystack before a fact at this depth: at the nearest end of a sentence inside of it, if any.

    ends: (tokens,), whether a sentence ends with a token.
    """
    wanted = max(1, round(depth * len(ends)))
    between = np.flatnonzero(ends[:-1]) + 1
    if depth in (0, 1) or not len(between):
        return wanted
    return int(between[np.abs(between - wanted).argmin()])


def _with_facts(haystack: Piece, facts: Sequence[tuple[int, Piece]], tail: Piece) -> Piece:
    """Facts inserted at their places, those of one place in their order."""
    pieces, begin = [], 0
    for place, fact in sorted(facts, key=lambda fact: fact[0]):
        pieces += [haystack.at(np.arange(begin, place)), fact]
        begin = place
    return Piece.joined([*pieces, haystack.at(np.arange(begin, len(haystack.ids))), tail])
