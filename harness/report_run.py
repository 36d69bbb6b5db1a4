"""What a run says at its end: one table, one figure, where both lie, and what failed."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from harness import statistics, store
from harness.runner import Outcome, describe


def report(outcomes: Sequence[Outcome]) -> None:
    """Print the table of all finished cells, draw their curves where there is more than one length, list failures."""
    done = [o for o in outcomes if o.status != "failed"]
    if done:
        rows = pd.concat([store.load_results(o.file) for o in done], ignore_index=True)
        summary = statistics.summarize(rows)
        print(statistics.table(summary))
        print()
        computed = sum(o.status == "computed" for o in done)
        print(f"{len(done)} cells: {computed} computed, {len(done) - computed} found finished")
        for place in sorted({str(_short(o.cell.config.results_dir)) for o in done}):
            print(f"results  {place}/")
        for figure in _figures(summary, done):
            print(f"figure   {_short(figure)}")
    for failed in (o for o in outcomes if o.status == "failed"):
        print(f"FAILED   {describe(failed.cell)}: {failed.message}")


def _figures(summary: pd.DataFrame, done: Sequence[Outcome]) -> list[Path]:
    if summary["ctx"].nunique() < 2:
        return []
    from harness import figures

    config = done[0].cell.config
    name = config.experiment or "-".join([config.model.name, config.data.name, config.protocol.name])
    return figures.save(figures.perplexity(summary), config.plots_dir / name)


def _short(path: Path) -> Path:
    """Relative to where the user stands, if below it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
