"""A type of figure is one function and one entry in FIGURES: plot and report show what stands there."""

import base64
import re
import sys
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from harness import plot, report
from harness.errors import UserError
from harness.figures import FIGURES, FigureType, source
from harness.figures.canvas import Layout
from harness.statistics.summary import Averaging
from tests import synthetic


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("registry")
    synthetic.write(synthetic.sweep(("none", "yarn"), (512, 1024), 5), folder)
    return folder


def counts(summary: pd.DataFrame, layout: Layout) -> Figure:
    """A planted type of figure: scored tokens by length."""
    figure = Figure()
    ax = figure.subplots()
    ax.scatter(summary[layout.x], summary["num_scored"])
    ax.set_title("planted " + ", ".join(summary["aggregate"].unique()))
    return figure


def without_tokens() -> list[str]:
    """The figures that these results allow, which kept no tokens and have no needles."""
    return [name for name in FIGURES if name not in ("long_context", "needles")]


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = FigureType("counts", "tokens by length beside {baseline}", lambda source: source.summary, counts)
    monkeypatch.setitem(FIGURES, entry.name, entry)


def shown(page: str) -> dict[str, str]:
    """The figures of a page, by caption."""
    found = re.findall(r'<img alt="([^"]*)" src="data:image/svg\+xml;base64,([^"]*)"', page)
    return {caption: base64.b64decode(data).decode() for caption, data in found}


def draw(monkeypatch: pytest.MonkeyPatch, results: Path, plots: Path, *overrides: str) -> list[str]:
    given = [f"results_dir={results}", f"plots_dir={plots}", "formats=[svg]", *overrides]
    monkeypatch.setattr(sys, "argv", ["plot", *given])
    plot.main()
    return sorted(path.stem for path in plots.iterdir())


def test_plot_draws_every_entry(planted: None, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert draw(monkeypatch, results, tmp_path / "one", "figure=counts", "aggregate=window") == ["counts"]
    assert "planted window" in (tmp_path / "one" / "counts.svg").read_text()
    assert draw(monkeypatch, results, tmp_path / "all", "figure=all") == sorted(without_tokens())


def test_report_shows_every_entry(planted: None, results: Path) -> None:
    text = report.build(results, Averaging("document"), "yarn")
    page = shown(text)
    captions = {name: entry.caption.format(metric="perplexity", baseline="yarn") for name, entry in FIGURES.items()}
    assert list(page) == [captions[name] for name in without_tokens()]
    assert f"No figure of {captions['long_context']}: Metrics of long contexts need token rows" in text
    assert "planted document" in page["tokens by length beside yarn"]


def test_names_are_those_of_the_entries() -> None:
    assert {name: entry.name for name, entry in FIGURES.items()} == {name: name for name in FIGURES}
    text = (Path(__file__).parents[2] / "conf" / "plot.yaml").read_text()
    (known,) = re.findall(r"^figure: .*# (.*) \| all$", text, re.MULTILINE)
    assert known.split(" | ") == list(FIGURES)


def test_tables_are_made_once_and_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []

    def load(table: str) -> pd.DataFrame:
        loaded.append(table)
        if table == "positions":
            raise UserError("no positions")
        return synthetic.sweep(("none", "yarn"), (512, 1024), 5)

    results = source.Source(load)
    assert loaded == []
    for name in ("perplexity", "heatmap", "ratio"):
        FIGURES[name].figure(results)
    assert loaded == ["windows"]
    with pytest.raises(UserError, match="no positions"):
        FIGURES["position"].figure(results)
