import pandas as pd

from harness.figures.needles import needles
from harness.statistics.metric import PLAIN
from harness.statistics.needles import NEEDLE_ACCURACY, NEEDLE_GAIN, by_depth
from tests.figures.drawings import drawn
from tests.statistics.test_needles import answered, rows_of


def test_a_panel_a_method_with_every_number_at_its_depth() -> None:
    for metric in (NEEDLE_GAIN, NEEDLE_ACCURACY):
        tables = []
        for seed, method in enumerate(("yarn", "none")):
            rows = rows_of(answered(seed), cell_id=method, method=method)
            tables.append(metric.rows(lambda name, rows=rows: rows, PLAIN))
        table = by_depth(pd.concat(tables), metric=metric)
        figure = drawn(needles(table))
        assert [ax.get_title() for ax in figure.axes] == ["none", "yarn"]
        for ax in figure.axes:
            own = table[table["method"] == ax.get_title()].sort_values("depth")[metric.name]
            assert [text.get_text() for text in ax.texts] == [f"{value:.2f}" for value in own]
            assert [label.get_text() for label in ax.get_yticklabels()] == ["0", "0.5", "1"]
