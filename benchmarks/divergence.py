"""KL of an 8B shape to a second method of the same model in one window: memory and time beside a run without a base.

    python benchmarks/divergence.py [--out DIR]           131 072 tokens, one GPU; everything in one call
    python benchmarks/divergence.py --cpu --tiny          the same script on small shapes, on a CPU

To reach: memory below 1.15 x of one model's run plus the base's states, time below 2.2 x of one. Weights are random.
Ways, interleaved: `alone` (losses and top1), `at once` (both passes in one process, one set of weights) and `stored`
(the base's states to a file and back). Losses of all are compared first: they must be equal.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

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


class Bench:
    """One model and one window."""

    def __init__(self, device: str, shape: dict[str, Any], length: int) -> None:
        torch.manual_seed(0)
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        with torch.device(device):
            model = transformers.AutoModelForCausalLM.from_config(transformers.LlamaConfig(**shape), dtype=dtype)
        self.model, self.length, self.device = model.eval(), length, device
        self.engine = Engine(self.model, EngineSpec(keep_every=None))
        own = geometry(self.model.config)
        self.own = methods.construct("yarn", {}).resolved(own, length)
        self.base = methods.construct("linear", {}).resolved(own, length)
        self.ids = torch.randint(0, shape["vocab_size"], (1, length), generator=torch.Generator().manual_seed(1)).to(
            device
        )

    def states(self, method: Any) -> torch.Tensor:
        with applied(self.model, method, self.length):
            return self.engine.token_states(self.ids, 1)

    def alone(self) -> torch.Tensor:
        with applied(self.model, self.own, self.length):
            return self.engine.token_scores(self.ids, 1)

    def against(self, base: torch.Tensor) -> torch.Tensor:
        sides = [Side(self.model, self.engine.weights, states) for states in (self.states(self.own), base)]
        return compared(sides[0], sides[1], self.ids[:, 1:])

    def at_once(self) -> torch.Tensor:
        return self.against(self.states(self.base))

    def stored(self) -> torch.Tensor:
        with tempfile.TemporaryDirectory() as folder:
            kept = States(Path(folder), "base", self.model.dtype)
            kept.write(self.ids[0].cpu().numpy(), 1, self.states(self.base)[0])
            return self.against(kept.read(self.ids, 1))


def measured(run: Callable[[], torch.Tensor], device: str) -> tuple[torch.Tensor, float, int]:
    """What it gives, seconds, and peak bytes of the GPU."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    out = run()
    if device == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    return out, seconds, torch.cuda.max_memory_allocated() if device == "cuda" else 0


def main() -> None:
    """Measure, print, and write a JSON file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--length", type=int)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    device = "cpu" if options.cpu else "cuda"
    length = options.length or (512 if options.tiny else 131072)
    bench = Bench(device, TINY if options.tiny else SHAPE, length)
    ways = {"alone": bench.alone, "at once": bench.at_once, "stored": bench.stored}
    results = {name: measured(run, device) for name, run in ways.items()}  # warm
    own = results["alone"][0]
    for name in ("at once", "stored"):
        assert torch.equal(results[name][0][..., :2], own), f"losses {name} are not those of a run alone"
    assert torch.equal(results["at once"][0], results["stored"][0])
    del results
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    peaks: dict[str, int] = {}
    for _ in range(options.repeats):
        for name, run in ways.items():
            _, took, peaks[name] = measured(run, device)
            seconds[name].append(took)
    states = length * bench.model.config.hidden_size * bench.model.dtype.itemsize
    rows = []
    for name in ways:
        ratio = statistics.median(seconds[name]) / statistics.median(seconds["alone"])
        memory = (peaks[name] - (name != "alone") * states) / peaks["alone"] if peaks["alone"] else None
        rows.append({"way": name, "seconds": seconds[name], "time": ratio, "bytes": peaks[name], "memory": memory})
        print(f"{name:8} {statistics.median(seconds[name]):8.2f} s  {ratio:5.2f} x  ", end="")
        print(f"{peaks[name] / 2**30:6.2f} GiB  less states {memory:.3f} x" if memory else "memory not counted")
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    print(
        f"{name}, {length} tokens; limits: time {ENOUGH_TIME} x, memory {ENOUGH_MEMORY} x plus {states / 2**30:.2f} GiB"
    )
    facts = {"device": name, "length": length, "states_bytes": states, "rows": rows}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "divergence.json").write_text(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
