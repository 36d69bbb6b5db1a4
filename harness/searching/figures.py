"""The two figures of a search; they draw, and compute nothing."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from harness import drawing

FOUND = "searched"


def progress(individuals: pd.DataFrame, methods: Mapping[str, float], title: str) -> Figure:
    """Best perplexity on the search set against evaluations, the seeds' methods as horizontal lines.

    individuals: of `result.table`; methods: perplexity by name. Methods beyond the frame are named at its top.
    """
    figure, (ax,), width = drawing.canvas([0], [FOUND, *methods])
    look = drawing.looks(pd.Series([FOUND, *methods]))
    every = individuals["perplexity"].clip(upper=2 * individuals["best_perplexity"].min())
    ax.plot(individuals["evaluation"], every, ".", color="#bbbbbb", markersize=2.5, label="_individuals", zorder=1)
    ax.plot(
        individuals["evaluation"], individuals["best_perplexity"], label=FOUND, linewidth=1.8,
        markevery=max(1, len(individuals) // 12), **look[FOUND],
    )  # fmt: skip
    for name, perplexity in methods.items():
        ends = [1, len(individuals)]
        ax.plot(ends, [perplexity] * 2, label=f"{name} {perplexity:.2f}", linewidth=1.4, **look[name])
    _frame(ax, individuals, methods)
    ax.set_xlabel("evaluations")
    ax.set_ylabel("perplexity on the search set")
    drawing.titles(figure, width, title, "grey: every individual")
    drawing.legend(figure, [ax])
    return figure


def _frame(ax: "matplotlib.axes.Axes", individuals: pd.DataFrame, methods: Mapping[str, float]) -> None:
    """From below the best individual to above the best method; others are named in the legend alone."""
    low = individuals["best_perplexity"].min()
    high = max(min(methods.values()), individuals["best_perplexity"].iloc[0])
    room = max(high - low, 0.01 * low)
    ax.set_ylim(low - 0.15 * room, high + 0.5 * room)


def factors(found: Sequence[float], seeds: Mapping[str, Sequence[float]], title: str) -> Figure:
    """Rescale factor against dimension, of what was found and of the seeds."""
    curves = {FOUND: found, **seeds}
    figure, (ax,), width = drawing.canvas([0], list(curves))
    look = drawing.looks(pd.Series(list(curves)))
    dimensions = 2 * np.arange(len(found))
    for place, (name, values) in enumerate(curves.items()):
        ax.plot(dimensions, values, label=name, linewidth=1.6, markevery=(place % 4, 4), **look[name])
    ax.set_xlabel("dimension")
    ax.set_ylabel("rescale factor (wavelength / unscaled wavelength)")
    drawing.titles(figure, width, title)
    drawing.legend(figure, [ax])
    return figure
