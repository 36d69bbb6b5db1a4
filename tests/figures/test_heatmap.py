from harness.figures.heatmap import heatmap
from harness.statistics.summary import summarize
from harness.statistics.text import number
from tests import synthetic
from tests.figures.drawings import drawn


def test_heatmap_prints_every_number_once() -> None:
    summary = summarize(synthetic.sweep())
    figure = drawn(heatmap(summary))
    printed = [text.get_text() for text in figure.axes[0].texts]
    assert sorted(printed) == sorted(number(value) for value in summary["perplexity"])
    assert figure.axes[0].get_yticklabels()[0].get_text() == "none"
