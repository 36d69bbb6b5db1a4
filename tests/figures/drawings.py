"""What tests of figures look at."""

from matplotlib.figure import Figure
from matplotlib.lines import Line2D


def drawn(figure: Figure) -> Figure:
    """The figure once everything has found its place."""
    figure.draw_without_rendering()
    return figure


def marked(figure: Figure) -> list[Line2D]:
    """The lines with markers: those that show data."""
    return [line for ax in figure.axes for line in ax.get_lines() if line.get_marker() != "None"]
