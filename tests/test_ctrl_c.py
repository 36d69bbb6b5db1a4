"""Ctrl-C as a terminal sends it, at moments all over a command: exit code 130, one line, nothing half written."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from harness.results.selection import LAST
from tests.longrope_search.test_run import SearchPlace
from tests.sweeps import Place
from tests.training.test_train import BOOKS

ENDED = (128 + signal.SIGINT, -signal.SIGINT)  # in words; or at once, while Python still imports
MOMENTS = [0.1, 0.2, 0.35, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97]  # shares of the whole command
NOISE = ("INFO:", "WARNING:", "\r")


def check(folder: Path, code: int, stderr: str) -> None:
    """What is left after an interrupt: one line, and whole files."""
    assert code in ENDED, stderr
    said = [line.rpartition("\r")[2] for line in stderr.splitlines() if line.strip() and not line.startswith(NOISE)]
    said = [line for line in said if not line.rstrip().endswith("/s]")]  # bars of progress
    assert [line.startswith("interrupted") for line in said] == ([True] if code > 0 else []), said
    assert "Exception ignored" not in stderr
    for file in folder.rglob("*"):
        if file.is_file():
            _check_whole(file)


def _check_whole(file: Path) -> None:
    if file.name.startswith("."):
        assert file.name in (LAST, ".gitignore") or "cache" in file.parts or "hf" in file.parts, file
    elif file.suffix == ".parquet":
        assert len(pd.read_parquet(file))
    elif file.suffix == ".json":
        json.loads(file.read_text())
    elif file.suffix == ".svg":
        assert file.read_text().rstrip().endswith("</svg>")
    elif file.suffix == ".png":
        assert file.read_bytes().endswith(b"IEND\xaeB`\x82")
    elif file.suffix == ".html":
        assert file.read_text().rstrip().endswith("</html>")


def test_a_sweep_that_computes(place: Place) -> None:
    process = place.start("method=none,linear,yarn", "ctx=16,32,64")
    while process.is_alive() and not list(place.results.rglob("*.windows.parquet")):
        time.sleep(0.001)
    process.signal(signal.SIGINT)
    ended = process.end()
    check(place.results, ended.returncode, ended.stderr)
    assert "finished cells are kept" in ended.stderr
    assert 0 < len(list(place.results.rglob("*.windows.parquet"))) < 9
    assert place.start("method=none,linear,yarn", "ctx=16,32,64").end().returncode == 0


def test_a_search_that_evaluates(tmp_path: Path) -> None:
    place = SearchPlace(tmp_path)
    process = place.start("ctx=64")
    state = tmp_path / "search" / "ctx64" / "state.json"
    while process.is_alive() and not state.exists():
        time.sleep(0.001)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    process.join()
    check(tmp_path / "search", process.exitcode or 0, "interrupted\n")
    assert not (tmp_path / "search" / "factors.json").exists()


def _commands(place: SearchPlace) -> dict[str, list[str]]:
    """Every command that takes time, by name."""
    (place.folder / "books.txt").write_text("".join(f"{text}\0\n" for text in BOOKS.values()))
    (place.folder / "titles.json").write_text(json.dumps(list(BOOKS)))
    sizes = {"vocab_size": 280, "hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 32}
    small = {"ctx": 16, "batch_size": 4, "steps": 8, "warmup_steps": 2, "logging_steps": 1, "save_steps": 2}
    given = {"eval_steps": 4, "eval_lengths": "[16]", "held_out": "[kept.txt]", "left_out": "null", "device": "cpu"}
    train = [f"train.{key}={value}" for key, value in (small | given).items() if key != "left_out"]
    train += [f"train.model.{key}={value}" for key, value in sizes.items()] + ["train.model.num_attention_heads=2"]
    paths = [f"train.corpus={place.folder / 'books.txt'}", f"train.titles={place.folder / 'titles.json'}"]
    sweep = Place.command(place, "method=none,linear,yarn", "ctx=16,32,64")[2:]
    made = str(place.folder / "made")
    return {
        "sweep": sweep,
        "search": ["harness.search", *place.command("ctx=64")[3:]],
        "train": ["harness.train", *paths, f"train.output_dir={place.folder / 'run'}", "~train.left_out", *train],
        "plot": ["harness.plot", f"results_dir={made}", "figure=all"],
        "report": ["harness.report", made],
        "compare": ["harness.compare", made, made, "--plots-dir", "plots"],
        "theory": ["harness.theory", "model=reference", "ctx=2048"],
    }


def run(place: SearchPlace, words: list[str], after: float | None) -> tuple[int, str, float]:
    """A command in a shell's process, interrupted after so many seconds: its exit code, stderr, and seconds."""
    for name in ("results", "search", "run", "plots"):
        shutil.rmtree(place.folder / name, ignore_errors=True)
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", *words], cwd=place.folder, env=place.environment, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    if after is not None:
        time.sleep(after)
        process.send_signal(signal.SIGINT)
    stderr = process.communicate(timeout=240)[1]
    return process.returncode, stderr, time.monotonic() - begun


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sweep", "search", "train", "plot", "report", "compare", "theory"])
def test_a_command_at_any_moment(name: str, tmp_path: Path) -> None:
    place = SearchPlace(tmp_path)
    words = _commands(place)
    if name in ("plot", "report", "compare"):
        assert run(place, words["sweep"], None)[0] == 0
        (tmp_path / "results").rename(tmp_path / "made")
    code, stderr, seconds = run(place, words[name], None)
    assert code == 0, stderr
    ends = []
    for moment in MOMENTS:
        code, stderr, _ = run(place, words[name], moment * seconds)
        ends.append(code)
        if code != 0:  # it may have been faster this time
            check(tmp_path, code, stderr)
    assert sum(code != 0 for code in ends) >= 5, ends
    assert run(place, words[name], None)[0] == 0
