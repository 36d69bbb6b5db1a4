"""The examples of docs/querying.md, run as they stand."""

import importlib.util
import re
from pathlib import Path

import pytest

from harness.results import store
from harness.statistics.summary import summarize
from harness.statistics.text import number
from tests import synthetic

PAGE = Path(__file__).parents[2] / "docs" / "querying.md"
EXAMPLES = dict(re.findall(r"With (\w+):\n\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL))


@pytest.mark.parametrize("reader", ["pandas", "polars", "DuckDB"])
def test_example_prints_the_perplexities(
    reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if importlib.util.find_spec(reader.lower()) is None:
        pytest.skip(f"{reader} is not installed; it is no dependency of this project")
    synthetic.write(synthetic.sweep(("none", "yarn"), (512, 1024), 5), tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    exec(compile(EXAMPLES[reader], reader, "exec"), {})
    printed = {number(float(word)) for word in re.findall(r"\d+\.\d+", capsys.readouterr().out)}
    expected = summarize(store.load_results("results"))["perplexity"]
    assert {number(value) for value in expected} <= printed
    assert len(expected) == 4
