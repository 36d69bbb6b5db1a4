"""The two figures of a search; they draw, and compute nothing."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from harness.figures import canvas, scales

FOUND = "searched"


def progress(individuals: pd.DataFrame, methods: Mapping[str, float], title: str) -> Figure:
    """Best perplexity on the search set against evaluations, the seeds' methods as horizontal lines: all, and the end.

    individuals: of `result.table`; methods: perplexity by name. The right panel is framed by the best individual and
    the best of the methods; grey points are all individuals, where the frame holds them.
    """
    labels = {name: f"{name} {perplexity:.2f}" for name, perplexity in methods.items()}
    figure, axes, width = canvas.empty([0, 1], [FOUND, *labels.values()], share=False)
    look = canvas.looks(pd.Series([FOUND, *methods]))
    for ax in axes:
        ax.plot(
            individuals["evaluation"], individuals["perplexity"], ".", color="#bbbbbb", markersize=2.5,
            label="_individuals", zorder=1,
        )  # fmt: skip
        ax.plot(
            individuals["evaluation"], individuals["best_perplexity"], label=FOUND, linewidth=1.8,
            markevery=max(1, len(individuals) // 12), **look[FOUND],
        )  # fmt: skip
        for name, perplexity in methods.items():
            ax.plot([1, len(individuals)], [perplexity] * 2, label=labels[name], linewidth=1.4, **look[name])
        ax.set_xlabel("evaluations")
    low, first = individuals["best_perplexity"].min(), individuals["best_perplexity"].iloc[0]
    scales.value_axis(axes[0], pd.Series([low, first, *methods.values()]), "perplexity on the search set")
    axes[0].set_ylim(low / 1.1, 1.1 * max(first, *methods.values()))
    room = max(min(methods.values()) - low, 0.005 * low)
    axes[1].set_ylim(low - 0.2 * room, low + 1.6 * room)
    canvas.titles(figure, width, title)
    canvas.legend(figure, axes[:1])
    return figure


def factors(found: Sequence[float], seeds: Mapping[str, Sequence[float]], title: str) -> Figure:
    """Rescale factor against dimension, of what was found and of the seeds."""
    curves = {FOUND: found, **seeds}
    figure, (ax,), width = canvas.empty([0], list(curves))
    look = canvas.looks(pd.Series(list(curves)))
    dimensions = 2 * np.arange(len(found))
    for place, (name, values) in enumerate(curves.items()):
        ax.plot(dimensions, values, label=name, linewidth=1.6, markevery=(place % 4, 4), **look[name])
    ax.set_xlabel("dimension")
    ax.set_ylabel("rescale factor (wavelength / unscaled wavelength)")
    canvas.titles(figure, width, title)
    canvas.legend(figure, [ax])
    return figure
