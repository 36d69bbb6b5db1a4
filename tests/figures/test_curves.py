import matplotlib.colors
import numpy as np
import pandas as pd
import pytest

from harness.figures import curves
from harness.statistics.paired import paired
from harness.statistics.summary import loss_by_position, summarize
from tests import synthetic
from tests.figures.drawings import drawn, marked


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return synthetic.sweep()


@pytest.fixture(scope="module")
def summary(rows: pd.DataFrame) -> pd.DataFrame:
    return summarize(rows)


def test_perplexity_draws_the_table(summary: pd.DataFrame) -> None:
    figure = drawn(curves.perplexity(summary))
    (ax,) = figure.axes
    for line in marked(figure):
        own = summary[summary["method"] == line.get_label()].sort_values("ctx")
        np.testing.assert_array_equal(line.get_xdata(), own["ctx"])
        np.testing.assert_array_equal(line.get_ydata(), own["perplexity"])
    assert [text.get_text() for text in ax.get_xticklabels()] == ["256", "512", "1k", "2k", "4k"]
    assert ax.get_yscale() == "log"
    assert "trained at 512" in [text.get_text() for text in ax.texts]
    assert figure.get_suptitle().startswith("reference, sotu, sliding, stride 256")
    assert "8 documents" in figure.get_suptitle()


def test_every_line_differs_in_colour_marker_and_dash_and_in_grey(summary: pd.DataFrame) -> None:
    lines = marked(curves.perplexity(summary))
    assert len(lines) == 4
    for look in (lambda line: line.get_color(), lambda line: line.get_marker()):
        assert len({look(line) for line in lines}) == 4
    assert len({str(line._unscaled_dash_pattern) for line in lines}) == 4
    grey = sorted(matplotlib.colors.to_rgb(line.get_color()) @ np.array([0.299, 0.587, 0.114]) for line in lines)
    assert min(np.diff(grey)) > 0.02


def test_legend_covers_no_axes_and_stands_in_the_order_of_the_ends(summary: pd.DataFrame) -> None:
    figure = drawn(curves.perplexity(summary))
    box = figure.legends[0].get_window_extent()
    assert not any(box.overlaps(ax.get_tightbbox()) for ax in figure.axes)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["none", "linear", "ntk", "yarn"]


def test_frame_shows_every_value_and_bands_as_far_as_there_is_room(summary: pd.DataFrame) -> None:
    bottom, top = curves.perplexity(summary).axes[0].get_ylim()
    assert bottom < summary["low"].min()
    assert top > summary["high"].max()
    wild = summary.assign(low=0.0, high=np.inf)
    bottom, top = curves.perplexity(wild).axes[0].get_ylim()
    span = summary["perplexity"].max() / summary["perplexity"].min()
    assert summary["perplexity"].min() / span**1.3 < bottom < summary["perplexity"].min() / span**0.9
    assert summary["perplexity"].max() * span**0.9 < top < summary["perplexity"].max() * span**1.3
    few = curves.perplexity(summary.assign(low=np.nan, high=np.nan)).axes[0].get_ylim()
    assert few[0] < summary["perplexity"].min() < summary["perplexity"].max() < few[1]


def test_small_range_is_linear(summary: pd.DataFrame) -> None:
    figure = curves.perplexity(summary[summary["method"] == "yarn"])
    assert figure.axes[0].get_yscale() == "linear"


def test_two_models_are_two_panels(rows: pd.DataFrame) -> None:
    other = rows.assign(model="other", cell_id=rows["cell_id"] + "-other")
    figure = drawn(curves.perplexity(summarize(pd.concat([rows, other]))))
    assert [ax.get_title() for ax in figure.axes] == ["other", "reference"]


def test_few_documents_are_drawn_without_bands_and_said(rows: pd.DataFrame) -> None:
    figure = curves.perplexity(summarize(rows[rows["document_index"] < 3]))
    assert "3 documents, too few for intervals" in figure.get_suptitle()


def test_ratio_draws_the_paired_table(rows: pd.DataFrame) -> None:
    pairs = paired(rows)
    figure = drawn(curves.ratio(pairs))
    assert figure.axes[0].get_ylabel() == "perplexity / perplexity of none"
    for line in marked(figure):
        own = pairs[pairs["curve"] == line.get_label()].sort_values("ctx")
        np.testing.assert_array_equal(line.get_ydata(), own["ratio"])
    assert len(marked(figure)) == 3


def test_position_has_a_panel_a_length(rows: pd.DataFrame) -> None:
    losses = loss_by_position(synthetic.positions(rows[rows["ctx"].isin((512, 4096))]))
    figure = drawn(curves.position(losses))
    assert [ax.get_title() for ax in figure.axes] == ["ctx 512", "ctx 4k"]
    assert figure.axes[0].get_ylabel() == "loss (nats a token)"
    assert figure.axes[0].get_yscale() == "linear"
    assert len(marked(figure)) == 8
