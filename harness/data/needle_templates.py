"""The words of needles: facts, questions, keys, and the filler of the papers.

Two parts that share nothing: what evaluations ask, and what a search of rescale factors is judged by.
"""

from typing import Literal, NamedTuple

VERSION = 1  # raised when the same words would make other documents
Part = Literal["evaluation", "search"]

FILLER = " The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."


class Template(NamedTuple):
    """A fact with {key} and {number}, and a question for the number of {key}, which the number follows."""

    fact: str
    question: str


TEMPLATES: dict[Part, dict[str, Template]] = {
    "evaluation": {
        # Mohtashami & Jaggi 2023, arXiv:2305.16300, as in PI and YaRN, with a key to tell distractors apart
        "passkey": Template(
            "The pass key of the {key} is {number}. Remember it. {number} is the pass key of the {key}.",
            "What is the pass key of the {key}? The pass key of the {key} is",
        ),
        # RULER, arXiv:2404.06654
        "magic_number": Template(
            "One of the special magic numbers for {key} is: {number}.",
            "What is the special magic number for {key} mentioned in the provided text? "
            "The special magic number for {key} mentioned in the provided text is:",
        ),
        "register": Template(
            "In the register the {key} is entered under number {number}.",
            "Under which number is the {key} entered? In the register the {key} is entered under number",
        ),
    },
    "search": {
        "code": Template(
            "The secret code that opens the {key} reads {number}.",
            "Which secret code opens the {key}? The secret code that opens the {key} reads",
        ),
        "telephone": Template(
            "Whoever asks for the {key} has to dial {number}.",
            "What does one have to dial? Whoever asks for the {key} has to dial",
        ),
    },
}

KEYS: dict[Part, tuple[str, ...]] = {
    "evaluation": (
        "harbour", "castle", "library", "bridge", "orchard", "lighthouse", "station", "museum", "garden", "tower",
        "market", "theatre", "chapel", "factory", "stable", "windmill",
    ),
    "search": (
        "cellar", "school", "hospital", "palace", "forge", "prison", "quarry", "vineyard", "abbey", "barracks",
        "brewery", "cottage", "dairy", "ferry", "granary", "inn",
    ),
}  # fmt: skip


def identity() -> list[object]:
    """All of it, as JSON values: what it is hashed by."""
    return [VERSION, FILLER, TEMPLATES, KEYS]


def parity(part: Part) -> int:
    """Of the sum of a number's digits: evaluation and search have no number in common."""
    return 0 if part == "evaluation" else 1
