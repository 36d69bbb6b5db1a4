"""Every method and option on the reference model, under perplexity and under the metrics of use, in one call.

    python benchmarks/methods.py run OUT [--lanes 12] [--tiny]     # minutes on a GPU; again: nothing is computed twice
    python benchmarks/methods.py make OUT docs/data                # rows behind docs/methods.md and docs/attention.md
    python benchmarks/methods.py show docs/data [--part NAME]      # their tables

`run` starts the sweeps below as so many processes on one GPU. `make` writes windows and positions of two parts and, of
the third, rows a document of each metric. `show` prints each part with intervals over documents, then its ratios to
one line, paired; --tiny tries all of it on a CPU, its numbers say nothing.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd

from harness.errors import UserError
from harness.results import store
from harness.statistics import metrics
from harness.statistics.lines import label
from harness.statistics.metric import Choice, Metric
from harness.statistics.paired import cell_table, paired
from harness.statistics.summary import summarize
from harness.statistics.text import number

OPTIONS = (  # each in a process of its own
    ("method=cope", "method.hard=true"),
    ("method=string", "method.form=code"),
    ("method=abf", "method.base=beta0"),
    ("method=dca", "method.temperature_coefficient=0.1"),
    ("method=yarn", "method.blend=geometric,harmonic"),
    ("method=yarn", "method.extrapolation_factor=0.5"),
    ("method=yarn", "method.temperature_coefficient=0.0,0.07"),
    ("method=yarn", "method.kv_cache=fp8_e4m3,int8,q8_0,q4_0"),
)
SCALES = ("null", "log_n", "floor", "power", "ssmax")
PARTS = {  # name, what its cells are called and take beside their own
    "methods": ("experiment=methods_reference", "data.num_documents=6", "protocol.max_windows=3"),
    "query_scale": ("experiment=attention", "ctx=512,2048,8192", "experiment_name=query_scale", "engine.dtype=float32",
                    "data.min_tokens=8192", "data.max_tokens=8192"),
    "use": ("experiment=long_context", "ctx=4096", "experiment_name=method_options", "engine.dtype=float32",
            "data.num_documents=20", "data.min_tokens=8192", "data.max_tokens=8192"),
}  # fmt: skip
METHODS = (
    "none,linear,ntk,yarn", "dynamic_linear,dynamic_ntk,dynamic_yarn,ntk_fixed,ntk_mixed,ntk_by_parts",
    "abf,power,truncated,llama3,cope,p_rope", "rerope,leaky_rerope", "self_extend,dca", "string,windowed",
)  # fmt: skip
OF_USE = ("none,yarn,cope,p_rope,abf", "dca,rerope,string,windowed")
TINY = ("model=reference", "data.num_documents=2", "ctx=64,128", "data.min_tokens=600", "data.max_tokens=600")
TINY_OF = {
    PARTS["methods"][0]: ("protocol.stride=16",),
    PARTS["use"][0]: ("short_windows={ctx: 48, stride: 16}",),
}
COLUMNS: dict[str, tuple[str, Choice]] = {
    "perplexity": ("gain", Choice()),  # of the tokens that gain counts: the same ones as in short windows
    "LongPPL by dca": ("longppl", Choice(evaluators=("dca",))),
    "by yarn": ("longppl", Choice(evaluators=("yarn",))),
    "far copies": ("far_copies", Choice(order=2)),
    "gain": ("gain", Choice()),
}


def sweeps(tiny: bool) -> list[list[str]]:
    """The command lines, without where they write."""
    lines = [[*PARTS["methods"], f"method={names}"] for names in METHODS]
    lines += [[*PARTS["query_scale"], f"method.query_scale={scale}"] for scale in SCALES]
    lines += [[*PARTS["use"], f"method={names}"] for names in OF_USE]
    lines += [[*PARTS[part], *option] for option in OPTIONS for part in ("methods", "use")]
    lines += [[*PARTS["use"], "method=yarn", f"method.query_scale={','.join(SCALES[1:])}"]]
    return [[*line, *TINY, *TINY_OF.get(line[0], ())] for line in lines] if tiny else lines


def run(out: Path, lanes: int, tiny: bool) -> None:
    """All sweeps, so many at once; a part's lines go to a folder of its own."""
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()

    def one(line: Sequence[str]) -> str:
        part = next(name for name, given in PARTS.items() if given[0] == line[0])
        log = out / f"{'-'.join(word.split('=')[-1][:24] for word in line if 'method' in word)}-{part}.log"
        with log.open("w") as stream:
            folder = "options" if part == "use" and not {f"method={names}" for names in OF_USE} & set(line) else part
            command = [sys.executable, "-m", "harness", "-m", *line, f"results_dir={out / folder}"]
            code = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, check=False).returncode
        return f"{time.monotonic() - started:5.0f} s  exit {code}  {' '.join(line[1:])}"

    with ThreadPoolExecutor(lanes) as pool:
        for said in pool.map(one, sweeps(tiny)):
            print(said, flush=True)


def make(out: Path, data: Path) -> None:
    """The rows that are committed: windows and positions of two parts, and rows a document of the third."""
    for part, name in (("methods", "methods_reference"), ("query_scale", "query_scale")):
        for table in ("windows", "positions") if (out / part).exists() else ():
            rows = store.load_results(out / part, table)
            store.write_frame(data / f"{name}.{table}.parquet", rows)
            print(f"{len(rows)} rows: {name}.{table}")
    plain = partial(store.load_results, out / "use")  # holds one cell of each evaluator
    parts = []
    for column, (metric, choice) in COLUMNS.items():
        for load in (plain, partial(store.load_results, out / "options")):
            try:
                rows = metrics.named(metric).rows(load, replace(choice, judge=plain))
            except UserError as error:  # short windows have no key tokens
                print(f"{column}: {error}")
            else:
                parts.append(rows.assign(column=column))
    rows = pd.concat(parts, ignore_index=True)
    rows = rows[rows["protocol"] == "single_pass"].reset_index(drop=True)
    store.write_frame(data / "method_options.parquet", rows)
    print(f"{len(rows)} rows: method_options")


USUAL = (", blend arithmetic", ", hard False", ", base given", ", form paper")  # not worth a name


def show(data: Path, part: str) -> None:
    """The tables of one part in Markdown."""
    if part == "use":
        every = pd.read_parquet(data / "method_options.parquet")
        tables = {name: rows for name in COLUMNS if len(rows := every[every["column"] == name])}
        known = {name: metrics.named("perplexity" if name == "perplexity" else COLUMNS[name][0]) for name in COLUMNS}
    else:
        name = "methods_reference" if part == "methods" else part
        rows = store.load_results(data, "windows")
        rows = rows[rows["experiment"] == name]
        tables = {f"{ctx}": rows[rows["ctx"] == ctx] for ctx in sorted(rows["ctx"].unique())}
        known = dict.fromkeys(tables, metrics.named("perplexity"))
    values = {name: _named(summarize(rows, metric=known[name]), known[name]) for name, rows in tables.items()}
    _print(values, "method")
    _print({name: _ratios(rows, known[name], "yarn") for name, rows in tables.items()}, "over yarn")


def _named(summary: pd.DataFrame, metric: Metric) -> pd.Series:
    """A metric's value with its interval, by the name of the line."""
    value = label(summary).set_index("curve")
    return pd.Series({_bare(str(name)): _cell(row, metric.name) for name, row in value.iterrows()})


def _ratios(rows: pd.DataFrame, metric: Metric, baseline: str) -> pd.Series:
    curves = label(cell_table(rows))["curve"].unique()
    ratios = paired(rows, next(name for name in curves if _bare(name) == baseline), metric=metric)
    return pd.Series({_bare(row["curve"]): _cell(row, "ratio") for _, row in ratios.iterrows()})


def _bare(curve: str) -> str:
    for usual in USUAL:
        curve = curve.replace(usual, "")
    return curve


def _cell(row: pd.Series, name: str) -> str:
    return number(row[name]) + ("" if pd.isna(row["low"]) else f" [{number(row['low'])}, {number(row['high'])}]")


def _print(columns: dict[str, pd.Series], head: str) -> None:
    table = pd.DataFrame(columns).fillna("")
    print(f"\n| {head} | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 1))
    for name, row in table.iterrows():
        print(f"| `{name}` | " + " | ".join(row) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="what", required=True)
    running = parts.add_parser("run")
    running.add_argument("out", type=Path)
    running.add_argument("--lanes", type=int, default=12)
    running.add_argument("--tiny", action="store_true")
    making = parts.add_parser("make")
    making.add_argument("out", type=Path)
    making.add_argument("data", type=Path)
    showing = parts.add_parser("show")
    showing.add_argument("data", type=Path)
    showing.add_argument("--part", choices=PARTS, default="methods")
    given = parser.parse_args()
    if given.what == "run":
        run(given.out, given.lanes, given.tiny)
    elif given.what == "make":
        make(given.out, given.data)
    else:
        show(given.data, given.part)


if __name__ == "__main__":
    main()
