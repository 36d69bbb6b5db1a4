"""Metrics of long contexts as commands: a filter of what is shown keeps the cells that those shown stand beside."""

import sys
from math import exp, nan
from pathlib import Path

import pytest

from harness import compare, plot, report
from tests.statistics.token_cells import cell, short, write

SHORT = [nan, 3.0, 3.0, 3.0, 5.0, 5.0, 5.0, 5.0]
DCA = [nan, 0.1, 0.1, 0.1, 0.5, 4.9, 1.0, 1.5]  # key tokens: 4, 6 and 7
YARN = [nan, 9.0, 9.0, 9.0, 2.0, 9.0, 3.0, 4.0]
DOCUMENTS = 5


@pytest.fixture
def results(tmp_path: Path) -> Path:
    cells = [cell([own] * DOCUMENTS, method=name) for name, own in (("dca", DCA), ("yarn", YARN))]
    write(tmp_path / "results", *cells, short([SHORT] * DOCUMENTS))
    return tmp_path / "results"


def test_plot_shows_a_method_whose_evaluator_it_does_not_show(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"results_dir={results}", f"plots_dir={tmp_path}", "formats=[svg]", "metric=longppl", "evaluator=dca"]
    monkeypatch.setattr(sys, "argv", ["plot", *given, "where.method=yarn", "where.model=tiny"])
    plot.main()
    said = capsys.readouterr().out
    assert "key tokens by dca: 15 at 8" in said
    (line,) = (line for line in said.splitlines() if line.startswith("yarn"))
    assert line.split()[1] == f"{exp(3):.2f}"
    assert not [line for line in said.splitlines() if line.startswith("dca")]
    assert (tmp_path / "longppl.svg").exists()
    monkeypatch.setattr(sys, "argv", ["plot", *given[:3], "metric=gain", "where.method=yarn", "where.ctx=8"])
    plot.main()
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("yarn"))
    assert line.split()[1] == f"{exp(5 - 4.5):.3f}"  # the last four tokens: 2, 9, 3 and 4 nats


def test_compare_judges_both_sides_by_the_evaluator_of_the_first(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Behind the change dca's own losses would choose no token; those of before still do."""
    worse = [[loss + 2 for loss in own] for own in (DCA, YARN)]
    cells = [cell([own] * DOCUMENTS, method=name) for name, own in zip(("dca", "yarn"), worse, strict=True)]
    write(tmp_path / "after", *cells, short([SHORT] * DOCUMENTS))
    options = ["--metric", "longppl", "--evaluator", "dca", "--where", "method=yarn"]
    assert compare.main([str(results), str(tmp_path / "after"), *options]) == 1
    said = capsys.readouterr().out
    assert f"{exp(2):.4f}" in said
    assert "1 cells compared, 1 worse" in said


def test_report_names_what_is_counted(results: Path, tmp_path: Path) -> None:
    output = tmp_path / "report.html"
    assert report.main([str(results), "--output", str(output), "--metric", "longppl", "--evaluator", "dca"]) == 0
    page = output.read_text()
    assert "<td>key tokens by dca</td>" in page
    assert f"{exp(5):.3f}" in page  # what they cost in short windows
    assert "perplexity beside LongPPL and far copies" in page
