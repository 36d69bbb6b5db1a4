"""Every key of every command with values that nobody means: it works, or one line says what is wrong.

What a command would do with a configuration that passes its checks is left out, where that is work: cells, a search,
training, figures. The slow test takes every key and value, the other one a sample; both take what Hydra composes.
"""

import contextlib
import io
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from harness import cli, collect, compare, export, plot, report, search, theory, train
from harness.config import schema
from harness.config.checks import plain
from harness.errors import UserError
from harness.external import settings
from harness.figures import files
from harness.longrope_search import run as searching
from harness.training import run as training
from tests.statistics.token_cells import cell, write

HOSTILE: list[Any] = [
    None, "", " ", "x", "null", "a/b", "~nobody/x", "a\nb", "\0", "\ud800", "${x", "1e400", True, -1, 0, 1, 2, 0.5,
    10**30,
    float("nan"), float("inf"), float("-inf"), [], [None], [1, "x"], [[1]], ["x"], [-1], [{}], {}, {"a": 1}, {1: 2},
    {"name": None}, {"name": "x"}, "x" * 5000,
]  # fmt: skip
SEED, SAMPLE = 0, 200
KEPT = {"results_dir", "output_dir", "plots_dir"}  # folders that a test must not leave to chance


class Command(NamedTuple):
    """A command by its configuration, and what it does with one up to its work."""

    config: str
    choices: tuple[str, ...]  # overrides
    task: Callable[[DictConfig], object]

    def __str__(self) -> str:
        return " ".join((self.config, *self.choices))


def _external(action: settings.Action) -> Callable[[DictConfig], object]:
    return lambda tree: settings.of(plain(tree), action, [])


def commands() -> list[Command]:
    main: list[tuple[str, ...]] = [
        (),
        *((f"method={name.stem}",) for name in sorted(_configs("method"))),
        *((f"protocol={name.stem}",) for name in sorted(_configs("protocol"))),
        *((f"data={name.stem}", "protocol=targets") for name in sorted(_configs("data")) if name.stem != "text"),
        ("data=text", "data.path=a.txt"), ("model=hf", "model.path=here"), ("model=smollm2",), ("cluster=slurm",),
        ("cluster=gpus",), ("model@base.model=reference", "method@base.method=yarn"),
        ("method=yarn", "method.query_scale=floor"),
    ]  # fmt: skip
    return [
        *(Command("config", choices, schema.parse) for choices in main),
        Command("plot", (), plot.task),
        Command("plot", ("published=yarn",), plot.task),
        Command("search", (), search._task),
        Command("train", (), train._task),
        Command("train", ("train=finetune", "method=yarn"), train._task),
        Command("external", ("file=a.jsonl",), _external("prompts")),
        Command("external", ("file=a.jsonl", "name=m", "computed_by=e"), _external("read")),
        Command("external", ("url=http://x", "dialect=vllm", "name=m", "computed_by=e"), _external("fetch")),
        Command("theory", (), theory._task),
        Command("theory", ("model=reference", "ctx=1024"), theory._task),
        Command("export", ("method=yarn", "ctx=1024"), export._task),
        Command("export", ("results_dir=results", "ctx=64"), export._task),
        Command("collect", (), collect._task),
    ]


def _configs(group: str) -> Iterator[Path]:
    return (Path(__file__).parents[1] / "conf" / group).glob("*.yaml")


def keys(values: Any, above: str = "") -> list[str]:
    """Every key of a configuration, those that hold others among them."""
    found = []
    for key, value in values.items():
        found.append(f"{above}{key}")
        if isinstance(value, dict):
            found += keys(value, f"{above}{key}.")
    return found


def tree_of(command: Command) -> DictConfig:
    with initialize_config_module("harness.conf", version_base="1.3"):
        return compose(command.config, list(command.choices))


def end(command: Command, tree: DictConfig, key: str, value: Any) -> str | None:
    """What is wrong with how a command takes a value; None: nothing."""
    changed = tree.copy()
    try:
        with open_dict(changed):
            OmegaConf.update(changed, key, value, merge=False)
    except Exception:  # OmegaConf's own, before the command has it
        return None
    try:
        command.task(changed)
    except (UserError, OmegaConfBaseException) as error:
        said = cli.said_by(error)
        return None if "\n" not in said and len(said) < 12_000 else f"long: {said[:200]!r}"
    except SystemExit:
        return None
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:150]!r}"
    return None


def trials(command: Command, tree: DictConfig) -> list[tuple[str, Any]]:
    """Keys of the groups that a command chose, of all groups where it chose none; each with every value."""
    ours = OmegaConf.masked_copy(tree, [k for k in tree if k != "hydra"])
    named = [choice.partition("=")[0].rpartition("@")[2] for choice in command.choices]
    groups = {name.partition(".")[0] for name in named} if command.config == "config" else set()
    found = [key for key in keys(OmegaConf.to_container(ours)) if not groups or key.partition(".")[0] in groups]
    return [(key, value) for key in found for value in HOSTILE]


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    """A folder with a few results, where no command computes, trains or draws."""
    write(tmp_path / "results", *(cell([[4.0, 3.0], [2.0, 3.0]], method=name, ctx=64) for name in ("none", "yarn")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "save", lambda *_, **__: [])
    monkeypatch.setattr(train, "_of_corpus", dict)  # it asks Hydra what was typed
    monkeypatch.setattr(searching, "search", _nothing)
    monkeypatch.setattr(training, "train", _nothing)
    return tmp_path


def _nothing(*_: object) -> None:
    raise SystemExit(0)


def check(sample: random.Random | None) -> None:
    plot.offer_papers()
    taken = [(c, tree_of(c)) for c in commands()]
    tries = [(c, tree, *trial) for c, tree in taken for trial in trials(c, tree)]
    if sample is not None:
        tries = sample.sample(tries, SAMPLE)
    ends = [(c, key, value, end(c, tree, key, value)) for c, tree, key, value in tries]
    wrong = [f"{c}: {key}={value!r:.60} -> {found}" for c, key, value, found in ends if found]
    assert not wrong, "\n".join([f"{len(wrong)} of {len(tries)}", *wrong])


def test_a_sample_of_keys_and_values_ends_in_one_line_or_works(workshop):
    check(random.Random(SEED))


WORDS = ["", " ", "x", "-1", "0", "1e400", "nan", "99999999999999999999", "a=b", "=", "ctx=", "ctx=x,64", "ctx=1e999",
         "nope=1", "~nobody/x", "/proc/x", "a,b", "\udcff", "x" * 5000]  # fmt: skip


def options() -> list[list[str]]:
    """Command lines of compare and report: every option with every word, and words in place of folders."""
    found = [["report", word] for word in WORDS] + [["compare", "results", word] for word in WORDS]
    for name, given in (("report", ["results"]), ("compare", ["results", "results"])):
        parser = {"report": report, "compare": compare}[name].parser()
        flags = [a.option_strings[-1] for a in parser._actions if a.option_strings and "-h" not in a.option_strings]
        found += [[name, *given, flag, word] for flag in flags for word in WORDS]
        found += [[name, *given, flag] for flag in flags]
    return found


def end_of_options(name: str, words: list[str]) -> str | None:
    """What is wrong with how compare or report takes a command line; None: nothing."""
    output, errors = (io.TextIOWrapper(io.BytesIO(), errors="backslashreplace") for _ in range(2))
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            {"report": report, "compare": compare}[name].main(words)
    except SystemExit:
        errors.seek(0)
        said = [line for line in errors.read().splitlines() if not line.startswith("WARNING")]
        return None if len(said) == 1 and len(said[0]) < 12_000 else f"{len(said)} lines: {said[:1]}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:150]!r}"
    return None


def check_options(sample: random.Random | None) -> None:
    lines = options() if sample is None else sample.sample(options(), 25)
    wrong = [f"{line!r:.150} -> {found}" for line in lines if (found := end_of_options(line[0], line[1:]))]
    assert not wrong, "\n".join([f"{len(wrong)} of {len(lines)}", *wrong])


def test_a_sample_of_options_ends_in_one_line_or_works(workshop):
    check_options(random.Random(SEED))


@pytest.mark.slow
def test_every_option_with_every_word_ends_in_one_line_or_works(workshop):
    check_options(None)


@pytest.mark.slow
def test_every_key_with_every_value_ends_in_one_line_or_works(workshop):
    check(None)
