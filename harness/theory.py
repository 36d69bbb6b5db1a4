"""``python -m harness.theory``: the methods, and where theory says that they break on a model."""

from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from omegaconf import DictConfig

from harness import cli, curves, figures
from harness.errors import UserError, unknown
from harness.methods import METHODS, RopeGeometry, bounds
from harness.models.spec import ModelSpec


def main() -> None:
    """Print the table of methods; with a model and a length, its bounds, and draw the spectrum."""
    cli.run_app(_task, "theory")


def _task(composed: DictConfig) -> None:
    from harness.config import plain

    values = plain(composed)
    names = _names(values["methods"])
    if values.get("model") is None and values["ctx"] is None:
        table = bounds.methods_table()
        print(table[table["method"].isin(names)].to_string(index=False, justify="left"))
        return
    if values.get("model") is None or values["ctx"] is None:
        raise UserError("theory: give both model=... and ctx=..., or neither for the table of methods.")
    ctx = values["ctx"]
    if type(ctx) is not int or ctx < 2:
        raise UserError(f"ctx must be an integer >= 2 (tokens), got {ctx!r}.")
    geometry = _geometry(ModelSpec(**values["model"]))
    print(report(geometry, ctx, names, values["params"]))
    table = bounds.spectrum(geometry, ctx, names, values["params"])
    for path in figures.save(spectrum(table, geometry, ctx), Path(values["plots_dir"]) / "spectrum"):
        print(path)


def _names(given: Any) -> list[str]:
    names = list(METHODS) if given is None else [str(name) for name in given]
    for name in names:
        if name not in METHODS:
            raise unknown("method", name, METHODS)
    return names


def _geometry(spec: ModelSpec) -> RopeGeometry:
    from harness.models import load  # imports torch

    geometry = load.load_geometry(spec)
    if geometry is None:
        raise UserError(f"model {spec.name} has no rotary embedding: the theory has nothing to say of it.")
    return geometry


def report(geometry: RopeGeometry, ctx: int, names: list[str], params: dict[str, Any]) -> str:
    """What the theory says of a model in words, then of each method in a table; lengths in tokens."""
    trained = geometry.original_max_position_embeddings
    critical = bounds.critical_dimension(geometry.inv_freq, trained)
    small = bounds.small_bases(ctx)
    lines = [
        f"rotary_dim {geometry.rotary_dim}, rope_theta {geometry.rope_theta:g}, trained at {trained}, asked for {ctx}",
        f"critical dimension {critical}: {geometry.rotary_dim - critical} channels never complete a turn in training",
        f"fine-tuned at {ctx}: bases above {bounds.critical_base(geometry, ctx):.0f} extrapolate beyond it, "
        f"and small ones: {small.quarter:.0f}, {small.half:.0f}, {small.whole:.0f} (arXiv:2310.05209)",
    ]
    table = bounds.table(geometry, ctx, names, params)
    return "\n".join([*lines, "", table.to_string(index=False, formatters=_FORMATS, na_rep="", justify="left")])


def _whole(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.0f}"


_FORMATS: Any = {
    "factor": lambda value: "" if pd.isna(value) else f"{value:g}",
    "tuned_dimension": _whole,
    "extrapolation_bound": _whole,
    "trained_range_bound": _whole,
    "note": str,
}


def spectrum(table: pd.DataFrame, geometry: RopeGeometry, ctx: int) -> Figure:
    """Wavelength, and how far it is stretched, against dimension: one line a method.

    table: of `bounds.spectrum`. Trained and target length are marked, and the first dimension that completed no turn
    in training.
    """
    with matplotlib.rc_context(figures.STYLE):
        figure = Figure(figsize=(11.6, 4.8), layout="constrained")
        tokens, stretch = figure.subplots(1, 2)
        for place, (name, rows) in enumerate(table.groupby("method", sort=False)):
            look: dict[str, Any] = {
                "color": figures.COLOURS[place % len(figures.COLOURS)],
                "linestyle": figures.DASHES[place % len(figures.DASHES)],
                "marker": figures.MARKERS[place % len(figures.MARKERS)],
                "markevery": (place % 8, 8),
            }
            for ax, column in ((tokens, "wavelength"), (stretch, "stretch")):
                ax.plot(rows["dimension"], rows[column], label=str(name), linewidth=1.5, markersize=5, **look)
        _mark_lengths(tokens, geometry.original_max_position_embeddings, ctx)
        _mark_critical([tokens, stretch], geometry)
        tokens.set_yscale("log", base=2)
        tokens.yaxis.set_major_formatter(FuncFormatter(lambda value, _: curves.tokens(value)))
        tokens.set_ylabel("wavelength (tokens)")
        stretch.set_yscale("log", base=2)
        stretch.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        stretch.set_ylabel("wavelength / unscaled wavelength")
        for ax in (tokens, stretch):
            ax.set_xlabel("dimension")
        figure.legend(*tokens.get_legend_handles_labels(), loc="outside right upper", handlelength=3.2)
    return figure


def _mark_lengths(ax: Axes, trained: int, ctx: int) -> None:
    marks = {trained: "trained at", ctx: "asked for"} if ctx != trained else {trained: "trained at, asked for"}
    for length, words in marks.items():
        ax.axhline(length, color="#555555", linewidth=1.0, linestyle=(0, (2, 2)), zorder=1)
        ax.annotate(f"{words} {curves.tokens(length)}", (0, length), xytext=(0, 2), textcoords="offset points",
                    fontsize=9, color="#555555")  # fmt: skip


def _mark_critical(axes: list[Axes], geometry: RopeGeometry) -> None:
    critical = bounds.critical_dimension(geometry.inv_freq, geometry.original_max_position_embeddings)
    for ax in axes:
        ax.axvline(critical, color="#555555", linewidth=1.0, linestyle=(0, (5, 2)), zorder=1)
        ax.annotate(f"critical dimension {critical}", (critical, 0), xycoords=("data", "axes fraction"),
                    xytext=(-3, 4), textcoords="offset points", rotation=90, ha="right", fontsize=9,
                    color="#555555")  # fmt: skip


if __name__ == "__main__":
    from harness.theory import main as imported  # nothing that Hydra looks up may live in __main__

    imported()
