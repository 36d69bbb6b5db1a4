import warnings
from itertools import cycle

import pandas as pd

from harness.figures import curves
from harness.figures.needles import needles
from harness.figures.source import Source
from harness.statistics.metric import BITS_PER_BYTE, PERPLEXITY, PLAIN, Metric
from harness.statistics.needles import NEEDLE_ACCURACY, NEEDLE_GAIN, by_depth
from tests import synthetic
from tests.figures.drawings import drawn
from tests.statistics.test_needles import answered, rows_of


def source(found: float, *more: pd.DataFrame, metric: Metric = PERPLEXITY) -> Source:
    """Needle cells of two methods, of which a share is found, and other cells."""
    drawn_by_turns = zip(cycle([0.1, 0.9]), answered().items(), strict=False)
    made = {key: one._replace(top1=[draw < found] * len(one.nll)) for draw, (key, one) in drawn_by_turns}
    rows = [rows_of(made, cell_id=method, method=method) for method in ("yarn", "none")]
    whole = pd.concat([*rows, *more], ignore_index=True)
    return Source(lambda table: whole, metric=metric)


def test_cells_that_hide_needles_are_shown_by_gain_and_not_by_perplexity() -> None:
    """A perplexity of right and wrong answers together says nothing."""
    alone = source(0.5).by_needles()
    assert alone.metric is NEEDLE_GAIN
    assert "needle_gain" in alone.summary
    texts = synthetic.cell("none", 512, num_windows=1).assign(depth=None)
    beside = source(0.5, texts).by_needles()
    assert beside.metric is PERPLEXITY
    assert beside.summary["cell_id"].tolist() == texts["cell_id"].unique().tolist()
    assert source(0.5, metric=BITS_PER_BYTE).by_needles().metric is BITS_PER_BYTE


def test_lines_of_one_value_are_drawn_without_a_warning() -> None:
    nothing = source(0.0, metric=NEEDLE_ACCURACY)
    assert (nothing.summary["needle_accuracy"] == 0).all()
    assert (nothing.summary["k_max"] == 0).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = drawn(curves.perplexity(nothing.summary))
    assert figure.axes[0].get_ylim()[1] > 0


def test_a_panel_a_method_with_every_number_at_its_depth() -> None:
    for metric in (NEEDLE_GAIN, NEEDLE_ACCURACY):
        tables = []
        for seed, method in enumerate(("yarn", "none", "dca")):
            rows = rows_of(answered(seed), cell_id=method, method=method)
            tables.append(metric.rows(lambda name, rows=rows: rows, PLAIN))
        table = by_depth(pd.concat(tables), metric=metric)
        figure = drawn(needles(table))
        assert [ax.get_title() for ax in figure.axes] == ["none", "dca", "yarn"]
        for ax in figure.axes:
            own = table[table["method"] == ax.get_title()].sort_values("depth")[metric.name]
            assert [text.get_text() for text in ax.texts] == [f"{value:.2f}" for value in own]
            assert [label.get_text() for label in ax.get_yticklabels()] == ["0", "0.5", "1"]
