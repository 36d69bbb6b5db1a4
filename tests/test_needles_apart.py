"""A mean over right and wrong answers says nothing: no command takes cells of needles for text."""

import logging
from pathlib import Path

import pandas as pd
import pytest

from harness import compare, report
from harness.deployment.winner import choose
from harness.errors import UserError
from harness.statistics.metric import PLAIN
from harness.statistics.metrics import METRICS
from harness.statistics.summary import DEFAULT
from tests import synthetic
from tests.statistics.test_needles import answered, rows_of
from tests.statistics.token_cells import write

OF_TEXT = ["perplexity", "bits_per_byte", "byte_perplexity", "word_perplexity"]


def hidden(by: float = 0.0) -> pd.DataFrame:
    """Needle cells of a method, every answer `by` nats a token dearer."""
    rows = rows_of(answered(), cell_id="hidden", method="yarn", experiment="needles")
    return rows.assign(nll_sum=rows["nll_sum"] + by * rows["num_scored"])


def text() -> pd.DataFrame:
    return synthetic.cell("none", 9, num_windows=1).assign(depth=None, num_words=7)


@pytest.mark.parametrize("name", OF_TEXT)
def test_metrics_of_text_leave_needles_out_or_refuse_them(name: str, caplog: pytest.LogCaptureFixture) -> None:
    both = pd.concat([hidden(), text()], ignore_index=True)
    with caplog.at_level(logging.WARNING):
        kept = METRICS[name].rows(lambda table: both, PLAIN)
    assert set(kept["cell_id"]) == set(text()["cell_id"])
    assert "left out: cells that hide needles (1)" in caplog.text
    with pytest.raises(UserError, match=r"all 1 cells hide needles.*needle_gain or needle_accuracy"):
        METRICS[name].rows(lambda table: hidden(), PLAIN)


def test_compare_refuses_the_perplexity_of_needles_and_compares_their_gain(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for side, by in (("before", 0.0), ("after", 1.0)):
        write(tmp_path / side, {"windows": hidden(by)})
    sides = [str(tmp_path / "before"), str(tmp_path / "after")]
    with pytest.raises(SystemExit) as left:
        compare.main(sides)
    assert left.value.code == 2
    assert "hide needles" in capsys.readouterr().err.strip().splitlines()[-1]
    assert compare.main([*sides, "--metric", "needle_gain"]) == 0  # right and wrong became dearer alike
    for side in ("before", "after"):
        synthetic.write(text(), tmp_path / side)
    assert compare.main(sides) == 0
    assert "1 cells compared, 0 worse" in capsys.readouterr().out


def test_the_best_by_perplexity_is_picked_among_texts() -> None:
    both = pd.concat([hidden(-9.0), text()], ignore_index=True)
    best = choose(
        METRICS["perplexity"].rows(lambda table: both, PLAIN), METRICS["perplexity"], 9, "reference", {}, DEFAULT
    )
    assert best.cell["method"] == "none"


def test_a_report_says_of_which_experiment_a_metric_is_not(tmp_path: Path) -> None:
    """And the others are shown; a metric that no experiment has is an error."""
    write(tmp_path / "results", {"windows": hidden()})
    output = tmp_path / "report.html"
    given = [str(tmp_path / "results"), "--output", str(output), "--metric", "bits_per_byte"]
    with pytest.raises(SystemExit):
        report.main(given)
    synthetic.write(text(), tmp_path / "results")
    assert report.main(given) == 0
    page = output.read_text()
    assert "all 1 cells hide needles" in page
    assert "bits_per_byte" in page
