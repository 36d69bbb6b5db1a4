"""What all dialects have in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from harness.cells.prepare import Prepared
from harness.external.answers import Answer, BadAnswer
from harness.external.prompts import Prompt

Post = Callable[[str, dict[str, Any]], Any]  # (path, body) -> the answer, JSON


class Dialect(ABC):
    """One engine's way of being asked. Each request generates one token, or none, that is thrown away."""

    source: ClassVar[str]  # version and place in which it was looked up

    def __init__(self, prepared: Prepared, served: str | None) -> None:
        """`served`: the model's name at the server, if it is known."""
        self.served = {} if served is None else {"model": served}

    def requests(self, prompt: Prompt) -> int:
        """How many requests a window takes."""
        return 1

    @abstractmethod
    def ask(self, post: Post, prompt: Prompt) -> Answer:
        """The log-probabilities of a window. Raises BadAnswer."""


@contextmanager
def understood(prompt: Prompt) -> Iterator[None]:
    """Report an answer of another form as a BadAnswer."""
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise BadAnswer(f"the server's answer is not of this dialect ({what}), for {prompt.place}.") from error


def check_ids(prompt: Prompt, given: list[int]) -> None:
    """Raise BadAnswer where an engine answers for other tokens than it was asked for."""
    wanted = prompt.ids.tolist()
    if given == wanted:
        return
    if len(given) != len(wanted):
        raise BadAnswer(f"{prompt.place} has {len(wanted)} tokens, and the server answered for {len(given)}.")
    at = next(i for i, (a, b) in enumerate(zip(given, wanted, strict=True)) if a != b)
    raise BadAnswer(f"the server's token {at} is {given[at]}, not {wanted[at]}, in {prompt.place}.")
