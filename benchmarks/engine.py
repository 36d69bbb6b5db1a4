"""Speed and reach of the engine on one GPU, beside a plain loop over the same windows; numbers are compared first.

    python benchmarks/engine.py speed [--out DIR]      shares of the ceiling, small windows, one-pass curve
    python benchmarks/engine.py reach [--out DIR]      lengths that one GPU holds
    python benchmarks/engine.py cpu   [--out DIR]      reference model and SmolLM2 on this machine's cores

Models have random weights of the named shapes (`cpu` excepted). Share of the ceiling = (2 x matrix parameters x tokens
+ causal half of attention + scored logits) / seconds / ceiling; the ceiling is the sustained bfloat16 product of the
model's own MLP shape, median of 5, interleaved with the runs that it is compared to.
"""

import argparse
import json
import statistics
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import engine_cpu
import numpy as np
import torch
import transformers

from harness import methods
from harness.data.documents import Document
from harness.data.protocols import SinglePass, Sliding
from harness.data.scores import Scores
from harness.data.windows import Protocol
from harness.engine.batches import plans
from harness.engine.engine import Engine
from harness.engine.nll import token_nll
from harness.engine.scores import evaluate
from harness.engine.spec import EngineSpec
from harness.models.attention.fused import fused
from harness.models.checkpoint.geometry import geometry
from harness.models.install import applied
from harness.results.rows import tables

LLAMA = {"vocab_size": 128256, "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}
SHAPES = {
    "8B": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 8192,
    },
    "1B": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
}
rows: list[dict[str, Any]] = []


def build(name: str, layers: int | None = None) -> Any:
    """A model of these shapes with random bfloat16 weights, made on the GPU."""
    shape = SHAPES[name] | ({"num_hidden_layers": layers} if layers else {})
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = transformers.AutoModelForCausalLM.from_config(
            transformers.LlamaConfig(**LLAMA, **shape), dtype=torch.bfloat16
        )
    return model.eval()


def flops(model: Any, batch: int, length: int, scored: int) -> float:
    """What the windows need: matrix products, the causal half of attention, scored logits."""
    config = model.config
    matrices = sum(
        p.numel() for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n and "lm_head" not in n
    )
    attention = 2 * config.num_hidden_layers * config.num_attention_heads * config.head_dim * length**2
    return batch * (2 * matrices * length + attention + 2 * config.hidden_size * config.vocab_size * scored)


def timed(run: Callable[[], Any]) -> float:
    torch.cuda.synchronize()
    started = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - started


class Ceiling:
    """The model's own MLP product, as long as one run of the model takes or a tenth of a second."""

    def __init__(self, model: Any) -> None:
        config = model.config
        self.a = torch.randn(16384, config.hidden_size, device="cuda", dtype=torch.bfloat16)
        self.b = torch.randn(config.hidden_size, config.intermediate_size, device="cuda", dtype=torch.bfloat16)
        self.flops = 2 * 16384 * config.hidden_size * config.intermediate_size

    def rate(self) -> float:
        """FLOP/s over a sustained stretch."""
        count = max(20, int(0.15 * 7e14 / self.flops))
        seconds = timed(lambda: [self.a @ self.b for _ in range(count)])
        return count * self.flops / seconds


def measure(
    label: str, model: Any, ids: torch.Tensor, scored: int, runs: dict[str, Callable[[], Any]], repeats: int = 5
) -> None:
    """Each way of computing the same losses, interleaved with the ceiling; medians."""
    ceiling, rates = Ceiling(model), []
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    peaks: dict[str, float] = {}
    for name, run in list(runs.items()):
        try:
            warm = timed(run)
            print(f"  {label} {name}: first call {warm:.1f} s", flush=True)
        except Exception as error:
            rows.append({"case": label, "way": name, "note": type(error).__name__})
            print(f"  {label} {name}: {type(error).__name__}: {str(error)[:300]}", flush=True)
            torch.cuda.empty_cache()
            del seconds[name]
    for _ in range(repeats):
        rates.append(ceiling.rate())
        for name in seconds:
            torch.cuda.reset_peak_memory_stats()
            seconds[name].append(timed(runs[name]))
            peaks[name] = torch.cuda.max_memory_allocated() / 2**30
    top = statistics.median(rates)
    for name, values in seconds.items():
        middle = statistics.median(values)
        rate = flops(model, *ids.shape, scored) / middle
        rows.append(
            {
                "case": label,
                "way": name,
                "seconds": round(middle, 4),
                "tokens_per_second": round(ids.numel() / middle),
                "TFLOP_s": round(rate / 1e12),
                "ceiling": round(top / 1e12),
                "share": round(rate / top, 3),
                "GiB": round(peaks[name], 1),
            }
        )
        print("  ", rows[-1], flush=True)


def ids_of(batch: int, length: int) -> torch.Tensor:
    return torch.randint(0, LLAMA["vocab_size"], (batch, length), device="cuda")


def plain(model: Any, ids: torch.Tensor, score_from: int) -> torch.Tensor:
    """The peers' way: full logits, float32 cross-entropy over them."""
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
        losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
    return losses.view(len(ids), -1)[:, score_from - 1 :]


def check_attention() -> None:
    for heads, width in ((32, 128), (32, 64)):
        query, key, value = (
            torch.randn(1, h, n, width, device="cuda", dtype=torch.bfloat16)
            for h, n in ((heads, 512), (8, 512), (8, 512))
        )
        for causal in (False, True):
            out, lse = fused(query, key, value, width**-0.5, causal=causal)
            wide = [x.double().repeat_interleave(heads // 8, dim=1) for x in (key, value)]
            scores = query.double() @ wide[0].mT * width**-0.5
            if causal:
                scores = scores.masked_fill(torch.ones(512, 512, device="cuda").triu(1).bool(), -torch.inf)
            exact = scores.softmax(-1) @ wide[1]
            print(
                f"fused attention, head {width}, causal={causal}: output {(out - exact).abs().max():.2e}, "
                f"log-sum-exp {(lse - scores.logsumexp(-1)).abs().max():.2e}",
                flush=True,
            )


def agree(model: Any, ids: torch.Tensor, engine: Engine, score_from: int) -> None:
    difference = (engine.token_nll(ids, score_from) - plain(model, ids, score_from)).abs()
    print(
        f"  losses differ from the plain loop by {difference.max():.3f} at most, {difference.mean():.4f} on average",
        flush=True,
    )


def shares(name: str) -> None:
    model = build(name)
    eager, fast = Engine(model, EngineSpec()), Engine(model, EngineSpec(compile=True))
    print(name, eager.mode, eager.tokens_per_batch, flush=True)
    for batch, length in ((16, 2048), (1, 32768)):
        ids, score = ids_of(batch, length), length - 256
        agree(model, ids[:1], fast, score)
        runs = {
            "plain, full logits": lambda ids=ids, score=score: plain(model, ids, score),
            "sliced": lambda ids=ids, score=score: token_nll(model, ids, score),
            "engine": lambda ids=ids, score=score: eager.token_nll(ids, score),
            "engine, compiled": lambda ids=ids, score=score: fast.token_nll(ids, score),
        }
        measure(f"{name} {batch} x {length}", model, ids, 256, runs, repeats=5)
    if name == "8B":
        ids = ids_of(1, 131072)
        runs = {
            "plain, full logits": lambda: plain(model, ids, 1),
            "engine": lambda: eager.token_nll(ids, 131072 - 256),
            "engine, compiled": lambda: fast.token_nll(ids, 131072 - 256),
        }
        measure("8B 1 x 131072", model, ids, 256, runs, repeats=1)
        end_to_end(model, eager, fast)
    else:
        small_windows(model, eager, fast)


def documents(count: int, length: int) -> list[Document]:
    generator = np.random.default_rng(0)
    return [
        Document(f"random-{i}", generator.integers(0, LLAMA["vocab_size"], length), np.arange(length + 1))
        for i in range(count)
    ]


def evaluation(docs: list[Document], engine: Engine, ctx: int, protocol: Protocol) -> list[Scores]:
    planned = plans(docs, ctx, protocol, 0)
    return list(evaluate(docs, planned, engine.token_nll, engine.tokens_per_batch, device="cuda"))


def small_windows(model: Any, eager: Engine, fast: Engine) -> None:
    """ctx 2048, stride 256: the whole evaluation against batch 1 with full logits over the same windows."""
    docs, protocol = documents(4, 2048 + 32 * 256), Sliding(stride=256, bos="none")
    windows = [(d, w) for d in docs for w in plans([d], 2048, protocol, 0)[0]]

    def peer() -> list[float]:
        losses = []
        for document, w in windows:
            ids = torch.from_numpy(document.ids[w.begin : w.end])[None].cuda()
            losses.append(plain(model, ids, w.score_from - w.begin).sum().item())
        return losses

    ours = [float(n.sum()) for s in evaluation(docs, eager, 2048, protocol) for n in s.nll]
    theirs = peer()
    print(
        f"  small windows: sums differ by {max(abs(a / b - 1) for a, b in zip(ours, theirs, strict=True)):.2e} relative"
    )
    evaluation(docs, fast, 2048, protocol)
    times: dict[str, list[float]] = {"batch 1, full logits": [], "engine": [], "engine, compiled": []}
    for _ in range(3):
        times["batch 1, full logits"].append(timed(peer))
        times["engine"].append(timed(lambda: evaluation(docs, eager, 2048, protocol)))
        times["engine, compiled"].append(timed(lambda: evaluation(docs, fast, 2048, protocol)))
    base = statistics.median(times["batch 1, full logits"])
    for name, values in times.items():
        middle = statistics.median(values)
        rows.append(
            {
                "case": f"1B ctx 2048 stride 256, {len(windows)} windows",
                "way": name,
                "seconds": round(middle, 3),
                "ratio": round(base / middle, 2),
            }
        )
        print("  ", rows[-1], flush=True)


def end_to_end(model: Any, eager: Engine, fast: Engine) -> None:
    """Documents in, rows out, against the bare forward of the same windows."""

    docs, protocol = documents(4, 32768), SinglePass(bos="none")

    def harness(engine: Engine) -> None:
        scored = evaluation(docs, engine, 32768, protocol)
        for table in tables(("windows", "positions"), scored, docs, 32768).values():
            table.to_parquet("/tmp/rows.parquet")

    def bare(engine: Engine) -> None:
        for document in docs:
            engine.token_nll(torch.from_numpy(document.ids)[None].cuda(), 1)

    harness(eager)
    for name, engine in (("engine", eager), ("engine, compiled", fast)):
        pairs = [(timed(lambda e=engine: harness(e)), timed(lambda e=engine: bare(e))) for _ in range(3)]
        ours, base = (statistics.median(x) for x in zip(*pairs, strict=True))
        rows.append(
            {
                "case": "8B 4 x 32768, documents to parquet",
                "way": name,
                "seconds": round(ours, 3),
                "bare": round(base, 3),
                "ratio": round(base / ours, 3),
            }
        )
        print("  ", rows[-1], flush=True)


def curve(layers: int = 4, points: int = 64) -> None:
    """A YaRN curve of 64 lengths from one pass against one pass a length."""
    model = build("8B", layers)
    engine = Engine(model, EngineSpec())
    rope = geometry(model.config)
    longest = 2048 * points
    ids = ids_of(1, longest)
    method = methods.build("yarn", {"factor": 16.0}, rope, longest)
    with applied(model, method, longest):
        engine.token_nll(ids[:, :4096], 1)
        one = timed(lambda: engine.token_nll(ids, 1))
        whole = engine.token_nll(ids, 1)
        worst, many = 0.0, 0.0
        for n in range(1, points + 1):
            length = 2048 * n
            started = time.perf_counter()
            alone = engine.token_nll(ids[:, :length], 1)
            torch.cuda.synchronize()
            many += time.perf_counter() - started
            worst = max(worst, (alone - whole[:, : length - 1]).abs().max().item())
    rows.append(
        {
            "case": f"YaRN curve, {points} lengths to {longest}, 8B shapes, {layers} layers",
            "way": "one pass",
            "seconds": round(one, 2),
            "one pass a length": round(many, 2),
            "ratio": round(many / one, 1),
            "largest difference": round(worst, 4),
        }
    )
    print("  ", rows[-1], flush=True)


def reach() -> None:
    for name, layers, length in (("8B", 1, 2097152), ("1B", 1, 2097152), ("8B", None, 524288)):
        model = build(name)  # all weights are resident; `layers` of them run
        if layers:
            model.config.num_hidden_layers = layers
        engine = Engine(model, EngineSpec(tokens_per_batch=length))
        engine.token_nll(ids_of(1, 4096), 1)
        ids = ids_of(1, length)
        torch.cuda.reset_peak_memory_stats()
        try:
            seconds = timed(lambda engine=engine, ids=ids: engine.token_nll(ids, 1))
            rows.append(
                {
                    "case": f"{name} 1 x {length}",
                    "way": f"{layers or 'all'} layers, all weights resident",
                    "seconds": round(seconds, 1),
                    "GiB": round(torch.cuda.max_memory_allocated() / 2**30, 1),
                    "chunk": engine.chunk(1, length),
                }
            )
        except Exception as error:
            traceback.print_exc()
            rows.append(
                {
                    "case": f"{name} 1 x {length}",
                    "way": f"{layers or 'all'} layers",
                    "note": f"{type(error).__name__}: {str(error)[:120]}",
                }
            )
        print("  ", rows[-1], flush=True)
        del model, engine, ids
        torch.cuda.empty_cache()


def section(run: Callable[[], None], out: Path) -> None:
    """One part; a failure is printed and the rest goes on."""
    started = time.perf_counter()
    try:
        run()
    except Exception:
        traceback.print_exc()
    torch.cuda.empty_cache() if torch.cuda.is_available() else None
    print(f"[{time.perf_counter() - started:.0f} s]", flush=True)
    (out / "rows.json").write_text(json.dumps(rows, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["speed", "reach", "cpu"])
    parser.add_argument("--out", type=Path, default=Path("."))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    parts: dict[str, list[Callable[[], None]]] = {
        "speed": [check_attention, lambda: shares("1B"), lambda: shares("8B"), curve],
        "reach": [reach],
        "cpu": [lambda: engine_cpu.run(rows)],
    }
    for part in parts[given.part]:
        section(part, given.out)
    print(
        torch.__version__,
        transformers.__version__,
        torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    )


if __name__ == "__main__":
    main()
