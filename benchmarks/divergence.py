"""KL of an 8B shape to a second method of the same model in one window: memory and time beside a run without a base.

    python benchmarks/divergence.py [--out DIR]           131 072 tokens, one GPU of 80 GB; about two minutes
    python benchmarks/divergence.py --cpu --tiny          the same script on small shapes, on a CPU

To reach: memory below 1.15 x of one model's run plus the base's states, time below 2.2 x of one. Weights are random.
Ways, by turns: `alone` (losses and top1), `at once` (both passes in one process, one set of weights) and `stored` (the
base's states to a file and back). Losses of all must be equal and a model's KL to itself 0: what is not so is printed
and kept beside the times, and the exit code is 1. Rounds are added as long as `--seconds` has room for one more. Needs
torch and transformers, and neither network nor the packages of the command line.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where the package is not installed

from harness import methods
from harness.engine.divergence import Side, compared
from harness.engine.engine import Engine
from harness.engine.spec import EngineSpec
from harness.engine.states import States
from harness.models.checkpoint.geometry import geometry
from harness.models.install import applied

SHAPE = {
    "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 8192,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
}  # fmt: skip
TINY = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
ENOUGH_MEMORY, ENOUGH_TIME = 1.15, 2.2
WARM = 4096  # tokens of the windows that load kernels


class Measured(NamedTuple):
    """One run of a way."""

    columns: torch.Tensor  # (1, length - 1, 2 or 5)
    seconds: float
    peak: int  # bytes of the GPU; 0 on a CPU


class Bench:
    """One model and windows of it."""

    def __init__(self, device: str, shape: dict[str, Any], length: int) -> None:
        torch.manual_seed(0)
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        with torch.device(device):
            model = transformers.AutoModelForCausalLM.from_config(transformers.LlamaConfig(**shape), dtype=dtype)
        self.model, self.device = model.eval(), device
        self.engine = Engine(self.model, EngineSpec(keep_every=None))
        own = geometry(self.model.config)
        self.own = methods.construct("yarn", {}).resolved(own, length)
        self.base = methods.construct("linear", {}).resolved(own, length)
        draw = torch.Generator().manual_seed(1)
        self.ids = torch.randint(0, shape["vocab_size"], (1, length), generator=draw).to(device)
        self.length = length

    def states(self, method: Any) -> torch.Tensor:
        with applied(self.model, method, self.length):
            return self.engine.token_states(self.ids[:, : self.length], 1)

    def alone(self) -> torch.Tensor:
        with applied(self.model, self.own, self.length):
            return self.engine.token_scores(self.ids[:, : self.length], 1)

    def against(self, base: torch.Tensor) -> torch.Tensor:
        sides = [Side(self.model, self.engine.weights, states) for states in (self.states(self.own), base)]
        return compared(sides[0], sides[1], self.ids[:, 1 : self.length])

    def at_once(self) -> torch.Tensor:
        return self.against(self.states(self.base))

    def stored(self) -> torch.Tensor:
        ids = self.ids[:, : self.length]
        with tempfile.TemporaryDirectory() as folder:
            kept = States(Path(folder), "base", self.model.dtype)
            kept.write(ids[0].cpu().numpy(), 1, self.states(self.base)[0])
            return self.against(kept.read(ids, 1))

    def measured(self, run: Callable[[], torch.Tensor]) -> Measured:
        if self.device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        out = run()
        if self.device == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
        return Measured(out.cpu(), seconds, torch.cuda.max_memory_allocated() if self.device == "cuda" else 0)


def rounds(bench: Bench, seconds: float) -> dict[str, list[Measured]]:
    """Every way by turns, for about so long; at least one round, with `alone` at its end once more."""
    ways = {"alone": bench.alone, "at once": bench.at_once, "stored": bench.stored}
    found: dict[str, list[Measured]] = {name: [] for name in ways}
    began = time.perf_counter()
    while not found["stored"] or (time.perf_counter() - began) * (1 + 1 / len(found["stored"])) < seconds:
        for name, run in ways.items():
            found[name].append(bench.measured(run))
            print(f"{name:8} {found[name][-1].seconds:8.2f} s  {found[name][-1].peak / 2**30:6.2f} GiB", flush=True)
    found["alone"].append(bench.measured(bench.alone))
    return found


def wrong_of(found: dict[str, list[Measured]]) -> list[str]:
    """What is not as it must be in the last run of each way."""
    own, at_once, stored = (found[name][-1].columns for name in ("alone", "at once", "stored"))
    said = {
        f"losses at once differ from alone, by {(at_once[..., :2] - own).abs().max():.3g}": at_once[..., :2].equal(own),
        f"stored differs from at once, by {(at_once - stored).abs().max():.3g}": at_once.equal(stored),
        "something is not finite": bool(torch.isfinite(at_once).all()),
        "a KL is negative": bool((at_once[..., 3] >= 0).all()),
        "two methods have a KL of 0": bool(at_once[..., 3].mean() > 0),
    }
    return [text for text, is_right in said.items() if not is_right]


def wrong_with_itself(bench: Bench) -> list[str]:
    """What is not as it must be in the KL of a model to itself."""
    columns = bench.against(bench.states(bench.own))
    largest, same = columns[..., 3].abs().max().item(), columns[..., 4].mean().item()
    return [] if (largest, same) == (0, 1) else [f"a model's KL to itself is {largest:.3g}, same top {same:.6f}"]


def table(found: dict[str, list[Measured]], states: int) -> list[dict[str, Any]]:
    """A row a way: seconds of all runs, median and peak beside those of `alone`, the peak less the base's states."""
    alone = statistics.median(one.seconds for one in found["alone"]), max(one.peak for one in found["alone"])
    rows = []
    for name, runs in found.items():
        seconds, peak = statistics.median(one.seconds for one in runs), max(one.peak for one in runs)
        memory = (peak - (name != "alone") * states) / alone[1] if alone[1] else None
        kl = None if name == "alone" else found[name][-1].columns[..., 3].mean().item()
        facts = {"seconds": [one.seconds for one in runs], "time": seconds / alone[0], "bytes": peak, "memory": memory}
        rows.append({"way": name} | facts | {"kl": kl})
        print(f"{name:8} {seconds:8.2f} s  {seconds / alone[0]:5.2f} x  ", end="")
        print(f"{peak / 2**30:6.2f} GiB  less states {memory:.3f} x" if memory else "memory not counted", flush=True)
    return rows


def main() -> None:
    """Measure, print, and write a JSON file."""
    began = time.perf_counter()
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--length", type=int)
    parser.add_argument("--seconds", type=float, default=80, help="of all rounds; one is always made")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    device = "cpu" if options.cpu else "cuda"
    length = options.length or (512 if options.tiny else 131072)
    bench = Bench(device, TINY if options.tiny else SHAPE, length)
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    print(f"{name}, torch {torch.__version__}, {length} tokens, ready after {time.perf_counter() - began:.0f} s")
    bench.length = min(WARM, length)
    bench.alone()
    wrong = wrong_with_itself(bench)
    bench.length = length
    found = rounds(bench, options.seconds)
    wrong += wrong_of(found)
    states = length * bench.model.config.hidden_size * bench.model.dtype.itemsize
    rows = table(found, states)
    print(f"limits: time {ENOUGH_TIME} x, memory {ENOUGH_MEMORY} x plus {states / 2**30:.2f} GiB of states; ", end="")
    print(f"mean KL {rows[1]['kl']:.3g}, all in {time.perf_counter() - began:.0f} s")
    facts = {"device": name, "length": length, "states_bytes": states, "rows": rows, "wrong": wrong}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "divergence.json").write_text(json.dumps(facts, indent=1))
    if wrong:
        sys.exit("WRONG: " + "; ".join(wrong))


if __name__ == "__main__":
    main()
