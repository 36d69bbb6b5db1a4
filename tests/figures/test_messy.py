"""Figures of a directory that holds many selections: titles keep apart, points alone are text."""

import itertools
import json

import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from harness.figures.curves import perplexity
from harness.figures.heatmap import heatmap
from harness.statistics.summary import summarize
from tests import synthetic


def selection(number: int, lengths: tuple[int, ...], methods: tuple[str, ...] = ("none", "yarn")) -> pd.DataFrame:
    """Cells of a data set of `number` documents whose settings take many words."""
    settings = {
        "num_documents": 5 + number,
        "max_tokens": 131072 + number,
        "selection": f"drawn in the way of {number}",
    }
    columns = {"dataset_fingerprint": f"hash{number}", "dataset_params": json.dumps(settings)}
    return pd.concat(
        synthetic.cell(method, ctx, 5 + number).assign(**columns, protocol=f"a_protocol_with_a_long_name_{number}")
        for method in methods
        for ctx in lengths
    )


def messy() -> pd.DataFrame:
    parts = [selection(number, (256, 512, 1024)) for number in range(5)] + [selection(5, (512,), ("yarn",))]
    return summarize(pd.concat(parts))


def boxes(figure: Figure) -> list:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return [ax.title.get_window_extent(canvas.get_renderer()) for ax in figure.axes]


@pytest.mark.parametrize("draw", [perplexity, heatmap])
def test_titles_neither_overlap_nor_leave_the_figure(draw) -> None:
    figure = draw(messy())
    found = boxes(figure)
    assert len(found) == 5
    assert not any(one.overlaps(other) for one, other in itertools.combinations(found, 2))
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 for box in found)


@pytest.mark.parametrize("draw", [perplexity, heatmap])
def test_a_panel_of_one_point_is_a_line_of_text(draw) -> None:
    figure = draw(messy())
    text = figure.get_supxlabel()
    assert "10 documents" in text
    assert "ctx 512: yarn 2" in text.replace("\n", " ")


def test_points_alone_are_drawn_where_there_is_nothing_else() -> None:
    figure = perplexity(summarize(selection(0, (512,))))
    assert len(figure.axes) == 1
    assert figure.get_supxlabel() == ""


def test_no_hash_is_shown() -> None:
    figure = perplexity(messy())
    assert not any("hash" in ax.get_title() for ax in figure.axes)
