"""Panels of one point, folded into lines of text below the others: a point alone needs no axes."""

import textwrap
from collections.abc import Sequence

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from harness.figures.canvas import CHARACTER, STYLE
from harness.statistics.lines import tokens
from harness.statistics.text import number

Panel = tuple[str, pd.DataFrame]  # title, rows


def fold(parts: Sequence[Panel], columns: Sequence[str]) -> tuple[list[Panel], list[Panel]]:
    """Panels to draw, and panels of one point, in whose rows none of `columns` varies; where all are, all are drawn."""
    points = [all(rows[name].nunique() < 2 for name in columns) for _, rows in parts]
    if all(points):
        return list(parts), []
    drawn, folded = (
        [p for p, is_point in zip(parts, points, strict=True) if is_point is kind] for kind in (False, True)
    )
    return drawn, folded


def below(
    figure: Figure, folded: Sequence[Panel], width: float, x: str, hue: str, y: str, notes: Sequence[str] = ()
) -> None:
    """The folded panels as text under all axes, then `notes`, wrapped to `width` in inches."""
    said = [*(_told(title, rows, x, hue, y) for title, rows in folded), *notes]
    told = [line for text in said for line in textwrap.wrap(text, int(width / CHARACTER))]
    if told:
        with matplotlib.rc_context(STYLE):
            figure.supxlabel("\n".join(told), x=0.01, ha="left", fontsize=10)


def _told(title: str, rows: pd.DataFrame, x: str, hue: str, y: str) -> str:
    place = rows[x].iloc[0]
    where = f"{x} {tokens(place) if isinstance(place, int | float) else place}"
    values = [
        _value(str(row[hue]), row[y], row["low"], row["high"]) for row in rows.sort_values(hue).to_dict("records")
    ]
    return f"{title}, {where}: {'; '.join(values)}"


def _value(name: str, value: float, low: float, high: float) -> str:
    limits = "" if pd.isna(low) else f" [{number(low)}, {number(high)}]"
    return f"{name} {number(value)}{limits}"
