import json

import numpy as np
import pandas as pd
import pytest

from harness.errors import UserError
from harness.statistics.before_after import Comparison, Verdict, compare
from tests import synthetic
from tests.synthetic import at, scaled


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return synthetic.sweep(("none", "yarn"), (512, 1024, 2048))


def verdicts(result: Comparison) -> dict[tuple[str, int], Verdict]:
    return {(cell["method"], cell["ctx"]): cell["verdict"] for cell in result.cells.to_dict("records")}


def test_equal_results_pass(rows: pd.DataFrame) -> None:
    result = compare(rows, rows.sample(frac=1.0, random_state=0))
    assert set(verdicts(result).values()) == {"same"}
    assert result.cells["ratio"].tolist() == pytest.approx([1.0] * 6, rel=1e-12)
    assert result.exit_code == 0
    assert result.missing == {"baseline": [], "candidate": []}


def test_a_worse_cell_is_found_and_a_better_one_is_no_fault(rows: pd.DataFrame) -> None:
    result = compare(rows, scaled(scaled(rows, "yarn", 1024, 1.002), "none", 512, 0.99))
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
    assert compare(rows, worse, tolerance=0.0021).exit_code == 0
    assert compare(rows, worse, tolerance=0.0019).exit_code == 1
    with pytest.raises(UserError, match="tolerance must be >= 0"):
        compare(rows, worse, tolerance=-1)


def test_what_the_interval_does_not_support_is_no_alarm(rows: pd.DataFrame) -> None:
    """One of eight documents moves the mean by half a per cent: beyond the tolerance, within the interval."""
    one = at(rows, "yarn", 1024) & (rows["document_index"] == 2)
    moved = rows.assign(nll_sum=rows["nll_sum"] + np.where(one, 0.04 * rows["num_scored"], 0.0))
    result = compare(rows, moved)
    line = result.cells[at(result.cells, "yarn", 1024)].iloc[0]
    assert line["ratio"] > 1.004
    assert line["verdict"] == "same"


def test_numerical_noise_raises_no_alarm(rows: pd.DataFrame) -> None:
    some = rows[rows["ctx"] == 1024]
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(0.0, 1e-5, len(some))
        assert compare(some, some.assign(nll_sum=some["nll_sum"] * (1 + noise))).exit_code == 0


def test_other_tokens_under_the_same_fingerprint_are_found(rows: pd.DataFrame) -> None:
    cut = at(rows, "yarn", 512) & (rows["document"] == "speech-3") & (rows["window"] == 2)
    truncated = compare(rows, rows[~cut])
    assert verdicts(truncated)["yarn", 512] == "different"
    assert (
        "1 documents have other scored tokens, 'speech-3' 1071 before and 791 after" in truncated.cells["note"].tolist()
    )
    assert truncated.exit_code == 1
    moved = rows.assign(score_from=rows["score_from"] + at(rows, "none", 512))
    assert verdicts(compare(rows, moved))["none", 512] == "different"


def test_other_documents_or_protocol_are_refused(rows: pd.DataFrame) -> None:
    other = rows.assign(dataset_fingerprint=np.where(at(rows, "yarn", 512), "beef", "f00d"))
    result = compare(rows, other)
    assert len(result.cells) == 5
    assert result.exit_code == 2
    assert "its documents differ: f00d before, beef after" in result.refused[0]
    assert "yarn" in result.refused[0]
    stride = compare(rows, rows.assign(protocol_params=json.dumps({"stride": 128})))
    assert len(stride.refused) == 6
    assert 'its protocol differs: {"stride": 256} before, {"stride": 128} after' in stride.refused[0]
    worse = compare(rows, scaled(other, "yarn", 1024, 1.1))
    assert worse.exit_code == 1


def test_missing_cells_are_said(rows: pd.DataFrame) -> None:
    result = compare(rows[~at(rows, "none", 512)], rows[~at(rows, "yarn", 2048)])
    assert result.missing == {
        "candidate": ['reference yarn {"factor": 4.0} ctx 2k sliding sotu'],
        "baseline": ["reference none ctx 512 sliding sotu"],
    }
    assert result.exit_code == 0
    apart = compare(rows[rows["method"] == "none"], rows[rows["method"] == "yarn"])
    assert apart.exit_code == 2


def test_new_weights_and_dtypes_are_compared_and_noted(rows: pd.DataFrame) -> None:
    result = compare(rows, rows.assign(model_revision="def", dtype="bfloat16"))
    assert len(result.cells) == 6
    assert set(result.cells["note"]) == {"model_revision abc before, def after; dtype float32 before, bfloat16 after"}


def test_few_documents_are_judged_by_the_ratio_alone(rows: pd.DataFrame) -> None:
    few = rows[rows["document_index"] < 3]
    result = compare(few, scaled(few, "yarn", 1024, 1.01))
    assert verdicts(result)["yarn", 1024] == "worse"
    assert set(result.cells["note"]) == {"too few documents for an interval"}


def test_one_side_holding_a_cell_twice_is_an_error(rows: pd.DataFrame) -> None:
    twice = pd.concat([rows, rows.assign(cell_id=rows["cell_id"] + "x", model_revision="def")])
    with pytest.raises(UserError, match=r"The candidate holds reference .* more than once"):
        compare(rows, twice)


# Cells of an identity of before -----------------------------------------------------------------------------------


def of_before(rows: pd.DataFrame) -> pd.DataFrame:
    """The same cells as an older version named them."""
    return rows.assign(
        cell_id="old-" + rows["cell_id"], dataset_fingerprint="0001", identity_version=np.nan, dataset_source=None
    )


def test_cells_of_another_version_of_identity_are_paired_by_names_and_parameters_and_said(rows: pd.DataFrame) -> None:
    result = compare(of_before(rows), scaled(rows, "yarn", 1024, 1.02))
    found = verdicts(result)
    assert found.pop(("yarn", 1024)) == "worse"
    assert list(found.values()) == ["same"] * 5
    said = "identity of version 1 before, 2 after: paired by names and parameters"
    assert set(result.cells["note"]) == {said}
    assert result.refused == []
    assert result.missing == {"baseline": [], "candidate": []}


def test_of_two_texts_of_one_name_an_older_cell_finds_its_own(rows: pd.DataFrame) -> None:
    other = rows.assign(
        cell_id="b-" + rows["cell_id"], document="b" + rows["document"], dataset_fingerprint="beef", dataset_source="b"
    )
    both = compare(of_before(rows), pd.concat([other, rows]))
    assert list(verdicts(both).values()) == ["same"] * 6
    assert both.refused == []
    assert set(both.cells["dataset_source"]) == {"sotu"}
    alone = compare(of_before(rows), other)
    assert len(alone.refused) == 6
    assert "its documents differ: 16 documents have other scored tokens" in alone.refused[0]
    twins = compare(of_before(rows), pd.concat([rows, rows.assign(cell_id="c-" + rows["cell_id"], dtype="bfloat16")]))
    assert len(twins.refused) == 6
    assert "it has 2 counterparts of another identity" in twins.refused[0]


def test_other_protocols_stay_apart_under_any_identity(rows: pd.DataFrame) -> None:
    result = compare(of_before(rows), rows.assign(protocol_params=json.dumps({"stride": 128})))
    assert len(result.refused) == 6
    assert "its protocol differs" in result.refused[0]


def checkpoint(rows: pd.DataFrame, name: str, factor: float = 1.0) -> pd.DataFrame:
    """The same cells of another checkpoint under the same name of the model."""
    return rows.assign(
        cell_id=rows["cell_id"] + name, model_source=f"runs/{name}", model_fingerprint=name,
        nll_sum=rows["nll_sum"] + np.log(factor) * rows["num_scored"],
    )  # fmt: skip


def test_two_checkpoints_under_one_name_are_named_and_compared_each_with_its_own(rows: pd.DataFrame) -> None:
    before = pd.concat([checkpoint(rows, "ck1"), checkpoint(rows, "ck2", 1.5)])
    after = pd.concat([checkpoint(rows, "ck2", 1.5 * 1.01), checkpoint(rows, "ck1")])
    result = compare(before, after)
    assert not result.refused
    ratios = result.cells.groupby("model")["ratio"].agg(["min", "max", "size"])
    assert ratios.index.tolist() == ["reference (runs/ck1)", "reference (runs/ck2)"]
    assert ratios["size"].tolist() == [6, 6]
    assert ratios["min"].tolist() == pytest.approx([1.0, 1.01], rel=1e-9)
    assert ratios["max"].tolist() == pytest.approx([1.0, 1.01], rel=1e-9)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"model_folder": ("a", "b")}, ["(a/last revision abc)", "(b/last revision abc)"]),
        ({"model_revision": ("0123456789abcdef", "f00d")}, ["(last revision 0123456789ab)", "(last revision f00d)"]),
    ],
)
def test_two_checkpoints_of_one_folder_name_are_compared_each_with_its_own(
    rows: pd.DataFrame, columns: dict, expected: list[str]
) -> None:
    def both(factor: float) -> list[pd.DataFrame]:
        made = [checkpoint(rows, "ck1"), checkpoint(rows, "ck2", factor)]
        return [
            part.assign(model_source="last", **{name: values[place] for name, values in columns.items()})
            for place, part in enumerate(made)
        ]

    result = compare(pd.concat(both(1.5)), pd.concat(both(1.5 * 1.01)[::-1]))
    assert not result.refused
    ratios = result.cells.groupby("model")["ratio"].agg(["min", "max", "size"])
    assert ratios.index.tolist() == [f"reference {name}" for name in expected]
    assert ratios["size"].tolist() == [6, 6]
    assert ratios["min"].tolist() == pytest.approx([1.0, 1.01], rel=1e-9)
    assert ratios["max"].tolist() == pytest.approx([1.0, 1.01], rel=1e-9)


def test_a_checkpoint_that_one_side_lacks_is_missing_by_its_name(rows: pd.DataFrame) -> None:
    result = compare(checkpoint(rows, "ck1"), pd.concat([checkpoint(rows, "ck1"), checkpoint(rows, "ck2", 1.5)]))
    assert set(result.cells["model"]) == {"reference (runs/ck1)"}
    assert len(result.missing["baseline"]) == 6
    assert all(named.startswith("reference (runs/ck2) ") for named in result.missing["baseline"])


def test_one_checkpoint_before_and_another_after_are_compared(rows: pd.DataFrame) -> None:
    result = compare(checkpoint(rows, "ck1"), checkpoint(rows, "ck2", 1.01))
    assert result.cells["model"].unique().tolist() == ["reference"]
    assert result.cells["ratio"].tolist() == pytest.approx([1.01] * 6, rel=1e-9)


def test_two_checkpoints_of_one_place_cannot_be_told_apart(rows: pd.DataFrame) -> None:
    twice = pd.concat([rows, checkpoint(rows, "ck1").assign(model_source=rows["model_source"])])
    with pytest.raises(UserError, match=r"The baseline holds .* more than once"):
        compare(twice, rows)
