import json
from pathlib import Path

import pandas as pd
import pytest

from harness import compare
from harness.results import store
from tests import synthetic
from tests.synthetic import at, scaled


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return synthetic.sweep(("none", "yarn"), (512, 1024, 2048))


def test_a_complete_comparison_asks_for_every_cell_of_the_baseline(
    rows: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = {"whole": rows, "part": rows[~at(rows, "yarn", 2048)]}
    monkeypatch.setattr(store, "load_results", lambda folder, table: tables[str(folder)])
    assert compare.main(["whole", "part"]) == 0
    assert compare.main(["whole", "part", "--complete"]) == 2
    assert compare.main(["part", "whole", "--complete"]) == 0
    tables["part"] = scaled(tables["part"], "yarn", 1024, 1.1)
    assert compare.main(["whole", "part", "--complete"]) == 1


@pytest.fixture(scope="module")
def folders(rows: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    base = tmp_path_factory.mktemp("compare")
    synthetic.write(rows, base / "before")
    synthetic.write(scaled(rows, "yarn", 1024, 1.02), base / "after")
    return str(base / "before"), str(base / "after")


def test_command_prints_draws_and_leaves_with_the_code(
    folders: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare.main([*folders, "--plots-dir", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "6 cells compared, 1 worse than 0.1 % or different, 0 refused" in out
    assert {path.name for path in tmp_path.iterdir()} == {"compare.svg", "compare.png"}
    assert compare.main([folders[0], folders[0]]) == 0


def test_markdown_and_json(folders: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    compare.main([*folders, "--format", "markdown"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].count("---") == lines[0].count("|") - 1 == 10
    assert sum("worse" in line for line in lines[2:8]) == 1
    compare.main([*folders, "--format", "json"])
    loaded = json.loads(capsys.readouterr().out)
    assert loaded["exit_code"] == 1
    assert [cell["verdict"] for cell in loaded["cells"]].count("worse") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "nowhere"], "'nowhere' does not exist"),
        (["--aggregate", "tokens"], "Unknown aggregate 'tokens'. Did you mean 'token'"),
        (["--tolerance", "-1"], "tolerance must be >= 0"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    folders: tuple[str, str], arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leaving:
        compare.main(arguments if arguments[0] == "nowhere" else [*folders, *arguments])
    assert leaving.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
