"""What an engine says of a window: a log-probability for every token, from a file of JSON lines.

A line is {"id": as in the prompts, "logprobs": [null, -2.5, ...], "top1": [null, true, ...]}: natural logarithms, one
number for every token of the prompt, null where the engine has none (the first has nothing before it); top1, whether
the token was the likeliest, may be left out.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from harness.data.scores import Scores
from harness.errors import UserError
from harness.external.prompts import Prompt
from harness.storage.files import check_regular

ROUNDING = 1e-3  # nats by which a logarithm of a probability may lie above 0
LOWEST = -float(np.finfo(np.float32).max)  # losses are kept in float32


class BadAnswer(UserError):
    """An answer that is not the log-probabilities of what was asked."""


class Answer(NamedTuple):
    """Log-probabilities (num_tokens,) in nats, and whether each token was the likeliest; None where not known."""

    logprobs: Sequence[float | None]
    top1: Sequence[bool | None] | None = None

    def line(self, name: str) -> str:
        """As JSON."""
        given: dict[str, Any] = {"id": name, "logprobs": list(self.logprobs)}
        return json.dumps(given if self.top1 is None else given | {"top1": list(self.top1)})


def read(file: Path) -> dict[str, Answer]:
    """The answers of a file by the names of their windows. Raises UserError with the line that is wrong."""
    found: dict[str, Answer] = {}
    for number, text in enumerate(_lines(file), 1):
        if not text.strip():
            continue
        try:
            name, answer = parsed(text)
        except BadAnswer as error:
            raise UserError(f"{str(file)!r}, line {number}: {error}") from error
        if name in found and found[name] != answer:
            raise UserError(f"{str(file)!r}, line {number}: the window {name} came before with other numbers.")
        found[name] = answer
    if not found:
        raise UserError(f"file: {str(file)!r} is empty.")
    return found


def _lines(file: Path) -> Iterator[str]:
    try:
        check_regular(file)
        with file.open(encoding="utf-8") as stream:
            yield from stream
    except UnicodeDecodeError as error:
        raise UserError(f"file: {str(file)!r} is not text in UTF-8.") from error
    except OSError as error:
        raise UserError(f"file: {str(file)!r} cannot be read: {error.strerror}.") from error


def parsed(text: str) -> tuple[str, Answer]:
    """One line. Raises BadAnswer."""
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:  # brackets deeper than Python's stack
        raise BadAnswer("it is no JSON.") from error
    if not isinstance(given, dict) or not isinstance(given.get("id"), str):
        raise BadAnswer('it must be an object with "id" and "logprobs".')
    logprobs, top1 = given.get("logprobs"), given.get("top1")
    if not isinstance(logprobs, list) or not all(v is None or type(v) in (int, float) for v in logprobs):
        raise BadAnswer('"logprobs" must be a list of numbers, null where there is none.')
    if top1 is not None and not (isinstance(top1, list) and all(v is None or type(v) is bool for v in top1)):
        raise BadAnswer('"top1" must be a list of true, false or null.')
    return given["id"], Answer(logprobs, top1)


def check(prompt: Prompt, answer: Answer) -> None:
    """Raise BadAnswer, naming document and window, for anything but a log-probability of every scored token."""
    first, length = prompt.job.score_from, len(prompt.ids)
    for what, given in (("log-probabilities", answer.logprobs), ("values of top1", answer.top1)):
        if given is not None and len(given) != length:
            raise BadAnswer(f"{prompt.place} has {length} tokens, and {len(given)} {what} were given.")
    for at, value in enumerate(answer.logprobs[first:], first):
        token = prompt.job.span.score_from + at - first
        if value is None:
            raise BadAnswer(f"no log-probability for token {token}, in {prompt.place}.")
        if type(value) not in (int, float) or not LOWEST <= value <= ROUNDING:  # NaN is not, either
            raise BadAnswer(f"{value!r} is no logarithm of a probability, for token {token}, in {prompt.place}.")


def scores(document: int, prompts: Sequence[Prompt], answers: Sequence[Answer]) -> Scores:
    """The losses of a document from the answers to its windows. Raises BadAnswer."""
    for prompt, answer in zip(prompts, answers, strict=True):
        check(prompt, answer)
    firsts = [prompt.job.score_from for prompt in prompts]
    nll = [-np.array(a.logprobs[first:], dtype=np.float64) for first, a in zip(firsts, answers, strict=True)]
    known = [(a.top1 or [None])[first:] for first, a in zip(firsts, answers, strict=True)]
    every = all(own and None not in own for own in known)
    return Scores(
        document,
        [prompt.job.span for prompt in prompts],
        [values.astype(np.float32) for values in nll],
        [np.array(own, dtype=np.bool_) for own in known] if every else None,
    )
