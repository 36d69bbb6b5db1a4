import json
import sys
from pathlib import Path

import pytest

from harness import plot
from tests import synthetic


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    synthetic.write(synthetic.sweep(lengths=(512, 1024)), folder)
    return folder


@pytest.fixture
def draw(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs the command; returns its exit code, standard output and last line of standard error."""

    def run(*overrides: str) -> tuple[int, str, str]:
        monkeypatch.setattr(
            sys, "argv", ["plot", f"results_dir={results}", f"plots_dir={tmp_path}", "formats=[svg]", *overrides]
        )
        code = 0
        try:
            plot.main()
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err.strip().split("\n")[-1]

    return run


def test_perplexity_with_its_table(draw, tmp_path: Path) -> None:
    code, out, _ = draw()
    assert code == 0
    assert "perplexity: reference, sotu, sliding, stride 256" in out
    assert "effective: the last length before it rises by more than 5 %" in out
    assert (tmp_path / "perplexity.svg").stat().st_size > 10_000


def test_all_kinds_and_names(draw, tmp_path: Path) -> None:
    assert draw("figure=all", "where.method=[none,yarn]", "aggregate=document")[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "heatmap.svg", "perplexity.svg", "position.svg", "ratio.svg",
    ]  # fmt: skip
    assert draw("name=mine", "hue=model")[0] == 0
    assert draw("name=panels", "columns=method", "hue=model")[0] == 0
    assert (tmp_path / "panels.svg").exists()
    assert (tmp_path / "mine.svg").exists()


def test_published_alone_needs_no_results(draw, tmp_path: Path) -> None:
    assert draw("published=yarn", "results_dir=nowhere")[0] == 0
    assert (tmp_path / "published-yarn.svg").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["published=yarn", "published.overlay=true"], "its protocol is single_pass"),
        (["published.overlay=true"], "needs a paper"),
        (
            ["published=yarn", "published.overlay=true", "figure=ratio"],
            "lies under figure=perplexity only, got figure=r",
        ),
        (["seed=-1"], "seed must be an integer >= 0, got -1."),
        (["published=yarm"], "Unknown published 'yarm'. Did you mean 'yarn'?"),
        (["published=yarn", "published.table=none"], "Unknown table of yarn 'none'"),
        (["figure=ratoi"], "Unknown figure 'ratoi'. Did you mean 'ratio'?"),
        (["figure=ratio", "baseline=linaer"], "Unknown baseline 'linaer'. Did you mean 'linear'?"),
        (["where.model=other"], "Unknown model (where.model) 'other'. Known: reference."),
        (["where.factor=7"], "Unknown factor (where.factor) '7'. Known: "),
        (["aggregate=tokens"], "Unknown aggregate 'tokens'"),
        (["confidence=95"], "confidence must lie between 0 and 1, got 95."),
        (["results_dir=nowhere"], "'nowhere' does not exist"),
        (["formats=[jpg]"], "Unknown figure format 'jpg'"),
        (["x=length"], "There is no column 'length' to draw by."),
        (["columns=5"], "columns must be a list or text, got 5."),
        (["hue=[method,ctx]"], "hue must be text, got ['method', 'ctx']."),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(draw, overrides: list[str], message: str) -> None:
    code, _, error = draw(*overrides)
    assert code == 2
    assert error.startswith("error: ")
    assert message in error


@pytest.mark.parametrize("given", [["--format", "json"], ["--format=json"], ["format=json"]])
def test_the_table_for_programs_is_alone_on_stdout(draw, given: list[str]) -> None:
    code, out, err = draw(*given)
    assert code == 0
    assert {record["method"] for record in json.loads(out)} >= {"none", "yarn"}
    assert err.startswith("figure ")
