"""What LongPPL and far copies cost once the cells exist: 7 documents of 32 768 tokens, read, chosen, averaged.

    python benchmarks/long_context.py [--methods 8]

Losses and token numbers are made up (numbers with the frequencies of a text); what is timed does not depend on them.
Each line is a metric from parquet files to its table with intervals, in this process, one thread unless numpy has more.
"""

import argparse
import json
import platform
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

import harness
from harness.results import schema, store
from harness.statistics import metrics
from harness.statistics.metric import Choice
from harness.statistics.summary import summarize

DOCUMENTS, TOKENS, SHORT, STRIDE, VOCABULARY = 7, 32_768, 5120, 1024, 50_000


def columns(method: str, protocol: str, ctx: int, stride: int | None) -> dict[str, object]:
    """Of a made-up cell."""
    plain = {schema.TEXT: "{}", schema.INTEGER: 1, schema.REAL: 1.0}
    known = {c.name: plain[c.type] for c in schema.COLUMNS if c.of_cell}
    params = {"bos": "none", "max_windows": None, **({} if stride is None else {"stride": stride})}
    own = {"model": "made-up", "method": method, "protocol": protocol, "ctx": ctx, "stride": stride}
    place = {"cell_id": f"{method}-{protocol}", "protocol_params": json.dumps(params), "factor": None, "shorter": None}
    return known | own | place | {"original_max_position_embeddings": 8192}


def write(folder: Path, known: dict[str, object], nll: np.ndarray, ids: np.ndarray) -> None:
    """A cell whose documents are one window each; nll, ids: (DOCUMENTS, TOKENS)."""
    scored = np.arange(1, TOKENS)
    tokens, windows = [], []
    for index in range(DOCUMENTS):
        place = {"document": f"document-{index}", "document_index": index, "window": 0}
        own = {
            "token": scored,
            "nll": nll[index, 1:],
            "top1": False,
            "byte_begin": 4 * scored,
            "byte_end": 4 * scored + 4,
        }
        tokens.append(pd.DataFrame(own | {"token_id": ids[index, 1:], "previous_id": ids[index, :-1]}).assign(**place))
        sums = {
            "num_scored": TOKENS - 1,
            "nll_sum": float(nll[index, 1:].sum()),
            "num_bytes": 4 * TOKENS,
            "weight": 1.0,
        }
        windows.append(
            {"begin": 0, "end": TOKENS, "score_from": 1, "bos": False, "num_words": 0, "num_top1": 0, **sums, **place}
        )
    tables = {"windows": pd.DataFrame(windows), "tokens": pd.concat(tokens)}
    for name, rows in tables.items():
        lacking = [c.name for c in schema.columns(name) if not c.of_cell and c.name not in rows]
        tables[name] = rows.assign(**dict.fromkeys(lacking))
    store.write(folder, known, tables, {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", type=int, default=8)
    given = parser.parse_args()
    draw = np.random.default_rng(0)
    ids = np.minimum(draw.zipf(1.3, (DOCUMENTS, TOKENS)), VOCABULARY)
    wide = draw.exponential(3.0, (DOCUMENTS, TOKENS)).astype(np.float32)
    names = ["dca", "yarn", "windowed", "none", *(f"method_{n}" for n in range(given.methods))][: given.methods]
    print(f"{given.methods} methods, {DOCUMENTS} documents of {TOKENS} tokens; {platform.machine()}")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write(folder, columns("none", "sliding", SHORT, STRIDE), wide, ids)
        for name in names:
            own = np.maximum(wide + draw.normal(0, 0.7, wide.shape), 0).astype(np.float32)
            write(folder, columns(name, "single_pass", TOKENS, None), own, ids)
        load = partial(store.load_results, folder)
        for name in ("longppl", "far_copies", "gain"):
            started = time.perf_counter()
            table = summarize(metrics.named(name).rows(load, Choice()), metric=metrics.named(name))
            print(f"{name:12} {time.perf_counter() - started:6.2f} s   {table['num_scored'].max()} tokens counted")
        started = time.perf_counter()
        harness.long_context(load("windows"), load("tokens"))
        print(f"{'all together':12} {time.perf_counter() - started:6.2f} s")


if __name__ == "__main__":
    main()
