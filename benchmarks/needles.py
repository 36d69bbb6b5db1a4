"""The full grid of needles for one method in one call: 6 lengths x 9 depths x 20 repeats x right and wrong number.

    python benchmarks/needles.py OUT [--method yarn] [--model reference] [--ctx 512,1024,2048,4096,8192,16384]

2160 documents, 11.6 million tokens, of which the answers alone have logits. Prints seconds and tokens a second of every
length, seconds of the whole command (model, texts and writing included), gain and accuracy; OUT holds the rows
(OUT/results) and the heat maps (OUT/plots). The same call again measures nothing: finished cells are found.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from harness.results import store
from harness.statistics.decision import Terms, decide
from harness.statistics.formats import decision_text
from harness.statistics.metric import PLAIN
from harness.statistics.needles import OF_NEEDLES

LENGTHS = "512,1024,2048,4096,8192,16384"


def main() -> None:
    options = parser().parse_args()
    results, plots = options.out / "results", options.out / "plots"
    places = [f"results_dir={results}", f"plots_dir={plots}"]
    grid = [f"model={options.model}", f"method={options.method}", "data=needles", "protocol=targets"]
    started = time.monotonic()
    run("harness", "-m", *grid, f"ctx={options.ctx}", *places)
    whole = time.monotonic() - started
    rows = store.load_results(results)
    for file in store.tables_under(results):
        made = store.provenance(file)
        print(f"{file.name}: {made['tokens']} tokens in {made['seconds']:.1f} s on {made['device']}")
    print(f"{len(rows)} documents, {rows['end'].sum() - rows['begin'].sum()} tokens; the command took {whole:.0f} s\n")
    for metric in OF_NEEDLES:
        print(decision_text(decide(metric.rows(lambda table: rows, PLAIN), Terms(metric=metric))) + "\n")
        run("harness.plot", "figure=needles", f"metric={metric.name}", *places)


def run(module: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", module, *arguments], check=True)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    made.add_argument("out", type=Path)
    made.add_argument("--method", default="yarn")
    made.add_argument("--model", default="reference")
    made.add_argument("--ctx", default=LENGTHS)
    return made


if __name__ == "__main__":
    main()
