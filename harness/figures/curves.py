"""Figures from tables of numbers: they draw, and compute nothing."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from harness.errors import UserError, unknown
from harness.figures import canvas as drawing
from harness.statistics import lines as curves
from harness.storage.files import storage

FORMATS = ("svg", "png", "pdf")
SHARED = ["model", "dataset", "protocol", "protocol_params"]  # what a title names


def perplexity(
    summary: pd.DataFrame,
    x: str = "ctx",
    hue: str = "curve",
    columns: Sequence[str] | None = None,
    under: pd.DataFrame | None = None,
) -> Figure:
    """Perplexity against context length (or another column), one line a method, interval bands.

    summary: the table of `statistics.summarize`, one line a cell. under: published rows (`published.comparable`) to lie
    under the measured lines, drawn thin and grey.
    """
    return _curves(_labelled(summary), x, hue, columns, "perplexity", "perplexity", under)


def ratio(pairs: pd.DataFrame, x: str = "ctx", hue: str = "curve", columns: Sequence[str] | None = None) -> Figure:
    """Perplexity over that of a baseline on the same documents, paired intervals; below 1 is better.

    pairs: the table of `contrasts.paired`.
    """
    name = f"perplexity / perplexity of {pairs['baseline'].iloc[0]}"
    figure = _curves(_labelled(pairs), x, hue, columns, "ratio", name)
    for ax in figure.axes:
        ax.axhline(1.0, color="black", linewidth=1.0, zorder=1)
    return figure


def position(losses: pd.DataFrame, hue: str = "curve", columns: Sequence[str] | None = None) -> Figure:
    """Loss against the position in the window, one line a method, one panel a context length.

    losses: the table of `statistics.loss_by_position`.
    """
    table = _labelled(losses)
    if columns is None:
        columns = [name for name in [*curves.PANEL, "ctx", "curve"] if name != hue and table[name].nunique() > 1]
    return _curves(table, "position", hue, columns, "nll", "loss (nats a token)")


def heatmap(summary: pd.DataFrame, hue: str = "curve", columns: Sequence[str] | None = None) -> Figure:
    """Perplexity as a grid of methods down and context lengths across, each number printed on its shade.

    summary: the table of `statistics.summarize`, one line a cell.
    """
    table = _labelled(summary)
    panels = curves.panels(table, "ctx", hue, columns)
    figure, axes, width = drawing.canvas(panels, share=False)
    logs = np.log(table["perplexity"].astype(float))
    scale = Normalize(logs.min(), max(logs.max(), logs.min() + 1e-6))
    for ax, (title, rows) in zip(axes, panels, strict=True):
        _grid(ax, rows.pivot(index=hue, columns="ctx", values="perplexity"), scale)
        ax.set_title(title)
    drawing.titles(figure, width, curves.describe(table, SHARED), _how(table, intervals=False))
    return figure


def before_after(cells: pd.DataFrame, tolerance: float) -> Figure:
    """Change of perplexity from before to after in per cent, one row a cell; the shaded band is the tolerance.

    cells: the table of `comparison.compare`.
    """
    figure, (ax,), width = drawing.canvas([0])
    figure.set_figheight(1.5 + 0.3 * len(cells))
    places = np.arange(len(cells))[::-1]
    change = 100 * (cells[["ratio", "low", "high"]] - 1)
    known = cells["low"].notna().to_numpy()
    ax.hlines(places[known], change["low"][known], change["high"][known], color="#555555", linewidth=1.4)
    for verdict, (marker, colour) in _VERDICTS.items():
        mine = (cells["verdict"] == verdict).to_numpy()
        ax.plot(change["ratio"][mine], places[mine], marker=marker, color=colour, linestyle="none", label=verdict)
    ax.axvline(0.0, color="black", linewidth=1.0, zorder=1)
    ax.axvspan(-100 * tolerance, 100 * tolerance, color="#dddddd", zorder=0)
    ax.set_yticks(places, [f"{cell['curve']}, {curves.tokens(cell['ctx'])}" for cell in cells.to_dict("records")])
    ax.set_xlabel("change of perplexity (%)")
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+.6g}" if value else "0"))
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.9 / figure.get_figheight()), ncols=4, frameon=False)
    shared = curves.describe(cells, ["model", "dataset", "protocol"])
    drawing.titles(figure, width, shared, f"tolerance {100 * tolerance:g} %")
    return figure


_VERDICTS = {
    "same": ("o", "#999999"),
    "better": ("v", "#0072B2"),
    "worse": ("^", "#D55E00"),
    "different": ("X", "#000000"),
}


def published(rows: pd.DataFrame) -> Figure:
    """A paper's numbers alone, one panel a table and data set, framed so that broken-down lines leave at the top.

    rows: the table of `published.select`. Hollow triangles stand where a paper printed only a bound.
    """
    places = ["table", "dataset", "documents"]
    varying = [name for name in places if rows[name].nunique() > 1]
    panels = list(rows.groupby(varying, sort=True)) if varying else [((), rows)]
    figure, axes, width = drawing.canvas(panels, list(rows["curve"].unique()), share=False)
    look = drawing.looks(rows["curve"])
    for ax, (_, panel) in zip(axes, panels, strict=True):
        drawing.printed_lines(ax, panel, look)
        drawing.length_axis(ax, panel["ctx"], "ctx")
        framed = panel.loc[panel["value"] <= _frame(panel), "value"]
        drawing.value_axis(ax, framed, "perplexity")
        ax.set_ylim(framed.min() / 1.05, framed.max() * 1.05)
        drawing.printed_bounds(ax, panel, look)
        ax.set_title(curves.describe(panel, varying))
    drawing.legend(figure, axes, by_name=len(axes) > 1)  # lines end in another order in every panel
    shared = curves.describe(rows, [name for name in places if name not in varying])
    drawing.titles(figure, width, _source(rows), shared, _measure(rows))
    return figure


def _frame(rows: pd.DataFrame) -> float:
    """The highest perplexity to show: a quarter above the highest that a line starts with."""
    values = rows[rows["qualifier"] == "eq"].sort_values("ctx")
    return 1.25 * float(values.groupby("curve_id")["value"].first().max())


def _source(rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    return f"{first['paper']} (arXiv:{first['arxiv_id']}), as printed" if first["arxiv_id"] else f"{first['paper']}"


def _measure(rows: pd.DataFrame) -> str:
    measure = curves.describe(rows, ["protocol_class"]).replace("_", " ")
    bounds = "triangles: printed only as above some value" if (rows["qualifier"] == "gt").any() else ""
    return "; ".join(part for part in (measure, bounds) if part)


def check_formats(formats: Sequence[str]) -> None:
    """Raise UserError for a file format that figures are not written in."""
    for name in formats:
        if name not in FORMATS:
            raise unknown("figure format", str(name), FORMATS)


def save(figure: Figure, stem: Path, formats: Sequence[str] = ("svg", "png")) -> list[Path]:
    """Write `stem`.svg, `stem`.png, ...; the same figure always gives the same bytes. Returns the paths.

    Raises StorageError where the folder cannot be written.
    """
    check_formats(formats)
    paths = [stem.with_name(f"{stem.name}.{name}") for name in formats]
    stamp = {"svg": {"Date": None}, "png": {}, "pdf": {"CreationDate": None}}
    with storage(stem.parent, "figures"), matplotlib.rc_context(drawing.STYLE):
        stem.parent.mkdir(parents=True, exist_ok=True)
        for path, name in zip(paths, formats, strict=True):
            figure.savefig(path, dpi=160, metadata=stamp[name])
    return paths


def _labelled(table: pd.DataFrame) -> pd.DataFrame:
    if table.empty:
        raise UserError("There is nothing to draw: the table is empty.")
    return table if "curve" in table else curves.label(table)


def _curves(
    table: pd.DataFrame,
    x: str,
    hue: str,
    columns: Sequence[str] | None,
    y: str,
    name: str,
    under: pd.DataFrame | None = None,
) -> Figure:
    """Lines of `y` against `x` in panels, with everything that stands around them."""
    panels = curves.panels(table, x, hue, columns)
    labels = [*table[hue].astype(str).unique(), *([] if under is None else under["curve"].unique())]
    figure, axes, width = drawing.canvas(panels, labels)
    look = drawing.looks(table[hue].astype(str))
    for ax, (title, rows) in zip(axes, panels, strict=True):
        if under is not None:
            drawing.printed_lines(ax, under, drawing.looks(under["curve"]), quiet=True)
        drawing.lines(ax, rows, x, hue, look, y)
        drawing.length_axis(ax, rows[x] if under is None else pd.concat([rows[x], under["ctx"]]), x)
        values = table[y] if under is None else pd.concat([table[y], under.loc[under["qualifier"] == "eq", "value"]])
        drawing.value_axis(ax, values, name, log=y != "nll")  # a loss is a logarithm already
        drawing.frame(ax, values, table["low"], table["high"])
        if x in ("ctx", "position"):
            drawing.trained_length(ax, rows, x, hue, y)
        ax.set_title(title)
    drawing.titles(figure, width, curves.describe(table, SHARED), _how(table))
    drawing.legend(figure, axes)
    return figure


def _grid(ax: Axes, wide: pd.DataFrame, scale: Normalize) -> None:
    """One grid of shaded numbers; dark is high, so that it reads in grey."""
    order = sorted(wide.index, key=drawing.first_none)
    values = wide.loc[order].astype(float)
    ax.imshow(np.log(values), cmap=matplotlib.colormaps["cividis_r"], norm=scale, aspect="auto")
    ax.grid(False)
    ax.set_xticks(range(values.shape[1]), [curves.tokens(float(length)) for length in values.columns.to_numpy()])
    ax.set_yticks(range(values.shape[0]), [str(name) for name in order])
    ax.set_xlabel("context length (tokens)")
    for (row, column), value in np.ndenumerate(values.to_numpy()):
        dark = np.isfinite(value) and scale(np.log(value)) > 0.5
        ax.text(
            column, row, curves.number(value), ha="center", va="center", fontsize=9.5,
            color="white" if dark else "black",
        )  # fmt: skip


def _how(table: pd.DataFrame, intervals: bool = True) -> str:
    """`token aggregate, 95 % intervals over 8 documents`, as far as all cells agree."""
    counts = sorted(table["num_documents"].unique())
    documents = f"{counts[0]} documents" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} documents"
    weighting = ", ".join(str(name).replace("_", " ") for name in table["aggregate"].unique())
    sampled = ", sampled windows" if table["sampled"].any() else ""
    if not intervals:
        return f"{weighting} aggregate, {documents}{sampled}"
    if table["low"].isna().all():
        return f"{weighting} aggregate, {documents}, too few for intervals{sampled}"
    return f"{weighting} aggregate, {100 * table['confidence'].iloc[0]:g} % intervals over {documents}{sampled}"
