import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pandas as pd
import pytest

from harness import report
from harness.figures import page
from harness.results import store
from harness.statistics.summary import summarize
from tests import synthetic
from tests.disks import no_room

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--enable-logging=stderr",
    "--virtual-time-budget=10000", "--dump-dom",
]  # fmt: skip

# Clicks every column's name twice and writes down what the reader would then see.
PROBE = """<script>
window.addEventListener("load", () => {
  const seen = { errors: window.failures, images: [], tables: [] };
  for (const image of document.images) seen.images.push([image.alt, image.naturalWidth]);
  for (const table of document.querySelectorAll("table")) {
    const columns = {};
    for (const header of table.tHead.rows[0].cells) {
      const column = header.cellIndex, states = [];
      for (const turn of [1, 2]) {
        header.querySelector("button").click();
        const cells = Array.from(table.tBodies[0].rows, (row) => row.cells[column]);
        states.push([header.getAttribute("aria-sort"), cells.map((c) => c.dataset.value ?? c.textContent)]);
      }
      columns[header.textContent] = states;
    }
    seen.tables.push(columns);
  }
  const out = document.createElement("pre");
  out.id = "seen";
  out.textContent = JSON.stringify(seen);
  document.body.append(out);
});
</script>"""
TRAP = "<script>window.failures = []; window.onerror = (message) => window.failures.push(message);</script>"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    synthetic.write(synthetic.sweep(("none", "yarn"), (512, 1024), 5), folder)
    return folder


@pytest.fixture(scope="module")
def text(results: Path) -> str:
    return report.build(results)


def test_page_holds_every_number_and_its_origin(results: Path, text: str) -> None:
    for cell in summarize(store.load_results(results)).to_dict("records"):
        assert f'data-value="{cell["perplexity"]!r}"' in text
        assert f"({cell['cell_id']})</summary>" in text
    assert text.count("<details>") == 5  # and what all of them have in common
    assert text.count("<img ") == 4
    assert unescape(text).count('"versions.harness": "0"') == 1  # said once, not for every cell


def test_page_needs_no_network(text: str) -> None:
    assert re.findall(r'(?:src|href|action)="(?!data:)[^"]*"', text) == []
    assert "@import" not in text
    assert "fetch(" not in text


def test_text_is_escaped() -> None:
    table = page.table(pd.DataFrame({"<b>": ["<script>alert(1)</script>"]}))
    assert "<script>" not in table
    assert "<b>" not in table


def test_missing_figures_say_why(tmp_path: Path) -> None:
    synthetic.write(synthetic.sweep(("yarn",), (512,)), tmp_path)
    for file in tmp_path.rglob("*.positions.parquet"):
        file.unlink()
    built = report.build(tmp_path)
    assert "No figure of perplexity over that of none: Unknown baseline" in unescape(built)
    assert "No figure of loss (or KL to a base) against position: no finished cells (*.positions.parquet)" in unescape(
        built
    )
    assert built.count("<img ") == 2


def test_command_writes_the_same_page_again(
    results: Path, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.main([str(results), "--output", str(tmp_path / "new" / "report.html")]) == 0
    assert (tmp_path / "new" / "report.html").read_text(encoding="utf-8") == text
    assert "report.html" in capsys.readouterr().out
    for arguments, message in (
        (["nowhere"], "'nowhere' does not exist"),
        ([str(results), "--aggregate", "tokens"], "Unknown aggregate 'tokens'"),
        ([str(results), "--output", str(results)], "cannot be written"),
    ):
        with pytest.raises(SystemExit) as leaving:
            report.main(arguments)
        assert leaving.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line


def test_where_there_is_no_room_the_old_page_stays(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "report.html"
    old.write_text("old")
    with no_room(4096), pytest.raises(SystemExit) as leaving:
        report.main([str(results), "--output", str(old)])
    assert leaving.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: the report cannot be written to ")
    assert line.endswith("File too large")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium or Chrome on the path (Debian: apt-get install chromium)")
def test_in_a_browser(text: str, tmp_path: Path) -> None:
    """No console message, every figure decodes, every column sorts both ways, numbers as numbers."""
    file = tmp_path / "report.html"
    file.write_text(text.replace("<head>", "<head>" + TRAP).replace("</body>", PROBE + "</body>"), encoding="utf-8")
    done = subprocess.run(
        [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", file.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None
    seen = json.loads(unescape(found[1]))
    assert seen["errors"] == []
    assert len(seen["images"]) == 4
    assert all(width > 200 for _, width in seen["images"])
    assert len(seen["tables"]) == 3
    for columns in seen["tables"]:
        for (up, rising), (down, falling) in columns.values():
            assert (up, down) == ("ascending", "descending")
            assert rising == sorted(rising, key=_number_or_text)
            assert falling == sorted(falling, key=_number_or_text, reverse=True)
    lengths = seen["tables"][0]["ctx"][0][1]
    assert lengths == ["512", "512", "1024", "1024"]


def _number_or_text(value: str) -> tuple[float, str]:
    try:
        return float(value), ""
    except ValueError:
        return 0.0, value


@pytest.mark.parametrize("nameless", [None, ""])
def test_experiments_are_chapters_with_a_table_of_contents(nameless: str | None, tmp_path: Path) -> None:
    sweep = synthetic.sweep(("none", "yarn"), (512, 1024), 5)
    names = {512: "short & sweet", 1024: nameless}
    synthetic.write(sweep.assign(experiment=sweep["ctx"].map(names).astype(object)), tmp_path)
    text = report.build(tmp_path)
    assert re.findall(r'<a href="#(chapter\d)">(.*?)</a>', text) == [
        ("chapter0", "short &amp; sweet"), ("chapter1", "no experiment"),
    ]  # fmt: skip
    first, second = text.split('<section id="chapter1">')
    for cell in summarize(sweep).to_dict("records"):
        shown = f'data-value="{cell["perplexity"]!r}"'
        assert (shown in first, shown in second) == (cell["ctx"] == 512, cell["ctx"] == 1024)


def test_tables_tell_data_sets_of_one_name_apart_as_figures_do(tmp_path: Path) -> None:
    parts = []
    for place, params in enumerate(({"num_documents": 5}, {"num_documents": 5, "max_tokens": 1280})):
        own = synthetic.sweep(("none", "yarn"), (512, 1024), 5)
        known = {"dataset_params": json.dumps(params), "dataset_fingerprint": f"print{place}"}
        parts.append(own.assign(**known, cell_id=own["cell_id"] + str(place)))
    synthetic.write(pd.concat(parts), tmp_path)
    text = report.build(tmp_path)
    tables = re.findall(r"<table>.*?</table>", text, re.DOTALL)
    assert len(tables) == 3  # cells, effective lengths, slopes
    for table, lines in zip(tables, (4, 2, 2), strict=True):
        assert ">text</button>" in table
        assert ">setting</button>" not in table
        assert table.count("not cut") == table.count("cut at 1280 tokens") == lines


def test_one_experiment_has_no_table_of_contents(text: str) -> None:
    assert "<nav>" not in text
