"""Searches LongRoPE factors on a GPU, then tests them on documents that the search never saw, against their seeds.

    python benchmarks/longrope_search.py reference OUT [--seconds 170]      7.5 M parameters, targets 2048 and 8192
    python benchmarks/longrope_search.py smollm2   OUT [--seconds 150]      135 M parameters, target 16384
    python benchmarks/longrope_search.py reference OUT --variant longrope2 --ctx 8192

What is tested, on which documents and how is fixed here, before any search. A search that has not run all iterations
after `--seconds` ends with the last whole generation; the iterations that count are printed, and the same command
again goes on from there. Writes OUT/<name>.tar.gz (search directory, results, figures) and OUT/<name>.md (the table);
the name is the model, and the variant and lengths where they are not the defaults.
"""

import argparse
import json
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import get_args

from harness import load_results
from harness.longrope_search.space import Variant
from harness.statistics.paired import pair
from harness.statistics.summary import point

SOTU = ["data=sotu", "data.selection=random"]
PLANS = {  # documents are drawn in one random order: the first for the test, the next for the search
    "reference": {
        "ctx": [2048, 8192], "cut": (8192, 10240), "test": 35, "search": 8, "search_cut": 8192,
        "protocol": "second_half", "tokens_per_batch": 262144,  # fewer leave a GPU waiting for launches
    },
    "smollm2": {
        "ctx": [16384], "cut": (16384, 16384), "test": 35, "search": 4, "search_cut": 16384,
        "protocol": "single_pass", "tokens_per_batch": 65536,
    },
}  # fmt: skip
SEEDS = ["none", "linear", "ntk", "yarn"]


def main() -> None:
    options = _options()
    name = "-".join([options.model, *map(str, options.ctx or []), options.variant]).removesuffix("-longrope")
    work = options.work / name
    started = time.monotonic()
    iterations = _search(options, work)
    print(f"search: {iterations} iterations, {time.monotonic() - started:.0f} s", flush=True)
    _test(options, work)
    table = _table(work / "results")
    print(table)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{name}.md").write_text(table + "\n")
    with tarfile.open(options.out / f"{name}.tar.gz", "w:gz") as archive:
        archive.add(work, arcname=name)
    print(f"all: {time.monotonic() - started:.0f} s")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=list(PLANS))
    parser.add_argument("out", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/longrope"))
    parser.add_argument("--seconds", type=float, default=170.0)
    parser.add_argument("--workers", type=int, default=1, help="processes a length, sharing its evaluations")
    parser.add_argument("--variant", choices=get_args(Variant), default="longrope")
    parser.add_argument(
        "--ctx", type=int, action="append", help="one of the model's targets, instead of all; repeatable"
    )
    parser.add_argument("--override", action="append", default=[], help="of the search, in Hydra's form; repeatable")
    parser.add_argument("--test-override", action="append", default=[], help="of the test")
    return parser.parse_args()


def _documents(plan: dict) -> list[str]:
    least, most = plan["cut"]
    return [*SOTU, f"data.min_tokens={least}", f"data.max_tokens={most}", f"data.num_documents={plan['test']}"]


def _command(options: argparse.Namespace, work: Path, ctx: list[int]) -> list[str]:
    plan = PLANS[options.model]
    mine = [o.replace("data.", "search_data.").replace("data=", "data@search_data=") for o in _documents(plan)]
    return [
        sys.executable, "-m", "harness.search", f"model={options.model}", f"ctx={json.dumps(ctx)}", *_documents(plan),
        *mine, f"search_data.skip={plan['test']}", f"search_data.num_documents={plan['search']}",
        f"search_data.max_tokens={plan['search_cut']}", f"protocol={plan['protocol']}", "protocol.max_windows=null",
        f"search.variant={options.variant}", f"engine.tokens_per_batch={plan['tokens_per_batch']}",
        f"output_dir={work}/search", f"plots_dir={work}/plots", *options.override,
    ]  # fmt: skip


def _search(options: argparse.Namespace, work: Path) -> int:
    """All lengths at once until they are done or time is up; then one file from what all of them reached."""
    lengths = options.ctx or PLANS[options.model]["ctx"]
    running = [subprocess.Popen(_command(options, work, [n])) for n in lengths for _ in range(options.workers)]
    files = [work / f"search/ctx{n}/state.json" for n in lengths]
    until = time.monotonic() + options.seconds
    while any(process.poll() is None for process in running):
        if time.monotonic() > until and all(file.exists() for file in files):
            break
        time.sleep(0.2)
    for process in running:
        process.terminate()
    codes = [process.wait() for process in running]
    if any(code > 0 for code in codes):
        raise SystemExit(f"a search failed: exit codes {codes}")
    states = [json.loads(file.read_text()) for file in files]
    reached = min(max(line[4] for line in state) for state in states)
    subprocess.run([*_command(options, work, lengths), f"search.iterations={reached}"], check=True)
    return reached


def _test(options: argparse.Namespace, work: Path) -> None:
    plan = PLANS[options.model]
    common = [
        sys.executable, "-m", "harness", "-m", f"model={options.model}", *_documents(plan), "protocol=sliding",
        "protocol.stride=256", "protocol.max_windows=null", f"ctx={','.join(map(str, options.ctx or plan['ctx']))}",
        f"results_dir={work}/results", f"plots_dir={work}/plots", *options.test_override,
    ]  # fmt: skip
    subprocess.run([*common, f"method={','.join(SEEDS)}"], check=True)
    subprocess.run([*common, "method=longrope", f"method.factors={work}/search/factors.json"], check=True)


def _table(results: Path) -> str:
    """Perplexity of every method and the ratio of the searched factors to it, paired over documents."""
    rows = load_results(results)
    lines = [
        "| ctx | method | perplexity | searched / method | 95 % interval | documents improved |",
        "|---|---|---|---|---|---|",
    ]
    for ctx, cells in rows.groupby("ctx"):
        found = cells[cells["method"] == "longrope"]
        for name in [*SEEDS, "longrope"]:
            cell = cells[cells["method"] == name]
            compared = pair(cell, found)
            ratio = f"{compared.ratio:.4f} | [{compared.low:.4f}, {compared.high:.4f}]"
            wins = f"{compared.num_improved} of {compared.num_documents}"
            own = f"| {ctx} | {name} | {point(cell, 'token'):.3f} |"
            lines.append(f"{own}  | | |" if name == "longrope" else f"{own} {ratio} | {wins} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
