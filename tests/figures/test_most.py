"""Figures of very many lines or panels: what is drawn, and what is said of the rest."""

import itertools

import pandas as pd
import pytest

from harness.figures import FIGURES, most
from harness.figures.curves import perplexity
from harness.figures.heatmap import heatmap
from harness.figures.source import Source
from harness.statistics.summary import summarize
from tests import synthetic
from tests.figures.drawings import drawn, marked

NUMBER = 60


def many(**columns: object) -> pd.DataFrame:
    """Windows of the unscaled model and NUMBER - 1 fixed factors, the larger the better."""
    cells = []
    for place, ctx in itertools.product(range(NUMBER), (256, 1024)):
        method = "yarn" if place else "none"
        cell = synthetic.cell(method, ctx, 5, 1, **columns)
        cells.append(cell.assign(cell_id=f"{place}-{ctx}", factor=float(10 + place) if place else None))
        cells[-1]["nll_sum"] -= 0.01 * place * cells[-1]["num_scored"]
    return pd.concat(cells, ignore_index=True)


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return many()


def kept(number: int) -> set[str]:
    return {"none", *(f"yarn, factor {10 + place}" for place in range(NUMBER - number + 1, NUMBER))}


def told(figure) -> str:
    return " ".join(figure.get_supxlabel().split())


def test_the_best_lines_and_the_unscaled_model_are_drawn_and_the_rest_is_said(rows: pd.DataFrame) -> None:
    figure = drawn(perplexity(summarize(rows)))
    assert {line.get_label() for line in marked(figure)} == kept(most.MOST_LINES)
    assert told(figure) == (
        "40 of 60 lines are drawn, those with the lowest perplexity at their end; where=... (--where) selects others."
    )


def test_as_many_as_can_be_read_are_all_drawn(rows: pd.DataFrame) -> None:
    few = rows[rows["cell_id"].str.split("-").str[0].astype(int) < most.MOST_LINES]
    figure = drawn(perplexity(summarize(few)))
    assert len({line.get_label() for line in marked(figure)}) == most.MOST_LINES
    assert "lines are drawn" not in told(figure)


def test_a_heatmap_has_the_same_lines(rows: pd.DataFrame) -> None:
    figure = drawn(heatmap(summarize(rows)))
    assert {label.get_text() for label in figure.axes[0].get_yticklabels()} == kept(most.MOST_LINES)
    assert told(figure).startswith("40 of 60 lines are drawn")


def test_losses_by_position_are_computed_of_what_is_drawn(rows: pd.DataFrame) -> None:
    positions = rows.assign(position_begin=1, position_end=255)
    source = Source(lambda table: positions if table == "positions" else rows)
    assert set(source.losses["cell_id"]) == {
        f"{place}-{ctx}" for place in (0, *range(21, NUMBER)) for ctx in (256, 1024)
    }
    assert told(drawn(FIGURES["position"].figure(source))).startswith("40 of 60 lines are drawn, those with the lowest")


def test_metrics_of_which_more_is_better_keep_the_highest() -> None:
    table = pd.DataFrame({"curve": [f"m{i:02}" for i in range(50)], "ctx": 64, "value": range(50)})
    found, note = most.most_lines(table, "curve", "value", "gain", higher=True)
    assert set(found["curve"]) == {f"m{i:02}" for i in range(10, 50)}
    assert "highest gain" in note


def test_the_first_panels_are_drawn_and_the_rest_is_counted(rows: pd.DataFrame) -> None:
    cells = [
        synthetic.cell("yarn", ctx, 5, 1, dataset=f"text {i:02}", cell_id=f"{i}-{ctx}")
        for i in range(40)
        for ctx in (256, 512)
    ]
    figure = perplexity(summarize(pd.concat(cells, ignore_index=True)))
    assert len(figure.axes) == most.MOST_PANELS
    assert told(figure) == "The first 36 of 40 panels are drawn; where=... (--where) selects others."
