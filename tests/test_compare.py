import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness import compare
from harness.errors import UserError
from harness.results import store
from harness.statistics import before_after
from tests import synthetic


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return synthetic.sweep(("none", "yarn"), (512, 1024, 2048))


def at(rows: pd.DataFrame, method: str, ctx: int) -> pd.Series:
    return (rows["method"] == method) & (rows["ctx"] == ctx)


def scaled(rows: pd.DataFrame, method: str, ctx: int, ratio: float) -> pd.DataFrame:
    """The rows with the perplexity of one cell multiplied by `ratio`, on every document alike."""
    shift = np.where(at(rows, method, ctx), np.log(ratio) * rows["num_scored"], 0.0)
    return rows.assign(nll_sum=rows["nll_sum"] + shift)


def verdicts(result: before_after.Comparison) -> dict[tuple[str, int], str]:
    return {(cell["method"], cell["ctx"]): cell["verdict"] for cell in result.cells.to_dict("records")}


def test_equal_results_pass(rows: pd.DataFrame) -> None:
    result = before_after.compare(rows, rows.sample(frac=1.0, random_state=0))
    assert set(verdicts(result).values()) == {"same"}
    assert result.cells["ratio"].tolist() == pytest.approx([1.0] * 6, rel=1e-12)
    assert result.exit_code == 0
    assert result.missing == {"baseline": [], "candidate": []}


def test_a_worse_cell_is_found_and_a_better_one_is_no_fault(rows: pd.DataFrame) -> None:
    result = before_after.compare(rows, scaled(scaled(rows, "yarn", 1024, 1.002), "none", 512, 0.99))
    found = verdicts(result)
    assert found.pop(("yarn", 1024)) == "worse"
    assert found.pop(("none", 512)) == "better"
    assert set(found.values()) == {"same"}
    assert (result.faults, result.exit_code) == (1, 1)
    line = result.cells[at(result.cells, "yarn", 1024)].iloc[0]
    assert line["after"] / line["before"] == pytest.approx(1.002, rel=1e-12)
    assert line["ratio"] == pytest.approx(1.002, rel=1e-12)
    assert (line["num_improved"], line["num_documents"]) == (0, 8)


def test_tolerance_is_the_line_between(rows: pd.DataFrame) -> None:
    worse = scaled(rows, "yarn", 1024, 1.002)
    assert before_after.compare(rows, worse, tolerance=0.0021).exit_code == 0
    assert before_after.compare(rows, worse, tolerance=0.0019).exit_code == 1
    with pytest.raises(UserError, match="tolerance must be >= 0"):
        before_after.compare(rows, worse, tolerance=-1)


def test_what_the_interval_does_not_support_is_no_alarm(rows: pd.DataFrame) -> None:
    """One of eight documents moves the mean by half a per cent: beyond the tolerance, within the interval."""
    one = at(rows, "yarn", 1024) & (rows["document_index"] == 2)
    moved = rows.assign(nll_sum=rows["nll_sum"] + np.where(one, 0.04 * rows["num_scored"], 0.0))
    result = before_after.compare(rows, moved)
    line = result.cells[at(result.cells, "yarn", 1024)].iloc[0]
    assert line["ratio"] > 1.004
    assert line["verdict"] == "same"


def test_numerical_noise_raises_no_alarm(rows: pd.DataFrame) -> None:
    some = rows[rows["ctx"] == 1024]
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(0.0, 1e-5, len(some))
        assert before_after.compare(some, some.assign(nll_sum=some["nll_sum"] * (1 + noise))).exit_code == 0


def test_other_tokens_under_the_same_fingerprint_are_found(rows: pd.DataFrame) -> None:
    cut = at(rows, "yarn", 512) & (rows["document"] == "speech-3") & (rows["window"] == 2)
    truncated = before_after.compare(rows, rows[~cut])
    assert verdicts(truncated)["yarn", 512] == "different"
    assert (
        "1 documents have other scored tokens, 'speech-3' 1071 before and 791 after" in truncated.cells["note"].tolist()
    )
    assert truncated.exit_code == 1
    moved = rows.assign(score_from=rows["score_from"] + at(rows, "none", 512))
    assert verdicts(before_after.compare(rows, moved))["none", 512] == "different"


def test_other_documents_or_protocol_are_refused(rows: pd.DataFrame) -> None:
    other = rows.assign(dataset_fingerprint=np.where(at(rows, "yarn", 512), "beef", "f00d"))
    result = before_after.compare(rows, other)
    assert len(result.cells) == 5
    assert result.exit_code == 2
    assert "its documents differ: f00d before, beef after" in result.refused[0]
    assert "yarn" in result.refused[0]
    stride = before_after.compare(rows, rows.assign(protocol_params=json.dumps({"stride": 128})))
    assert len(stride.refused) == 6
    assert 'its protocol differs: {"stride": 256} before, {"stride": 128} after' in stride.refused[0]
    worse = before_after.compare(rows, scaled(other, "yarn", 1024, 1.1))
    assert worse.exit_code == 1


def test_missing_cells_are_said(rows: pd.DataFrame) -> None:
    result = before_after.compare(rows[~at(rows, "none", 512)], rows[~at(rows, "yarn", 2048)])
    assert result.missing == {
        "candidate": ['reference yarn {"factor": 4.0} ctx 2k sliding sotu'],
        "baseline": ["reference none ctx 512 sliding sotu"],
    }
    assert result.exit_code == 0
    apart = before_after.compare(rows[rows["method"] == "none"], rows[rows["method"] == "yarn"])
    assert apart.exit_code == 2


def test_a_complete_comparison_asks_for_every_cell_of_the_baseline(
    rows: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = {"whole": rows, "part": rows[~at(rows, "yarn", 2048)]}
    monkeypatch.setattr(store, "load_results", lambda folder: tables[str(folder)])
    assert compare.main(["whole", "part"]) == 0
    assert compare.main(["whole", "part", "--complete"]) == 2
    assert compare.main(["part", "whole", "--complete"]) == 0
    tables["part"] = scaled(tables["part"], "yarn", 1024, 1.1)
    assert compare.main(["whole", "part", "--complete"]) == 1


def test_new_weights_and_dtypes_are_compared_and_noted(rows: pd.DataFrame) -> None:
    result = before_after.compare(rows, rows.assign(model_revision="def", dtype="bfloat16"))
    assert len(result.cells) == 6
    assert set(result.cells["note"]) == {"model_revision abc before, def after; dtype float32 before, bfloat16 after"}


def test_few_documents_are_judged_by_the_ratio_alone(rows: pd.DataFrame) -> None:
    few = rows[rows["document_index"] < 3]
    result = before_after.compare(few, scaled(few, "yarn", 1024, 1.01))
    assert verdicts(result)["yarn", 1024] == "worse"
    assert set(result.cells["note"]) == {"too few documents for an interval"}


def test_one_side_holding_a_cell_twice_is_an_error(rows: pd.DataFrame) -> None:
    twice = pd.concat([rows, rows.assign(cell_id=rows["cell_id"] + "x", model_revision="def")])
    with pytest.raises(UserError, match=r"The candidate holds reference .* more than once"):
        before_after.compare(rows, twice)


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
