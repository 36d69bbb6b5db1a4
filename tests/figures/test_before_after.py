import itertools

import numpy as np

from harness.figures.before_after import changes
from harness.statistics.before_after import compare
from tests import synthetic
from tests.figures.drawings import drawn, marked


def test_before_and_after_is_legible_however_small_the_change() -> None:
    rows = synthetic.sweep()
    cells = compare(rows, rows.assign(nll_sum=rows["nll_sum"] * (1 + 1e-9)), 1e-4).cells
    figure = drawn(changes(cells, 1e-4))
    (ax,) = figure.axes
    np.testing.assert_allclose(marked(figure)[0].get_xdata(), 100 * (cells["ratio"] - 1), rtol=1e-9)
    shown = [label for label in ax.get_xticklabels() if label.get_text()]
    boxes = [label.get_window_extent() for label in shown]
    assert not any(left.overlaps(right) for left, right in itertools.pairwise(boxes))
    assert "0" in [label.get_text() for label in shown]
    assert figure.axes[0].get_yticklabels()[0].get_text() == "linear, 256"
