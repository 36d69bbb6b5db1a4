"""What an engine is given: commands and settings, how near they are to what was measured, and what to know."""

import json
import shlex
from typing import Any, Literal, NamedTuple

from harness.deployment.express import Expression
from harness.deployment.target import Target
from harness.deployment.words import described

Engine = Literal["transformers", "vllm", "sglang", "llama_cpp"]
Match = Literal["exact", "at this length", "nearest", "no"]


class Spelling(NamedTuple):
    """One method in the words of one engine."""

    engine: Engine
    match: Match  # with the method measured; "at this length": fixed settings, shorter prompts get them as well
    lines: tuple[str, ...]  # to type or to write into a file
    notes: tuple[str, ...] = ()


def match_of(expression: Expression, *, switches: bool = False) -> Match:
    """How near fixed settings are to the method; `switches`: the engine follows the length as the method does."""
    if expression.lost:
        return "nearest"
    return "at this length" if expression.depends_on_length and not switches else "exact"


def common_notes(expression: Expression, target: Target, *, switches: bool = False) -> tuple[str, ...]:
    """What holds of every engine: what is lost, and what fixed settings mean for short prompts."""
    notes = []
    if expression.lost:
        near = "" if expression.nearest is None else described(expression.nearest)
        notes.append(f"not expressible: {', '.join(expression.lost)}. These are the settings of the nearest: {near}.")
    if expression.depends_on_length and not switches:
        trained = target.geometry.original_max_position_embeddings
        notes.append(
            f"the method follows the length of the window; here it is fixed at {target.ctx} tokens: prompts within the "
            f"{trained} trained tokens are scaled as well and lose what scaling costs there."
        )
    return tuple(notes)


def as_json(value: Any) -> str:
    """JSON on one line."""
    return json.dumps(value, separators=(", ", ": "))


def command(*words: str) -> str:
    """A line for the shell."""
    return " ".join(shlex.quote(word) for word in words)
