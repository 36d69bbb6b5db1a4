"""Several GPUs against one: documents side by side, one window over all, reach, and equal losses. Run by torchrun.

    torchrun --nproc-per-node=N benchmarks/scale.py [documents context reach equal] [--out DIR]

On any number of GPUs (one, too: the tables then hold its column alone). Models have random bfloat16 weights of
Llama-3.1-8B shapes, the same on every rank. A ratio is formed in one run: rank 0 computes alone while the others wait,
then all compute; the time of all is that of the slowest. Losses are compared before times. Rank 0 prints and writes
DIR/scale.json. `--tiny --cpu` tries the script itself on a CPU; its times say nothing.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import distributed

from harness.engine.batches import shares
from harness.engine.engine import Engine
from harness.engine.nll import token_nll
from harness.engine.shared import Ranks
from harness.engine.spec import EngineSpec

SHAPES = {
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
}
TINY = SHAPES | {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
SCORED = 256  # last positions of a window
rows: list[dict[str, Any]] = []


class Bench:
    """This rank, its device and the sizes of the run."""

    def __init__(self, on_cpu: bool, tiny: bool, reach_length: int, reach_layers: int) -> None:
        self.reach_length, self.reach_layers = reach_length, reach_layers
        self.device = "cpu" if on_cpu else "cuda"
        if not on_cpu:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        distributed.init_process_group("gloo" if on_cpu else "cpu:gloo,cuda:nccl")
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()
        self.over = Ranks(self.rank, self.size, distributed.group.WORLD)
        self.shapes = TINY if tiny else SHAPES
        self.scale = 256 if tiny else 1  # lengths are divided by it
        self.dtype = torch.float32 if on_cpu else torch.bfloat16

    def model(self, layers: int | None = None, dtype: torch.dtype | None = None, **shapes: Any) -> Any:
        """Random weights, the same on every rank; of them only `layers` run, all are resident."""
        torch.manual_seed(0)
        config = transformers.LlamaConfig(**self.shapes | shapes)
        with torch.device(self.device):
            model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype or self.dtype).eval()
        model.config.num_hidden_layers = layers or config.num_hidden_layers
        return model

    def ids(self, length: int, count: int = 1) -> list[torch.Tensor]:
        """Windows of random tokens, the same on every rank."""
        generator = torch.Generator().manual_seed(1)
        vocabulary = self.shapes["vocab_size"]
        return [torch.randint(0, vocabulary, (1, length), generator=generator).to(self.device) for _ in range(count)]

    def timed(self, run: Callable[[], Any], on: range) -> float:
        """Seconds from a common start until the last of the ranks `on` has done; the others wait."""
        self.wait()
        started = time.perf_counter()
        if self.rank in on:
            run()
        self.wait()
        return time.perf_counter() - started

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()
        distributed.barrier()
        if self.device == "cuda":
            torch.cuda.synchronize()

    def peak(self) -> float:
        """Largest memory of any rank since the last call, GiB."""
        if self.device == "cpu":
            return 0.0
        own = torch.tensor([torch.cuda.max_memory_allocated() / 2**30], device="cuda")
        torch.cuda.reset_peak_memory_stats()
        return max(float(x) for x in self.over.gathered(own))

    def report(self, **row: Any) -> None:
        if self.rank == 0:
            rows.append(row)
            print("  ", row, flush=True)


def documents(bench: Bench, length: int = 32768, each: int = 2) -> None:
    """`each` documents a rank, every one on one rank, against all of them on rank 0."""
    engine = Engine(bench.model(), EngineSpec())
    windows = bench.ids(length // bench.scale, each * bench.size)
    own = shares([length] * len(windows), bench.size)[bench.rank]

    def score(indices: set[int]) -> None:
        for i in indices:
            engine.token_nll(windows[i], windows[i].shape[1] - SCORED // bench.scale)

    score({0})
    one = bench.timed(lambda: score(set(range(len(windows)))), range(1))
    many = bench.timed(lambda: score(own), range(bench.size))
    bench.report(
        case=f"{len(windows)} documents of {length // bench.scale}",
        GPUs=bench.size,
        one_s=round(one, 3),
        all_s=round(many, 3),
        ratio=round(one / many, 2),
        GiB=round(bench.peak(), 1),
    )


def context(bench: Bench, lengths: tuple[int, ...] = (32768, 131072, 262144)) -> None:
    """One window over all ranks against the same window on rank 0; losses first."""
    model = bench.model()
    alone, shared = Engine(model, EngineSpec(mode="layered")), Engine(model, EngineSpec(), bench.over)
    for length in (n // bench.scale for n in lengths):
        (ids,) = bench.ids(length)
        first = length - SCORED // bench.scale
        by_one, by_all = partial(alone.token_nll, ids, first), partial(shared.token_nll, ids, first)
        difference = (by_one() - by_all()).abs()
        one = min(bench.timed(by_one, range(1)) for _ in range(2))
        bench.peak()
        many = min(bench.timed(by_all, range(bench.size)) for _ in range(2))
        bench.report(
            case=f"one window of {length}",
            GPUs=bench.size,
            one_s=round(one, 3),
            all_s=round(many, 3),
            ratio=round(one / many, 2),
            GiB=round(bench.peak(), 1),
            mean_difference=round(difference.mean().item(), 5),
            largest=round(difference.max().item(), 4),
        )


def reach(bench: Bench) -> None:
    """A window that one of the GPUs cannot hold, over a stated part of the layers, all weights resident."""
    model = bench.model(bench.reach_layers)
    (ids,) = bench.ids(bench.reach_length)
    ways = {
        "one": (Engine(model, EngineSpec(mode="layered")), range(1)),
        "all": (Engine(model, EngineSpec(), bench.over), range(bench.size)),
    }
    for name, (engine, on) in ways.items():
        bench.peak()
        notes: list[str] = []
        seconds = bench.timed(partial(attempt, engine, ids, notes), on)
        bench.report(
            case=f"one window of {ids.shape[1]}, {bench.reach_layers} of {bench.shapes['num_hidden_layers']} layers",
            GPUs=name,
            all_s=round(seconds, 1),
            GiB=round(bench.peak(), 1),
            note=" ".join(notes),
        )


def attempt(engine: Engine, ids: torch.Tensor, notes: list[str]) -> None:
    try:
        engine.token_nll(ids, 1)
    except MemoryError as error:
        notes.append(str(error))


def equal(bench: Bench, length: int = 5001) -> None:
    """Per-token losses in float32 on small shapes, of a length that no number of ranks divides."""
    model = bench.model(dtype=torch.float32, **{k: v for k, v in TINY.items() if k != "vocab_size"})
    (ids,) = bench.ids(length)
    engine = Engine(model, EngineSpec(), bench.over)
    difference = (token_nll(model, ids, 1) - engine.token_nll(ids, 1)).abs().max().item()
    bench.report(case=f"float32, one window of {length}", GPUs=bench.size, largest=difference)


PARTS = {"equal": equal, "documents": documents, "context": context, "reach": reach}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; none: all")
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--length", type=int, default=5242880, help="of reach, tokens; as it is for GPUs of 80 GB")
    parser.add_argument("--layers", type=int, default=1, help="of reach: these run, all weights are resident")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    bench = Bench(given.cpu, given.tiny, given.length, given.layers)
    for part in given.parts or PARTS:
        PARTS[part](bench)
        if bench.device == "cuda":
            torch.cuda.empty_cache()
    if bench.rank == 0:
        name = "cpu" if given.cpu else torch.cuda.get_device_name()
        print(f"{bench.size} x {name}, torch {torch.__version__}, transformers {transformers.__version__}")
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "scale.json").write_text(json.dumps(rows, indent=1))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
