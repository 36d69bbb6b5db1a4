"""What a run says at its end: one table, one figure, where both lie, and what failed."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import pandas as pd

from harness.cells.files import Outcome
from harness.config.schema import Config
from harness.errors import UserError
from harness.results import store
from harness.results.selection import note_last
from harness.statistics.decision import Terms, decide
from harness.statistics.divergence import KL, divergences, token_rows
from harness.statistics.divergence_text import divergence_text
from harness.statistics.format_names import Format, beside
from harness.statistics.formats import formatted
from harness.statistics.long_context import long_context
from harness.statistics.long_context_text import long_context_text
from harness.statistics.metric import PLAIN
from harness.statistics.needles import OF_NEEDLES
from harness.statistics.summary import DEFAULT

DETAILED = 6  # cells of which all statistics of KL are printed at the end of a run


def figure_path(config: Config) -> Path:
    """Where the figure of a run lies, without its ending."""
    name = config.experiment or "-".join([config.model.name, config.data.name, config.protocol.name])
    return config.plots_dir / store.safe(name)


def report(outcomes: Sequence[Outcome], figure: Path, table: Format = "text") -> None:
    """Print the table of all finished cells, draw their curves where there is more than one length, list failures."""
    done = [o for o in outcomes if o.is_done]
    out = beside(table)
    if done:
        rows = _loaded([o.files.windows for o in done], "windows")
        decided, *more = _decided(rows)
        print(formatted(decided, table))
        for one in more:
            print(f"\n{formatted(one, 'text')}", file=out)
        if (used := _use_of_context(done, rows)) is not None:
            print(f"\n{used}", file=out)
        if (apart := _divergences(done)) is not None:
            print(f"\n{apart}", file=out)
        computed = sum(o.status == "computed" for o in done)
        count = f"{len(done)} cell" + "s" * (len(done) > 1)
        print(f"\n{count}: {computed} computed, {len(done) - computed} found finished", file=out)
        for results in sorted({o.files.place.parents[2] for o in done}):
            cells = [o.files.cell_id for o in done if o.files.place.parents[2] == results]
            note_last(results, shlex.join(["python", "-m", "harness", *sys.argv[1:]]), cells)
            print(f"results  {_short(results)}/", file=out)
        for drawn in _figures(decided, figure):
            print(f"figure   {_short(drawn)}", file=out)
    _list_failures([o for o in outcomes if not o.is_done], len(outcomes), out)


def _decided(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Perplexities, and of cells with needles, whose answers alone are scored, gain and accuracy in their place."""
    has_needle = rows["depth"].notna()
    tables = [] if has_needle.all() else [decide(rows[~has_needle])]
    if has_needle.any():
        asked = rows[has_needle]
        tables += [decide(one.rows(lambda table: asked, PLAIN), Terms(metric=one)) for one in OF_NEEDLES]
    return tables


def _loaded(files: list[Path], table: str) -> pd.DataFrame:
    rows = store.load_files(files, table)
    if rows is None:
        raise UserError(f"none of the {len(files)} results files of this run can be read any more.")
    return rows


def _divergences(done: Sequence[Outcome]) -> str | None:
    """Of cells with a base KL by method and length, of few cells all statistics; None where no cell has one."""
    kept = [o for o in done if "kl" in o.files.tables]
    if not kept:
        return None

    def load(table: str) -> pd.DataFrame:
        return _loaded([store.table_file(o.files.place, table) for o in kept], table)

    bins = load("kl")
    if len(kept) > DETAILED:
        return formatted(decide(bins, Terms(metric=KL)), "text")
    return divergence_text(divergences(bins, token_rows(load, bins), DEFAULT), DEFAULT)


def _use_of_context(done: Sequence[Outcome], rows: pd.DataFrame) -> str | None:
    """The table of long contexts, or in a line why there is none; None where nobody asked for it.

    rows: the windows table. Asked for it is by single passes beside sliding windows, both with their tokens.
    """
    kept = [o for o in done if "tokens" in o.files.tables]
    if not kept or not {"single_pass", "sliding"} <= set(rows["protocol"]):
        return None
    tokens, positions = (
        _loaded([store.table_file(o.files.place, table) for o in kept], table) for table in ("tokens", "positions")
    )
    try:
        return long_context_text(long_context(rows, tokens, positions), PLAIN)
    except UserError as error:
        return f"use of context: {error}"


def _figures(summary: pd.DataFrame, figure: Path) -> list[Path]:
    if summary["ctx"].nunique() < 2:
        return []
    from harness.figures import curves, files

    return files.save(curves.perplexity(summary), figure)


def _list_failures(failed: Sequence[Outcome], total: int, out: TextIO) -> None:
    if not failed:
        return
    print(f"\n{len(failed)} of {total} cells have no result:", file=out)
    for outcome in failed:
        print(f"{outcome.status.upper():8} {outcome.files.label}: {outcome.message}", file=out)
        if outcome.status == "failed":
            print(f"         traceback  {_short(outcome.files.log)}", file=out)
        print(f"         again      {outcome.files.command}", file=out)
    print("The same command again computes only what is missing.", file=out)


def _short(path: Path) -> Path:
    """Relative to where the user stands, if below it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
