import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from harness.figures import canvas


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
