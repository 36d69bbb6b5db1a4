import itertools
from pathlib import Path

import matplotlib.colors
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from harness import published
from harness.errors import UserError
from harness.figures import canvas, curves
from harness.figures.before_after import changes
from harness.figures.files import save
from harness.figures.heatmap import heatmap
from harness.figures.published import paper
from harness.statistics.before_after import compare
from harness.statistics.paired import paired
from harness.statistics.summary import loss_by_position, summarize
from harness.statistics.text import number
from tests import synthetic


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return synthetic.sweep()


@pytest.fixture(scope="module")
def summary(rows: pd.DataFrame) -> pd.DataFrame:
    return summarize(rows)


def drawn(figure: Figure) -> Figure:
    figure.draw_without_rendering()
    return figure


def marked(figure: Figure) -> list:
    return [line for ax in figure.axes for line in ax.get_lines() if line.get_marker() != "None"]


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


def test_legend_of_several_tables_is_in_the_order_of_names_with_numbers_as_numbers() -> None:
    texts = [text.get_text() for text in paper(published.select("pi")).legends[0].get_texts()]
    sizes = [int(text.removeprefix("LLaMA-").split("B")[0]) for text in texts]
    assert sizes == sorted(sizes)
    assert set(sizes) == {7, 13, 33, 65}
    seven = [text for text in texts if "7B PI" in text]
    assert [text.rsplit(" ", 1)[1] for text in seven] == ["4", "8", "16"]


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


def test_heatmap_prints_every_number_once(summary: pd.DataFrame) -> None:
    figure = drawn(heatmap(summary))
    printed = [text.get_text() for text in figure.axes[0].texts]
    assert sorted(printed) == sorted(number(value) for value in summary["perplexity"])
    assert figure.axes[0].get_yticklabels()[0].get_text() == "none"


def test_before_and_after_is_legible_however_small_the_change(rows: pd.DataFrame) -> None:
    cells = compare(rows, rows.assign(nll_sum=rows["nll_sum"] * (1 + 1e-9)), 1e-4).cells
    figure = drawn(changes(cells, 1e-4))
    (ax,) = figure.axes
    np.testing.assert_allclose(marked(figure)[0].get_xdata(), 100 * (cells["ratio"] - 1), rtol=1e-9)
    shown = [label for label in ax.get_xticklabels() if label.get_text()]
    boxes = [label.get_window_extent() for label in shown]
    assert not any(left.overlaps(right) for left, right in itertools.pairwise(boxes))
    assert "0" in [label.get_text() for label in shown]
    assert figure.axes[0].get_yticklabels()[0].get_text() == "linear, 256"


def test_saved_files_are_reproducible(summary: pd.DataFrame, tmp_path: Path) -> None:
    first = save(curves.perplexity(summary), tmp_path / "a" / "perplexity")
    second = save(curves.perplexity(summary), tmp_path / "b" / "perplexity")
    assert [path.name for path in first] == ["perplexity.svg", "perplexity.png"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    with pytest.raises(UserError, match="Unknown figure format 'jpg'"):
        save(curves.perplexity(summary), tmp_path / "c", ["jpg"])


@pytest.mark.parametrize(
    ("heights", "top"), [([], 1.0), ([0.9], 0.9), ([0.2, 0.5], 1.0), ([0.9, 0.8, 0.3], 0.8), ([0.7, 0.35], 0.7)]
)
def test_the_trained_length_is_named_where_no_line_passes(heights: list[float], top: float) -> None:
    assert canvas._clear_below(np.array(heights)) == top


def test_lines_that_pass_a_label_are_met_where_they_pass_it() -> None:
    ax = Figure(dpi=100).add_axes((0, 0, 1, 1))
    ax.set(xscale="log", xlim=(1, 100), ylim=(0, 10))
    line = pd.DataFrame({"x": [1, 100], "y": [2.0, 10.0]})
    left, right = canvas._heights(ax, line, 10.0)
    assert left == pytest.approx(0.6)
    assert right == pytest.approx(0.6 + 0.8 * canvas.LABEL_WIDTH / 6.4)
    assert len(canvas._heights(ax, line.head(1), 10.0)) == 0
