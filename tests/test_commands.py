"""Every command of README and docs: run, or composed as far as it goes without what is not here, with the reason."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from harness import cli
from harness.errors import UserError

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BEGINS = re.compile(r"^ *(?:python -m harness|python benchmarks/|torchrun |make |\.venv/bin/python )")

# Commands that are not run here, as they stand or in part, by what they need.
NEEDS = {
    "a checkpoint that is not here": r"model=(hf|llama|qwen|mistral)|Qwen/|config=PATH|runs/|model\.device_map",
    "a package of weights": r"smollm2",
    "books that are not here": r"train\.corpus=|--corpus|corpus=",
    "a GPU, or several": r"torchrun|cluster=gpus|^python benchmarks/",
    "SLURM": r"cluster=slurm|harness\.collect",
    "a server or its answers": r"harness\.external",
    "results of one's own": r"results/before|run/|compare before after|compare BEFORE AFTER|harness\.report results"
    r"|results_dir=results ctx",
    "minutes or hours": r"harness\.search|harness\.train|^make |experiment=|-m pytest",
    "the method that README adds": r"method=halved",
    "words in place of values": r"\.\.\.",
}


class Command(NamedTuple):
    page: str
    text: str  # on one line, without its remark

    def __str__(self) -> str:
        return f"{self.page}: {self.text}"


def commands() -> list[Command]:
    found = {}
    for page in PAGES:
        lines = iter(page.read_text().splitlines())
        for line in lines:
            if not BEGINS.match(line):
                continue
            text = line.strip()
            while text.endswith("\\"):
                text = text[:-1].rstrip() + " " + next(lines).strip()
            text = re.split(r"\s{2,}#|\s+#\s", text)[0].strip()
            found[text] = Command(page.name, text)
    return list(found.values())


def needs(command: Command) -> list[str]:
    return [reason for reason, pattern in NEEDS.items() if re.search(pattern, command.text)]


def sweeps() -> list[Command]:
    """`python -m harness`, cells and sweeps, whose words are all values."""
    cells = [
        c for c in commands() if re.match(r"(torchrun --nproc-per-node=\d+ -m harness|python -m harness) ", c.text)
    ]
    return [c for c in cells if "..." not in c.text and "--help" not in c.text and "--cfg" not in c.text]


def plots() -> list[Command]:
    return [c for c in commands() if "harness.plot" in c.text and "docs/data" in c.text]


def test_commands_are_found() -> None:
    assert len(commands()) > 50
    assert len(sweeps()) > 20


@pytest.mark.parametrize("command", sweeps(), ids=str)
def test_cells_and_sweeps_compose(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every key and value is known and every cell is checked, as before a model is loaded."""
    from harness.runs import sweep

    words = shlex.split(command.text.partition("-m harness")[2])
    composed: list[int] = []
    monkeypatch.setattr(sweep, "main", lambda configs, **_: composed.append(len(configs)))
    monkeypatch.chdir(tmp_path)
    cli.run_sweep([word for word in words if word != "-m"])
    assert composed
    assert composed[0] >= 1


@pytest.mark.slow
@pytest.mark.parametrize("command", plots(), ids=str)
def test_figures_of_committed_rows_are_drawn(command: Command, tmp_path: Path) -> None:
    words = shlex.split(command.text)[1:]
    done = subprocess.run([sys.executable, *words, f"plots_dir={tmp_path}"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir())


@pytest.mark.parametrize("command", commands(), ids=str)
def test_a_command_is_run_or_says_what_it_needs(command: Command) -> None:
    light = re.match(r"python -m harness(\.theory model=reference|\.export method=|\.plot| --help)", command.text)
    assert needs(command) or command in sweeps() or light


@pytest.mark.parametrize("text", ["python -m harness.theory model=reference ctx=8192", "python -m harness --help",
                                  "python -m harness.export method=yarn method.factor=4"])  # fmt: skip
def test_light_commands_of_the_readme_run_as_typed(text: str, tmp_path: Path) -> None:
    assert text in {c.text for c in commands()}
    done = subprocess.run([sys.executable, *shlex.split(text)[1:]], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 5


def test_a_mistyped_command_would_be_seen() -> None:
    with pytest.raises(UserError, match="Did you mean"):
        cli.run_sweep(["method=yarn", "method.factr=2"])
