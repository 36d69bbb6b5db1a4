"""README's method of one's own, followed to the letter in a copy of the package; and each step of it forgotten."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.sweeps import Place

ROOT = Path(__file__).parents[2]
COPIED = (
    "conf",
    "harness",
    "tests/methods",
    "tests/reference",
    "tests/__init__.py",
    "tests/attention_maps.py",
    "pyproject.toml",
)
IGNORED = shutil.ignore_patterns("__pycache__", "*.safetensors", Path(__file__).name)
CHECKS = {  # what `make check` runs, here on the new files and on what they touch
    "ruff check": ["ruff", "check", "harness/methods", "tests/reference"],
    "ruff format": ["ruff", "format", "--check", "harness/methods", "tests/reference"],
    "mypy": ["mypy", f"--cache-dir={ROOT / '.mypy_cache'}", "harness/methods/__init__.py"],
}


class Step(NamedTuple):
    """A fenced block of README and the file that it belongs to; no file: commands."""

    file: str
    language: str
    text: str

    def changes(self) -> list[tuple[str, str]]:
        """What is replaced by what; nothing, by what stands at the end of the file."""
        if self.language != "diff":
            return [("", self.text)]
        found = []
        for hunk in self.text.strip("\n").split("\n\n"):
            lines = hunk.splitlines()
            before = "".join(line[1:] + "\n" for line in lines if line[0] == " ")
            found.append((before, "".join(line[1:] + "\n" for line in lines)))
        return found


def steps() -> list[Step]:
    section = (ROOT / "README.md").read_text().split("## A method of your own")[1].split("\n## ")[0]
    found = re.findall(r"^(?:`([^`\n]+)`,)?([^\n`][^\n]*):\n\n```(\w+)\n(.*?)^```$", section, re.M | re.S)
    assert len(found) == section.count("```") // 2, "a block of README follows no line that ends with a colon"
    return [Step(file, kind, "\n\n" * ("after two empty lines" in where) + text) for file, where, kind, text in found]


class Copy:
    """The package without what is large, its own process's import path in front of the installed one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in COPIED:
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, place, ignore=IGNORED)
            else:
                shutil.copy(ROOT / name, place)
        (folder / "harness" / "conf").symlink_to(folder / "conf")  # where an installation has it
        for step in steps()[:-1]:
            self._undo(step)  # whoever tries README's method in this checkout has it already

    def _undo(self, step: Step) -> None:
        file = self.folder / step.file
        if not file.exists():
            return
        for before, after in step.changes():
            file.write_text(file.read_text().replace(after, before))
        if not file.read_text():
            file.unlink()

    def follow(self, step: Step) -> None:
        """Write what a step says."""
        file = self.folder / step.file
        held = file.read_text() if file.exists() else ""
        for before, after in step.changes():
            assert not before or held.count(before) == 1, f"{step.file} does not hold once:\n{before}"
            held = held.replace(before, after) if before else held + after
        file.write_text(held)

    def start(self, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        """A module of Python in the copy."""
        return subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def test_readme_to_the_letter(tmp_path: Path) -> None:
    *files, commands = steps()
    copy, place = Copy(tmp_path / "copy"), Place(tmp_path / "place")
    for step in files:
        copy.follow(step)
    check, test, run = (line.split()[1:] for line in commands.text.splitlines())
    assert (check, test[:2], run[:2]) == (["check"], ["-m", "pytest"], ["-m", "harness"])
    started = {name: copy.start(*arguments) for name, arguments in CHECKS.items()}
    started["pytest"] = copy.start(*test[1:], "-p", "no:cacheprovider")
    tiny = [*place.overrides, "ctx=64"]  # instead of the reference model and its documents
    started["run"] = copy.start("harness", *run[2:], *tiny, HARNESS_CACHE=str(tmp_path / "cache"))
    printed = {name: process.communicate(timeout=240)[0] for name, process in started.items()}
    for name, process in started.items():
        assert process.returncode == 0, f"{name}: {printed[name]}"
    assert "halved" in printed["run"]
    assert any("halved" in file and file.endswith(".windows.parquet") for file in place.files()), place.files()


FORGOTTEN = {
    "harness/methods/__init__.py": "in harness/methods/__init__.py import it from harness.methods.frequency.halved and "
    "write Halved into METHODS",
    "conf/method/halved.yaml": "conf/method/halved.yaml is missing: write it, with the line `name: halved`",
    "tests/reference/frequencies.py": "In tests/reference/frequencies.py write its formula",
    "@dataclass(frozen=True, kw_only=True)\n": "in harness/methods/frequency/halved.py write above it @dataclass",
    '    promises: ClassVar[tuple[Promise, ...]] = ("positive",)': "harness/methods/frequency/halved.py: promises",
    '    changes: ClassVar[str] = "every frequency, halved"\n': "in harness/methods/frequency/halved.py write changes",
}


@pytest.mark.parametrize("forgotten", FORGOTTEN, ids=["METHODS", "YAML", "formula", "dataclass", "promises", "facts"])
def test_a_forgotten_step_says_what_to_write_and_where(tmp_path: Path, forgotten: str) -> None:
    copy = Copy(tmp_path)
    *files, _ = steps()
    assert any(forgotten == step.file or forgotten in step.text for step in files)
    for step in files:
        if step.file != forgotten:
            copy.follow(step._replace(text=re.sub(re.escape(forgotten) + r"(  #.*\n)?", "", step.text)))
    process = copy.start("pytest", "-p", "no:cacheprovider", "tests/methods", "-k", "halved")
    printed = process.communicate(timeout=120)[0]
    assert process.returncode == 1, printed
    assert FORGOTTEN[forgotten] in " ".join(re.sub(r"^E +", "", printed, flags=re.M).split()), printed


def test_the_command_misses_a_configuration(tmp_path: Path) -> None:
    copy = Copy(tmp_path)
    for step in steps()[:-1]:
        if step.language != "yaml":
            copy.follow(step)
    printed = copy.start("harness", "method=halved").communicate(timeout=120)[0]
    assert printed == f"error: {FORGOTTEN['conf/method/halved.yaml']}\n"
