"""Several GPUs against one: documents side by side, one window over all, reach, a long window in full. Run by torchrun.

    torchrun --nproc-per-node=N benchmarks/scale.py [equal documents context profile] [--budget S] [--out DIR]
    torchrun --nproc-per-node=N benchmarks/scale.py reach [--length TOKENS] [--budget S] [--out DIR]
    torchrun --nproc-per-node=N benchmarks/scale.py full --keep DIR [--budget S] [--out DIR]

Models have random bfloat16 weights of Llama-3.1-8B shapes, the same on every rank. A ratio is formed in one run: rank 0
computes alone while the others wait, then all compute; the time of all is that of the slowest. Losses are compared,
too. A case that, counted, would not end within --budget seconds of the script's start is left out and named. `full`
goes through all layers of one window in as many commands as it takes: shortly before the budget is used up the window
is kept under --keep, and the same command goes on from there, until it says that it has finished. Rank 0 prints and
writes DIR/scale-PARTS.json. `--tiny --cpu` tries the script itself on a CPU; its times say nothing.
"""

import time

STARTED = time.monotonic()

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
from collections.abc import Callable, Sequence  # noqa: E402
from dataclasses import dataclass, fields  # noqa: E402
from functools import partial  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import torch  # noqa: E402
import transformers  # noqa: E402
from torch import distributed  # noqa: E402

from harness.engine.batches import shares  # noqa: E402
from harness.engine.engine import Engine  # noqa: E402
from harness.engine.exchange import Ranks  # noqa: E402
from harness.engine.kept import Keep, Kept  # noqa: E402
from harness.engine.nll import token_nll  # noqa: E402
from harness.engine.spec import EngineSpec  # noqa: E402
from harness.models.attention.fused import fused  # noqa: E402
from harness.runs.ranks.processes import tensor_group  # noqa: E402

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
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
LAYER = 218_103_808  # weights of one layer of SHAPES
RATE = 5.5e14  # FLOP/s of one GPU, as measured at these shapes; for what is counted
SCORED = 256  # last positions of a window
CONTEXTS = (32768, 131072, 262144, 524288)


class Bench:
    """This rank, its device and the sizes of the run."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.rows = given, []
        self.device = "cpu" if given.cpu else "cuda"
        if not given.cpu:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        distributed.init_process_group("gloo" if given.cpu else "cpu:gloo,cuda:nccl")
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()
        self.over = Ranks(self.rank, self.size, tensor_group("gloo" if given.cpu else "nccl"))
        self.shapes = TINY if given.tiny else SHAPES
        self.scale = 256 if given.tiny else 1  # lengths are divided by it
        self.dtype = torch.float32 if given.cpu else torch.bfloat16

    def model(self, layers: int | None = None, dtype: torch.dtype | None = None, **shapes: Any) -> Any:
        """Random weights, the same on every rank; of them only `layers` run, None: all; all are resident."""
        torch.manual_seed(0)
        config = transformers.LlamaConfig(**self.shapes | shapes)
        with torch.device(self.device):
            model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype or self.dtype).eval()
        if layers is not None:
            self.resting = model.model.layers[layers:]
            model.model.layers = model.model.layers[:layers]
            model.config.num_hidden_layers = layers
        return model

    def ids(self, length: int, count: int = 1) -> list[torch.Tensor]:
        """Windows of random tokens, the same on every rank."""
        generator = torch.Generator().manual_seed(1)
        vocabulary = self.shapes["vocab_size"]
        return [torch.randint(0, vocabulary, (1, length), generator=generator).to(self.device) for _ in range(count)]

    def timed(self, run: Callable[[], Any], on: range) -> tuple[float, Any]:
        """Seconds from a common start until the last of the ranks `on` has done, and the result; the others wait."""
        self.wait()
        started = time.perf_counter()
        result = run() if self.rank in on else None
        self.wait()
        return time.perf_counter() - started, result

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()
        distributed.barrier()
        if self.device == "cuda":
            torch.cuda.synchronize()

    def fits(self, case: str, seconds: float) -> bool:
        """Whether so much time is left, as rank 0 sees it; where it is not, the case is reported as left out."""
        left = self.given.budget - (time.monotonic() - STARTED)
        fitting = bool(self.over.gathered(torch.tensor([int(seconds <= left)], device=self.device))[0])  # rank 0's
        if not fitting:
            self.report(case=case, note=f"left out: counted {seconds:.0f} s, {left:.0f} s were left")
        return fitting

    def counted(self, length: int, layers: int, ranks: int) -> float:
        """Seconds of one window of 8B shapes: matrix products and the causal half of attention."""
        return layers * (2 * LAYER * length + 2 * SHAPES["hidden_size"] * length**2) / RATE / ranks  # type: ignore

    def peak(self) -> float:
        """Largest memory of any rank since the last call, GiB."""
        if self.device == "cpu":
            return 0.0
        own = torch.tensor([torch.cuda.max_memory_allocated() / 2**30], device="cuda")
        torch.cuda.reset_peak_memory_stats()
        return round(max(float(x) for x in self.over.gathered(own)), 1)

    def report(self, **row: Any) -> None:
        if self.rank == 0:
            self.rows.append(row)
            print("  ", row, flush=True)
            self.given.out.mkdir(parents=True, exist_ok=True)
            name = "-".join(["scale", *self.given.parts])
            (self.given.out / f"{name}.json").write_text(json.dumps(self.rows, indent=1))


def equal(bench: Bench, length: int = 5001) -> None:
    """Per-token losses in float32 on small shapes, of a length that no number of ranks divides."""
    model = bench.model(dtype=torch.float32, **{k: v for k, v in TINY.items() if k != "vocab_size"})
    (ids,) = bench.ids(length)
    engine = Engine(model, EngineSpec(), bench.over)
    for first in (1, length - SCORED):
        difference = (token_nll(model, ids, first) - engine.token_nll(ids, first)).abs().max().item()
        bench.report(case=f"float32, one window of {length} scored from {first}", GPUs=bench.size, largest=difference)


def documents(bench: Bench, length: int = 32768, each: int = 2) -> None:
    """`each` documents a rank, every one on one rank, against all of them on rank 0."""
    case = f"{each * bench.size} documents of {length // bench.scale}"
    if not bench.fits(case, (1 + each + each * bench.size) * bench.counted(length // bench.scale, 32, 1) + 15):
        return
    engine = Engine(bench.model(), EngineSpec())
    windows = bench.ids(length // bench.scale, each * bench.size)
    own = shares([length] * len(windows), bench.size)[bench.rank]

    def score(indices: set[int]) -> None:
        for i in indices:
            engine.token_nll(windows[i], windows[i].shape[1] - SCORED // bench.scale)

    score({0})
    one, _ = bench.timed(lambda: score(set(range(len(windows)))), range(1))
    many, _ = bench.timed(lambda: score(own), range(bench.size))
    bench.report(case=case, **_row(bench, one, many))


def context(bench: Bench) -> None:
    """One window over all ranks against the same window on rank 0; short ones twice, the better counts."""
    model = bench.model()
    alone, shared = Engine(model, EngineSpec(mode="layered")), Engine(model, EngineSpec(), bench.over)
    for length in (n // bench.scale for n in bench.given.contexts):
        times = 3 if length <= 65536 else 2 if length <= 131072 else 1
        case = f"one window of {length}"
        if not bench.fits(case, times * 1.1 * (bench.counted(length, 32, 1) + bench.counted(length, 32, bench.size))):
            continue
        (ids,) = bench.ids(length)
        first = length - max(1, SCORED // bench.scale)
        model.config.num_hidden_layers = 1  # kernels are built for each shape, in one layer for all
        bench.timed(partial(alone.token_nll, ids, first), range(1))
        bench.timed(partial(shared.token_nll, ids, first), range(bench.size))
        model.config.num_hidden_layers = bench.shapes["num_hidden_layers"]
        ones = [bench.timed(partial(alone.token_nll, ids, first), range(1)) for _ in range(times)]
        bench.peak()
        every = [bench.timed(partial(shared.token_nll, ids, first), range(bench.size)) for _ in range(times)]
        row = _row(bench, min(t for t, _ in ones), min(t for t, _ in every))
        if bench.rank == 0:
            difference = (ones[0][1] - every[0][1]).abs()
            row |= {"mean_difference": round(difference.mean().item(), 5)}
            row |= {"largest": round(difference.max().item(), 4), "times": times}
        bench.report(case=case, **row)


def _row(bench: Bench, one: float, many: float) -> dict[str, Any]:
    seconds = {"one_s": round(one, 3), "all_s": round(many, 3), "ratio": round(one / many, 3)}
    return {"GPUs": bench.size} | seconds | {"GiB": bench.peak()}


def profile(bench: Bench, length: int = 32768) -> None:
    """Where the time of one window goes, on one GPU and on rank 0 of all: the kernels that take longest."""
    for keys in (3000, 3001):
        query = torch.randn(1, 32, 1024, 128, device=bench.device, dtype=bench.dtype)
        key = torch.randn(1, 8, keys, 128, device=bench.device, dtype=bench.dtype)
        times = [bench.timed(partial(fused, query, key, key, 0.1), range(bench.size))[0] for _ in range(3)]
        bench.report(case=f"attention to {keys} keys, calls one after the other", ms=[round(1e3 * t, 2) for t in times])
    model = bench.model()
    (ids,) = bench.ids(length // bench.scale)
    first = ids.shape[1] - max(1, SCORED // bench.scale)
    for name, over in (("one", None), ("all", bench.over)):
        engine = Engine(model, EngineSpec(mode="layered"), over)
        on = range(1) if over is None else range(bench.size)
        bench.timed(partial(engine.token_nll, ids, first), on)
        activities = [getattr(torch.profiler.ProfilerActivity, "CPU" if bench.device == "cpu" else "CUDA")]
        with torch.profiler.profile(activities=activities) as found:
            bench.timed(partial(engine.token_nll, ids, first), on)
        for event in sorted(found.key_averages(), key=_microseconds, reverse=True)[: 12 if bench.rank == 0 else 0]:
            bench.report(case=name, ms=round(_microseconds(event) / 1e3, 1), calls=event.count, kernel=event.key[:90])


def _microseconds(event: Any) -> float:
    return event.self_device_time_total or event.self_cpu_time_total


def reach(bench: Bench) -> None:
    """A window that one of the GPUs cannot hold, over a stated part of the layers, all weights resident.

    Every position is scored, since of the last layer only what is scored is run.
    """
    length, layers = bench.given.length // bench.scale, bench.given.layers
    case = f"one window of {length}, {layers} of {bench.shapes['num_hidden_layers']} layers"
    counted = bench.counted(length, layers, bench.size)
    counted += 2 * SHAPES["vocab_size"] * SHAPES["hidden_size"] * length / RATE / bench.size  # type: ignore
    if not bench.fits(case, counted + 30):
        return
    engine = Engine(bench.model(layers), EngineSpec(), bench.over)
    (ids,) = bench.ids(length)
    bench.peak()
    note = ""
    try:
        seconds, nll = bench.timed(partial(engine.token_nll, ids, 1), range(bench.size))
        note = f"losses finite: {bool(nll.isfinite().all())}"
    except MemoryError as error:
        seconds, note = float("nan"), str(error)
    tokens = engine.budget.shared_chunk(1, length, bench.size)
    bench.report(
        case=case, GPUs=bench.size, all_s=round(seconds, 1), counted_s=round(counted, 1), GiB=bench.peak(),
        tokens_a_round=tokens, note=note,
    )  # fmt: skip


class OutOfTime(Exception):
    """The window has been kept; another command goes on with it."""


@dataclass
class UntilDeadline(Kept):
    """Keeps the window once, when no further layer fits into the time, and ends the run."""

    deadline: float = 0.0  # of time.monotonic()

    def is_due(self, layers: int, states: torch.Tensor) -> bool:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.monotonic()
        layer = (now - self.started) / max(1, layers - self.found.layers)
        return bool(self._agreed(now + 1.1 * layer > self.deadline))

    def write(self, layers: int, hidden: torch.Tensor) -> None:
        super().write(layers, hidden)
        raise OutOfTime(f"{layers} of {self.layers} layers")


@dataclass(frozen=True)
class KeepUntilDeadline(Keep):
    """As `Keep`; what is kept is `UntilDeadline`."""

    deadline: float = 0.0

    def window(self, *args: Any) -> Kept | None:
        kept = super().window(*args)
        assert kept is not None, "the window is too short to be kept"
        values = {f.name: getattr(kept, f.name) for f in fields(kept) if f.init}
        return UntilDeadline(**values, deadline=self.deadline)


def full(bench: Bench) -> None:
    """All layers of one window, every position scored, in as many commands as it takes."""
    length = bench.given.full_length // bench.scale
    case = f"one window of {length} in full"
    progress = bench.given.keep / "progress.json"
    before = json.loads(progress.read_text()) if progress.exists() else []
    engine = Engine(bench.model(), EngineSpec(), bench.over)
    engine.keep = KeepUntilDeadline(bench.given.keep, 0.0, case, STARTED + bench.given.budget - bench.given.margin)
    (ids,) = bench.ids(length)
    bench.peak()
    begun, nll, note = time.monotonic(), None, ""
    try:
        nll = engine.token_nll(ids, 1)
    except OutOfTime as kept:
        note = f"kept behind {kept}: give the same command again"
    bench.wait()
    now = time.monotonic()
    command = {"window_s": round(now - begun, 1), "since_start_s": round(now - STARTED, 1), "GiB": bench.peak()}
    if bench.rank == 0:
        progress.parent.mkdir(parents=True, exist_ok=True)
        progress.write_text(json.dumps([*before, command]))
    bench.report(case=case, GPUs=bench.size, **command, note=note or "finished")
    if nll is not None:
        commands = [*before, command]
        bench.report(
            case=case, GPUs=bench.size, commands=len(commands),
            all_s=round(sum(c["window_s"] for c in commands), 1),
            counted_s=round(bench.counted(length, 32, bench.size), 1), GiB=max(c["GiB"] for c in commands),
            finite=bool(nll.isfinite().all()), mean_loss=round(nll.double().mean().item(), 5), scored=nll.numel(),
        )  # fmt: skip


PARTS: dict[str, Callable[[Bench], None]] = {
    "equal": equal, "documents": documents, "context": context, "profile": profile, "reach": reach, "full": full,
}  # fmt: skip


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; none: the first three")
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--budget", type=float, default=530, help="seconds from the start in which the command ends")
    parser.add_argument("--contexts", type=int, nargs="+", default=CONTEXTS, help="of context, tokens")
    parser.add_argument("--length", type=int, default=7340032, help="of reach, tokens; as it is for GPUs of 80 GB")
    parser.add_argument("--layers", type=int, default=1, help="of reach: these run, all weights are resident")
    parser.add_argument("--full-length", type=int, default=2097152, help="of full, tokens")
    parser.add_argument("--keep", type=Path, help="of full: a folder that stays from one command to the next")
    parser.add_argument("--margin", type=float, default=40, help="of full, seconds of the budget for writing")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    made = parser.parse_args(given)
    made.parts = made.parts or ["equal", "documents", "context"]
    if unknown := set(made.parts) - set(PARTS):
        parser.error(f"parts must be of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    if "full" in made.parts and made.keep is None:
        parser.error("full needs --keep DIR")
    return made


def main() -> None:
    bench = Bench(arguments())
    if bench.rank == 0:
        name = "cpu" if bench.device == "cpu" else torch.cuda.get_device_name()
        print(f"{bench.size} x {name}, torch {torch.__version__}, transformers {transformers.__version__}", flush=True)
    for part in bench.given.parts:
        with torch.inference_mode():
            PARTS[part](bench)
        if bench.device == "cuda":
            torch.cuda.empty_cache()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
