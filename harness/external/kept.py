"""Answers of an unfinished cell: a line each, on disk as soon as it is there, so that a killed fetch goes on."""

import logging
import os
from pathlib import Path

from harness.external.answers import Answer, BadAnswer, check, parsed
from harness.external.prompts import Prompt
from harness.storage.files import storage, write_text

log = logging.getLogger(__name__)


class Kept:
    """The answers that are there. A line that was cut off, or does not fit its window, is asked for again."""

    def __init__(self, file: Path, prompts: list[Prompt]) -> None:
        """Raises StorageError."""
        self.file = file
        self.answers: dict[str, Answer] = {}
        windows = {prompt.id: prompt for prompt in prompts}
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else []
        for text in lines:
            try:
                name, answer = parsed(text)
                check(windows[name], answer)
            except (BadAnswer, KeyError):
                log.warning("%s holds a line that is no answer; its window is asked for again", file)
            else:
                self.answers[name] = answer
        if len(self.answers) < len(lines):
            write_text(file, "".join(answer.line(name) + "\n" for name, answer in self.answers.items()))

    def add(self, name: str, answer: Answer) -> None:
        """Keep one more. Raises StorageError."""
        with storage(self.file.parent):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a", encoding="utf-8") as stream:
                stream.write(answer.line(name) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
        self.answers[name] = answer
