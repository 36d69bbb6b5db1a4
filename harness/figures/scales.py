"""Axes of tokens and of values: scale, ticks, limits."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from harness.errors import UserError
from harness.statistics.lines import tokens

LOG_RANGE = 3.0  # largest over smallest value from which a value axis is logarithmic
AXES = {"ctx": "context length (tokens)", "position": "position in the window (tokens before)"}


def length_axis(ax: Axes, values: pd.Series, name: str) -> None:
    """Base-2 axis of tokens with ticks at powers of two: 512, 1k, 2k."""
    values = values.astype(float)
    if not (values > 0).all():
        raise UserError(f"{name} must be a positive number to be an axis, got {values.min():g}.")
    ax.set_xscale("log", base=2)
    low, high = np.log2(values.min()), np.log2(values.max())
    step = max(1, int(np.ceil((high - low) / 9)))
    ticks = 2.0 ** np.arange(np.ceil(low - 1e-9), np.floor(high + 1e-9) + 1, step)
    ax.xaxis.set_major_locator(FixedLocator(list(ticks) if len(ticks) > 1 else sorted(set(values))))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tokens(value)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel(AXES.get(name, name))


def value_axis(ax: Axes, values: pd.Series, name: str, log: bool = True) -> None:
    """Logarithmic, if `log`, where the values span more than LOG_RANGE, with plain numbers either way."""
    finite = values[np.isfinite(values)].astype(float)
    if log and finite.min() > 0 and finite.max() / finite.min() > LOG_RANGE:
        ax.set_yscale("log")
        decades = np.log10(finite.max() / finite.min())
        ax.yaxis.set_major_locator(LogLocator(subs=_subdivisions(decades)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    if ax.get_subplotspec() is None or ax.get_subplotspec().is_first_col():  # type: ignore[union-attr]
        ax.set_ylabel(name)


def frame(ax: Axes, values: pd.Series, low: pd.Series, high: pd.Series) -> None:
    """Limits of the value axis that show all values, and bands as far as they leave the values room.

    A band reaches beyond the values by at most their span; wider ones leave the frame.
    """
    log = ax.get_yscale() == "log"
    places, below, above = (np.log(one) if log else one for one in (values, low.clip(lower=1e-300), high))
    span = max(places.max() - places.min(), 0.02 * abs(places).max()) or 1.0  # all zero
    bottom = np.nanmax([places.min() - span, np.nanmin([below.min(), places.min()])])
    top = np.nanmin([places.max() + span, np.nanmax([above.max(), places.max()])])
    top = top if top > bottom else bottom + span  # all are one value
    margin = 0.04 * (top - bottom)
    limits = (bottom - margin, top + margin)
    below_zero = min(values.min(), low.min()) < 0  # differences may lie there; all else ends at zero
    ax.set_ylim(*(np.exp(limits) if log else limits if below_zero else (max(0.0, limits[0]), limits[1])))


def _subdivisions(decades: float) -> tuple[float, ...]:
    """Where between powers of ten the labelled ticks stand."""
    return (1, 2, 3, 4, 5, 6, 8) if decades < 1.2 else (1, 2, 5) if decades < 3 else (1,)
