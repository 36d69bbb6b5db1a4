"""The experiments that train: every arm of conf/train/{encodings,finetuned_small,scaling_laws_small}, several at once.

    python benchmarks/trained.py encodings,scaling_laws_small,finetuned_small --corpus novels.txt.xz \
        --titles novels.json --factors factors.json --at-once 4

Each arm is one `python -m harness.train ...` as conf/ says, then the sweeps of conf/experiment/ run over what was
trained. An arm that is finished is left as it is, one that was killed goes on; the same command again does the rest.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

Command = list[str]

ROPE = "rope"
ENCODINGS = {
    ROPE: ["method=none"],
    "learned": ["method=learned"],
    "sinusoidal": ["method=sinusoidal"],
    "shape": ["method=shape"],
    "random_padding": ["method=random_padding", "method.rows=16384"],
    "randomized": ["method=randomized"],
    "randomized_sinusoidal": ["method=randomized", "method.base=sinusoidal"],
    "xpos": ["method=xpos"],
    "permuteformer": ["method=permuteformer"],
    "permuteformer_linear": ["method=permuteformer", "method.form=linear"],
    "t5_bias": ["method=t5_bias"],
    "alibi": ["method=alibi"],
    "kerple": ["method=kerple"],
    "kerple_power": ["method=kerple", "method.form=power"],
    "fire": ["method=fire"],
    "nope": ["method=nope"],
}
SCALABLE = "sinusoidal,shape,learned,random_padding,alibi,xpos"
BASES = (100, 500, 1000, 10_000, 100_000, 1_000_000)
TUNED = {2048: 8, 8192: 2}  # tokens of a window: windows of a step
ABF = {2048: "182029", 8192: "3313438"}  # critical bases of 4 x and 16 x the trained length of 512
PER_LENGTH = ("linear", "ntk", "yarn", "ntk_by_parts", "abf", "longrope")


def trainings(experiment: str, given: argparse.Namespace) -> Iterator[tuple[str, Command]]:
    """Name and command of every arm; those of a later stage begin with what an earlier one made."""
    books = [f"train.corpus={given.corpus}", f"train.titles={given.titles}", "train.workers=2", *given.override]
    train = [sys.executable, "-m", "harness.train", f"train={experiment}", *books]
    if experiment == "encodings":
        for name, method in ENCODINGS.items():
            yield name, [*train, *method, f"train.output_dir=runs/encodings/{name}"]
    if experiment == "scaling_laws_small":
        for ctx, windows in ((2048, 32), (512, 128)):
            for base in BASES:
                method = ["method=abf", f"method.rope_theta={base}"]
                yield f"{base}_tuned_{ctx}", [*train, *method, f"train.ctx={ctx}", f"train.batch_size={windows}"]
    if experiment == "finetuned_small":
        for ctx in (8192, 2048):
            for name in PER_LENGTH:
                method = [*in_training(name, ctx, given.factors), f"train.ctx={ctx}", f"train.batch_size={TUNED[ctx]}"]
                yield f"{name}_tuned_{ctx}", [*train, *method]


def progressive(given: argparse.Namespace) -> Iterator[tuple[str, Command]]:
    """From 4 to 16 times the trained length, 400 steps more."""
    for name in ("linear", "yarn", "longrope"):
        first, then = f"runs/finetuned_small/{name}_tuned_2048/model", f"runs/finetuned_small/{name}_progressive"
        yield f"{name}_progressive", [
            sys.executable, "-m", "harness.train", "train=finetuned_small", *in_training(name, 8192, given.factors),
            "train.ctx=8192", f"train.batch_size={TUNED[8192]}", "train.steps=400", "train.eval_at=[0,100,200,400]",
            "train.save_steps=400", f"train.init_from={first}", f"train.output_dir={then}",
            f"train.corpus={given.corpus}", f"train.titles={given.titles}", "train.workers=2", *given.override,
        ]  # fmt: skip


def in_training(name: str, ctx: int, factors: str) -> Command:
    """A method's overrides where the length of the windows resolves its factor."""
    own = {"abf": [f"method.rope_theta={ABF[ctx]}"], "longrope": [f"method.factors={factors}"]}
    return [f"method={name}", *own.get(name, [])]


def in_evaluation(name: str, ctx: int, factors: str) -> Command:
    """The same method at every length: its factor, base or rescale factors written out."""
    factor = ctx // 512
    if name == "abf":
        return ["method=abf", f"method.rope_theta={ABF[ctx]}", "~method.factor"]
    if name == "longrope":
        stages = json.loads(Path(factors).read_text())["stages"]
        stage = next(stage for stage in stages if stage["target_ctx"] == ctx)
        return [
            "method=longrope", f"method.factor={factor}", f"method.long_factor={stage['long_factor']}",
            f"method.unscaled_prefix={stage['unscaled_prefix']}", f"method.temperature={stage['temperature']}",
        ]  # fmt: skip
    return [f"method={name}", f"method.factor={factor}"]


def evaluations(experiment: str, given: argparse.Namespace) -> Iterator[tuple[str, Command]]:
    """Name and command of every sweep over what was trained."""
    sweep = [sys.executable, "-m", "harness", "-m", f"experiment={experiment}", *given.sweep]
    if experiment == "encodings":
        yield "encodings", sweep
        yield "learned", [*sweep, "model.name=learned", "ctx=256,512"]
        yield "linear", [*sweep, f"model.name={SCALABLE}", "method=linear"]
        yield "rope_scaled", [*sweep, "model.name=rope", "method=linear,yarn"]
        yield "lex", [*sweep, "model.name=xpos", "method=xpos", "method.lex=true"]
        yield "draws", [*sweep, "model.name=randomized,randomized_sinusoidal", "method=randomized", "method.seed=1,2,3"]
    if experiment == "scaling_laws_small":
        yield experiment, sweep
    if experiment == "finetuned_small":
        for ctx in TUNED:
            for name in PER_LENGTH:
                method = in_evaluation(name, ctx, given.factors)
                yield f"{name}_{ctx}", [*sweep, f"model.name=tuned_{ctx}", *method]
                yield (
                    f"{name}_{ctx}_zero_shot",
                    [
                        *sweep,
                        "model.name=zero_shot",
                        "model.path=null",
                        "model.package=harness.models.reference",
                        *method,
                    ],
                )
        for name in ("linear", "yarn", "longrope"):
            method = in_evaluation(name, 8192, given.factors)
            yield f"{name}_progressive", [*sweep, "model.name=progressive", *method]


def run(commands: Iterable[tuple[str, Command]], given: argparse.Namespace, stage: str) -> int:
    """Run commands, several at once, output into one log each; returns how many failed or were not begun in time."""
    logs = Path("logs") / stage
    logs.mkdir(parents=True, exist_ok=True)

    def one(named: tuple[str, Command]) -> bool:
        name, command = named
        if time.monotonic() > given.until:
            return False
        started = time.monotonic()
        with (logs / f"{name}.log").open("w") as log:
            code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
        print(f"{stage} {name}: {time.monotonic() - started:.0f} s, exit {code}", flush=True)
        return code == 0

    with ThreadPoolExecutor(given.at_once) as pool:
        return sum(not done for done in pool.map(one, commands))


def main() -> None:
    """Trainings of all experiments, then the sweeps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", help="encodings,scaling_laws_small,finetuned_small")
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--titles", required=True)
    parser.add_argument("--factors", default="reference-2048-8192", help="of longrope: a named set or a file")
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin nothing after this long")
    parser.add_argument("--override", nargs="*", default=[], help="of every training")
    parser.add_argument("--sweep", nargs="*", default=[], help="overrides of every sweep")
    given = parser.parse_args()
    names = given.experiments.split(",")
    if wrong := [name for name in names if name not in ("encodings", "scaling_laws_small", "finetuned_small")]:
        parser.error(f"there is no experiment {wrong[0]!r}; there are encodings, scaling_laws_small, finetuned_small")
    given.until = time.monotonic() + given.seconds
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    failed = 0
    for experiment in names:
        failed += run(trainings(experiment, given), given, experiment)
        if experiment == "finetuned_small":
            failed += run(progressive(given), given, experiment)
        failed += run(evaluations(experiment, given), given, f"{experiment}_sweeps")
    sys.exit(f"{failed} commands failed or were not begun" if failed else 0)


if __name__ == "__main__":
    main()
