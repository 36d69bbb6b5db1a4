"""The examples of docs/querying.md, run as they stand; its list of columns is that of the schema.

HARNESS_WRITE_DOCS=1 pytest tests/results/test_querying.py writes the list anew.
"""

import importlib.util
import os
import re
from pathlib import Path

import pytest

from harness.results import schema, store
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


def listed() -> str:
    """The columns as a table of the page: in which files, of which type, what they mean."""
    tables = list(reversed(schema.writing_order(schema.table_names())))
    lines = [f"| column | type | {' | '.join(tables)} | |", "|---|---|" + "---|" * (len(tables) + 1)]
    for column in schema.COLUMNS:
        where = ["x" if column in schema.columns(table) else "" for table in tables]
        since = f"; since version {column.since}" if column.since > 1 else ""
        lines.append(f"| `{column.name}` | {column.type} | {' | '.join(where)} | {column.meaning}{since} |")
    rows = ", ".join(f"{table}: {schema.named(table).a_row}" for table in tables)
    return f"A row of {rows}.\n\n" + "\n".join(lines) + "\n"


def test_the_page_lists_the_columns_of_the_schema() -> None:
    text = PAGE.read_text(encoding="utf-8")
    before, mark, found = text.partition(" writes them anew -->\n")
    if os.environ.get("HARNESS_WRITE_DOCS"):
        PAGE.write_text(f"{before}{mark}\n{listed()}", encoding="utf-8")
        return
    assert found == f"\n{listed()}", "HARNESS_WRITE_DOCS=1 pytest tests/results/test_querying.py writes the list anew"
