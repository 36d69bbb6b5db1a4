"""PoSE, DroPE and CoPE on the reference model, three seeds each, beside what they are measured by; all in one call.

    python benchmarks/trained_seeds.py OUT --corpus novels.txt.xz --titles novels.json --budget 440

Every arm is one `python -m harness.train ...` and, as soon as it is trained, one sweep of six lengths by
experiment=finetuned_small. Arms begin in the order of ARMS, several at once; after `--budget` seconds whatever runs is
ended, and OUT gets what is finished: rows of the sweeps, curves of the trainings, all logs. The same call again does
the rest.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from omegaconf import OmegaConf

from harness.errors import UserError
from harness.results.store import load_results
from harness.training import corpus, model, stream

SEEDS = (1, 2, 3)
RUNS = Path("runs/finetuned_small")
OF_FACTOR = ("linear", "yarn")  # evaluated under the factor of the length that they were trained for


@dataclass(frozen=True)
class Arm:
    """One kind of training, and what its checkpoint is evaluated under."""

    name: str  # of the folder, before the seed
    train: tuple[str, ...]
    sweeps: tuple[tuple[str, ...], ...]  # overrides of each


def under(method: str, *also: str, factor: int = 16) -> tuple[str, ...]:
    """The overrides of a sweep under a method."""
    return (f"method={method}", f"method.factor={factor}" if method in OF_FACTOR else "~method.factor", *also)


def tuned(method: str, ctx: int, windows: int, *sweeps: tuple[str, ...]) -> Arm:
    """Windows of `ctx` tokens, 16 384 tokens a step."""
    train = ("train=finetuned_small", f"method={method}", f"train.ctx={ctx}", f"train.batch_size={windows}")
    return Arm(f"{method}_tuned_{ctx}", train, sweeps or (under(method),))


def pose(method: str) -> Arm:
    """Windows of 512 tokens, positions up to 8192."""
    return Arm(f"{method}_pose_8192", ("train=pose", f"method={method}"), (under(method),))


def drope(name: str, *train: str) -> Arm:
    """Rotations off, windows of 512 tokens; evaluated with and without growing queries."""
    off = ("p_rope", "method.share=0")
    return Arm(name, ("train=drope", *train), (under(*off), under(*off, "method.query_scale=log_n")))


ARMS = (
    pose("yarn"),
    drope("p_rope_drope"),
    tuned("none", 512, 32, under("none"), under("yarn"), under("linear")),
    pose("linear"),
    tuned("cope", 2048, 8),
    tuned("none", 2048, 8),
    tuned("yarn", 8192, 2),
    tuned("cope", 8192, 2),
    tuned("linear", 8192, 2),
    drope("p_rope_drope_slow", "train.learning_rate=0.0002"),
    tuned("none", 8192, 2),
)
UNTOUCHED = (under("none"), under("p_rope", "method.share=0"), under("cope"), under("yarn"), under("linear"))


class Commands:
    """Runs commands, output into a log each, until the time is over."""

    def __init__(self, out: Path, budget: float) -> None:
        self.until, self.logs, self.running = time.monotonic() + budget, out / "logs", set[subprocess.Popen[bytes]]()
        self.lock = threading.Lock()
        self.logs.mkdir(parents=True, exist_ok=True)
        ender = threading.Timer(budget, self.end)
        ender.daemon = True
        ender.start()

    def __call__(self, name: str, module: str, *overrides: str) -> bool:
        """Whether it was begun and ended well."""
        started = time.monotonic()
        with (self.logs / f"{name}.log").open("w") as log:
            with self.lock:
                if started >= self.until:
                    return False
                command = [sys.executable, "-m", module, *overrides]
                process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
                self.running.add(process)
            code = process.wait()
        self.running.discard(process)
        print(f"{time.monotonic() - started:4.0f} s, exit {code}: {name}", flush=True)
        return code == 0

    def end(self) -> None:
        """End what runs; nothing begins any more."""
        with self.lock:
            self.until = 0.0
            for process in self.running:
                process.kill()


def run(arm: Arm, seed: int, commands: Commands, given: argparse.Namespace) -> None:
    """Train, then evaluate."""
    name = f"{arm.name}_seed{seed}"
    books = [f"train.corpus={given.corpus}", f"train.titles={given.titles}", "~train.left_out", "train.workers=2"]
    output = f"train.output_dir={RUNS / name}"
    if commands(name, "harness.train", *arm.train, f"seed={seed}", output, *books, *given.train):
        called = name.split("_", 1)[1] if not name.startswith("p_rope") else name.removeprefix("p_rope_")
        at = (f"model.name={called}", f"model.path={RUNS / name / 'model'}")
        for number, sweep in enumerate(arm.sweeps):
            evaluate(f"{name}_sweep{number}", (*at, *sweep), commands, given)


def evaluate(name: str, overrides: tuple[str, ...], commands: Commands, given: argparse.Namespace) -> None:
    """One sweep over lengths."""
    place = f"results_dir={given.out / 'results'}"
    commands(name, "harness", "-m", "experiment=finetuned_small", *overrides, place, *given.sweep)


def untouched(commands: Commands, given: argparse.Namespace) -> None:
    """The reference model under the methods of the arms."""
    at = ("model.name=zero_shot", "model.path=null", "model.package=harness.models.reference")
    for number, sweep in enumerate(UNTOUCHED):
        evaluate(f"zero_shot_sweep{number}", (*at, *sweep), commands, given)


def curves() -> pd.DataFrame:
    """A row for every logged step of every finished training."""
    logged = []
    for record in sorted(RUNS.glob("*/model/training.json")):
        made = json.loads(record.read_text())
        kept = {"experiment": "finetuned_small", "arm": record.parts[-3], "method": made["method"]["name"]}
        kept |= {"train_ctx": made["train"]["ctx"]}
        kept["tokens_a_step"] = made["train"]["ctx"] * made["train"]["batch_size"]
        columns = ("loss", "learning_rate", "step", "perplexity_512", "perplexity_2048", "perplexity_8192")
        logged += [kept | {c: row[c] for c in columns if c in row} for row in made["log"] if "train_runtime" not in row]
    return pd.DataFrame(logged)


def collect(out: Path) -> None:
    """One file of rows, one of curves, one of logs; single results are taken away."""
    try:
        rows = load_results(out / "results")
        rows.to_parquet(out / "finetuned_seeds.windows.parquet")
        print(rows.groupby(["model", "method", "ctx"]).size().unstack().to_string())
    except UserError as error:
        print(error)
    curves().to_parquet(out / "training_seeds.parquet")
    with tarfile.open(out / "logs.tar.gz", "w:gz") as file:
        file.add(out / "logs", "logs")
    for folder in ("results", "logs"):
        shutil.rmtree(out / folder, ignore_errors=True)


def main() -> None:
    """Everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--titles", required=True)
    parser.add_argument("--budget", type=float, default=float("inf"), help="seconds until what runs is ended")
    parser.add_argument("--at-once", type=int, default=10)
    parser.add_argument("--arms", default="", help="those whose names begin so; all by default")
    parser.add_argument("--train", nargs="*", default=[], help="overrides of every training")
    parser.add_argument("--sweep", nargs="*", default=[], help="overrides of every sweep")
    given = parser.parse_args()
    commands = Commands(given.out, given.budget)
    held_out = list(OmegaConf.load("conf/train/reference.yaml").held_out)
    books = corpus.split(corpus.read_books(Path(given.corpus), Path(given.titles)), held_out, {}).training
    stream.joined(books, model.tokenizer_of(model.checkpoint_directory("reference"), "init_from"))  # once, for all
    with ThreadPoolExecutor(given.at_once) as pool:
        for arm in ARMS:
            for seed in SEEDS if arm.name.startswith(given.arms) else ():
                pool.submit(run, arm, seed, commands, given)
        pool.submit(untouched, commands, given)
    collect(given.out)


if __name__ == "__main__":
    main()
