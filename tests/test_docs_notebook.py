"""docs/notebook.ipynb, run as it stands; its numbers are those that are printed there.

HARNESS_WRITE_DOCS=1 pytest tests/test_docs_notebook.py writes its outputs anew.
"""

import ast
import base64
import io
import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure

PAGE = Path(__file__).parents[1] / "docs" / "notebook.ipynb"


def shown(value: object) -> dict[str, Any]:
    """What a notebook shows of a cell's last value, by kind."""
    if isinstance(value, Figure):
        stream = io.BytesIO()
        value.savefig(stream, format="png", dpi=80, metadata={"Software": None})
        return {"image/png": base64.b64encode(stream.getvalue()).decode(), "text/plain": "<Figure>"}
    html = {"text/html": value.to_html()} if isinstance(value, pd.DataFrame) else {}
    return html | {"text/plain": str(value)}


def run(source: str, names: dict[str, Any]) -> object:
    """Execute a cell; the value of its last line if that is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, str(PAGE), "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), str(PAGE), "eval"), names)


def test_every_cell_runs_and_shows_what_stands_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = json.loads(PAGE.read_text())
    names: dict[str, Any] = {}
    cells = [cell for cell in page["cells"] if cell["cell_type"] == "code"]
    assert len(cells) >= 4
    for number, cell in enumerate(cells, 1):
        value = run("".join(cell["source"]), names)
        found = [] if value is None else [shown(value)]
        if os.environ.get("HARNESS_WRITE_DOCS"):
            cell["execution_count"] = number
            cell["outputs"] = [
                {"output_type": "execute_result", "execution_count": number, "metadata": {}, "data": data}
                for data in found
            ]
        texts = [output["data"]["text/plain"] for output in cell["outputs"]]
        assert texts == [data["text/plain"] for data in found]
    if os.environ.get("HARNESS_WRITE_DOCS"):
        PAGE.write_text(json.dumps(page, indent=1) + "\n")
