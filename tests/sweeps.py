"""A small model, small documents, and sweeps over them: inside this process, or as the command that a user types."""

import contextlib
import json
import multiprocessing
import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from hydra import compose, initialize_config_module
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from harness.cells.prepare import Prepared, prepare
from harness.config.schema import Config, parse
from harness.results.selection import LAST
from tests.tiny import TRAINED, VOCABULARY, tiny_llama

PLACES = ["model_folder", "dataset_folder"]  # columns that say where files lie, in which equal cells may differ
POISON = 5  # a token whose embedding is NaN where a checkpoint is poisoned


def save_checkpoint(folder: Path, *, poisoned: bool = False) -> Path:
    """The plainest tiny model, trained at 32 tokens, and a tokenizer of words w0 w1 ..."""
    model = tiny_llama()
    if poisoned:
        with torch.no_grad():
            model.get_input_embeddings().weight[POISON] = float("nan")
    model.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0").save_pretrained(folder)
    return folder


def save_texts(file: Path, *, documents: int = 4, tokens: int = 160, poison_at: int | None = None) -> Path:
    """Documents of random words, as jsonl; with `poison_at` the poisoned word stands there in the last document."""
    draw = random.Random(0)
    texts = [[f"w{draw.randrange(8, VOCABULARY)}" for _ in range(tokens)] for _ in range(documents)]
    if poison_at is not None:
        texts[-1][poison_at] = f"w{POISON}"
    file.write_text("".join(json.dumps({"text": " ".join(words)}) + "\n" for words in texts))
    return file


class Place:
    """A folder with a model, texts, results and a cache of its own."""

    data = "text"
    flags: tuple[str, ...] = ()  # of Hydra

    def __init__(self, folder: Path, *, poison_at: int | None = None, documents: int = 4, tokens: int = 160) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.model = save_checkpoint(folder / "model", poisoned=poison_at is not None)
        self.texts = save_texts(folder / "texts.jsonl", poison_at=poison_at, documents=documents, tokens=tokens)
        self.results = folder / "results"

    @property
    def overrides(self) -> list[str]:
        """What every cell has in common."""
        return [
            "model=hf",
            f"model.path={self.model}",
            "model.name=tiny",
            f"data={self.data}",
            f"data.path={self.texts}",
            "protocol=single_pass",
            "engine.device=cpu",
            "engine.dtype=float32",
            f"results_dir={self.results}",
            f"plots_dir={self.folder / 'plots'}",
        ]

    def configs(self, *cells: str, common: tuple[str, ...] = ()) -> list[Config]:
        """A configuration for each of `cells`, overrides separated by spaces."""
        made = []
        with initialize_config_module("harness.conf", version_base="1.3"):
            for cell in cells:
                overrides = [*self.overrides, *common, *cell.split()]
                made.append(parse(compose("config", overrides), overrides))
        return made

    def prepared(self, *cells: str, common: tuple[str, ...] = (), run_id: str = "run") -> list[Prepared]:
        """These cells, ready to run."""
        return prepare(self.configs(*cells, common=common), run_id, sweep=True)

    def command(self, *overrides: str, module: str = "harness") -> list[str]:
        """The command line of a sweep."""
        return [sys.executable, "-m", module, "-m", *self.flags, *self.overrides, *overrides]

    def start(self, *overrides: str) -> "Forked":
        """Start a sweep in a process of its own, which has the heavy imports behind it."""
        return Forked(self.command(*overrides)[2:], self.folder, self.environment, self.results.parent)

    def start_ranks(self, number: int, *overrides: str, start: Callable[..., None] | None = None) -> "list[Forked]":
        """Start a sweep as torchrun would, in so many processes; the first is rank 0."""
        arguments, output = self.command(*overrides)[2:], self.results.parent
        return [Forked(arguments, self.folder, self.environment | e, output, start) for e in ranks_environment(number)]

    def shell(self, *overrides: str, **environment: str) -> "subprocess.Popen[str]":
        """Start a sweep as a user does."""
        pipe = subprocess.PIPE
        environment = self.environment | environment
        return subprocess.Popen(
            self.command(*overrides), env=environment, cwd=self.folder, stdout=pipe, stderr=pipe, text=True
        )

    def sweep(self, *overrides: str, timeout: float = 240) -> "subprocess.CompletedProcess[str]":
        """Run a sweep to its end."""
        return run(self.command(*overrides), self.folder, self.environment, timeout)

    @property
    def environment(self) -> dict[str, str]:
        """One thread a process, a cache inside the folder."""
        return os.environ | {
            "OMP_NUM_THREADS": "1",
            "HARNESS_CACHE": str(self.folder / "cache"),
            "HF_HOME": str(self.folder / "hf"),
        }

    def files(self) -> list[str]:
        """All files under the results, relative, but the list of the last command's cells."""
        found = [f for f in self.results.rglob("*") if f.is_file() and f.name != LAST]
        return sorted(str(f.relative_to(self.results)) for f in found)


def ranks_environment(number: int) -> list[dict[str, str]]:
    """What torchrun tells each of so many processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": str(number), "LOCAL_WORLD_SIZE": str(number)}
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [common | place | {"RANK": str(i), "LOCAL_RANK": str(i)} for i in range(number)]


PRELOADED = [
    "harness.runs.sweep", "harness.runs.runner", "harness.runs.ranks.lead", "harness.models.checkpoint.header",
    "harness.figures.curves", "harness.engine.engine",
    "harness.models.install", "transformers.models.llama.modeling_llama", "torch.distributed",
]  # fmt: skip


class Forked:
    """``python -m harness`` in a real process, forked from one that has imported what takes seconds to import."""

    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(PRELOADED)
    count = 0

    def __init__(
        self,
        arguments: list[str],
        folder: Path,
        environment: dict[str, str],
        output: Path,
        start: Callable[..., None] | None = None,
    ) -> None:
        start = start or forked
        Forked.count += 1
        self.output = [output / f"{Forked.count}.{name}" for name in ("stdout", "stderr")]
        target = (arguments, folder, environment, self.output)
        self.process = self.server.Process(target=start, args=target)
        self.process.start()

    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self.process.is_alive()

    def signal(self, number: int) -> None:
        """Send it a signal, unless it has just ended."""
        assert self.process.pid is not None
        self.signal_other(self.process.pid, number)

    @staticmethod
    def signal_other(process: int, number: int) -> None:
        """Send a signal to a process, its own or one that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)

    def end(self, timeout: float = 240) -> "subprocess.CompletedProcess[str]":
        """Wait for its end."""
        self.process.join(timeout)
        assert self.process.exitcode is not None, "it takes too long"
        stdout, stderr = (file.read_text() if file.exists() else "" for file in self.output)
        return subprocess.CompletedProcess([], self.process.exitcode, stdout, stderr)


def forked(arguments: list[str], folder: Path, environment: dict[str, str], output: list[Path]) -> None:
    """What such a process does."""
    os.environ |= environment
    os.chdir(folder)
    for number, file in enumerate(output, start=1):
        os.dup2(os.open(file, os.O_CREAT | os.O_WRONLY), number)
    torch.set_num_threads(1)
    sys.argv = arguments
    from harness.cli import main

    main()


def run(
    command: list[str], folder: Path, environment: dict[str, str], timeout: float = 240
) -> "subprocess.CompletedProcess[str]":
    """A command run to its end, its output as text."""
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout)


CELLS_32 = [f"method={m} ctx={c}" for m in ("none", "linear", "yarn") for c in (TRAINED // 2, TRAINED, 2 * TRAINED)]
