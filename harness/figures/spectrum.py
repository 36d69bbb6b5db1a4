"""The spectrum figure: wavelength against dimension, one line a method."""

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from harness.figures import canvas
from harness.methods import RopeGeometry
from harness.scaling_laws import bounds
from harness.statistics.lines import tokens


def draw(table: pd.DataFrame, geometry: RopeGeometry, ctx: int) -> Figure:
    """Wavelength, and how far it is stretched, against dimension: one line a method.

    table: of `bounds.spectrum`. Trained and target length are marked, and the first dimension that completed no turn
    in training.
    """
    with matplotlib.rc_context(canvas.STYLE):
        figure = Figure(figsize=(11.6, 5.0), layout="constrained")
        waves, stretch = figure.subplots(1, 2)
        for ax, column in ((waves, "wavelength"), (stretch, "stretch")):
            _lines(ax, table, column)
        waves.set_ylabel("wavelength (tokens)")
        waves.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tokens(value)))
        stretch.set_ylabel("wavelength / unscaled wavelength")
        stretch.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        _mark_lengths(waves, geometry.original_max_position_embeddings, ctx)
        _mark_critical(waves, stretch, geometry)
        figure.suptitle(f"rotary_dim {geometry.rotary_dim}, rope_theta {geometry.rope_theta:g}", fontsize=11.5)
        figure.legend(*waves.get_legend_handles_labels(), loc="outside right upper", handlelength=3.2)
    return figure


def _lines(ax: Axes, table: pd.DataFrame, column: str) -> None:
    """One line a method."""
    looks = canvas.looks(table["method"])
    for place, (name, rows) in enumerate(table.groupby("method", sort=False)):
        ax.plot(
            rows["dimension"], rows[column], label=str(name), linewidth=1.5, markersize=5,
            markevery=(place % 8, 8), **looks[str(name)],
        )  # fmt: skip
    ax.set_yscale("log", base=2)
    ax.set_xlabel("dimension")


def _mark_lengths(ax: Axes, trained: int, ctx: int) -> None:
    marks = {trained: "trained at", ctx: "asked for"} if ctx != trained else {trained: "trained at, asked for"}
    for length, words in marks.items():
        ax.axhline(length, color="#555555", linewidth=1.0, linestyle=(0, (2, 2)), zorder=1)
        ax.annotate(f"{words} {tokens(length)}", (0, length), xytext=(0, 2), textcoords="offset points",
                    fontsize=9, color="#555555")  # fmt: skip


def _mark_critical(waves: Axes, stretch: Axes, geometry: RopeGeometry) -> None:
    critical = bounds.critical_dimension(geometry.inv_freq, geometry.original_max_position_embeddings)
    for ax in (waves, stretch):
        ax.axvline(critical, color="#555555", linewidth=1.0, linestyle=(0, (5, 2)), zorder=1)
    waves.annotate(
        f"critical dimension {critical}", (critical, 0), xycoords=("data", "axes fraction"),
        xytext=(-3, 4), textcoords="offset points", rotation=90, ha="right", fontsize=9, color="#555555",
    )  # fmt: skip
