import json

import pandas as pd
import pytest

from harness.errors import UserError
from harness.statistics.decision import decide
from harness.statistics.formats import formatted
from harness.statistics.lines import label, panels, tokens
from harness.statistics.summary import summarize
from tests import synthetic


def lines(summary: pd.DataFrame) -> dict[str, list[int]]:
    table = label(summary)
    return {name: sorted(rows["ctx"]) for name, rows in table.groupby("curve")}


def cells(*given: tuple[str, int, float | None, dict]) -> pd.DataFrame:
    rows = []
    for method, ctx, factor, params in given:
        text = json.dumps({**params, "factor": factor})
        same = {"cell_id": f"{method}{ctx}{factor}{text}", "factor": factor, "method_params": text}
        rows.append(synthetic.cell(method, ctx, num_windows=1).assign(**same))
    return summarize(pd.concat(rows))


def test_automatic_factors_are_one_line_under_the_bare_name() -> None:
    assert lines(cells(("yarn", 512, 1.0, {}), ("yarn", 1024, 2.0, {}), ("yarn", 4096, 8.0, {}))) == {
        "yarn": [512, 1024, 4096]
    }


def test_fixed_factor_is_named_and_owns_the_length_it_fits() -> None:
    assert lines(cells(("yarn", 512, 8.0, {}), ("yarn", 1024, 8.0, {}), ("yarn", 4096, 8.0, {}))) == {
        "yarn, factor 8": [512, 1024, 4096]
    }


def test_both_rules_share_the_cell_where_they_meet() -> None:
    both = cells(("yarn", 1024, 2.0, {}), ("yarn", 4096, 8.0, {}), ("yarn", 1024, 8.0, {}))
    assert lines(both) == {"yarn": [1024, 4096], "yarn, factor 8": [1024, 4096]}


def test_only_parameters_that_differ_are_named() -> None:
    base = {"beta_fast": 32.0, "beta_slow": 1.0}
    assert list(lines(cells(("yarn", 1024, 2.0, base), ("yarn", 2048, 4.0, base)))) == ["yarn"]
    two = lines(cells(("yarn", 1024, 2.0, base), ("yarn", 1024, 2.0, base | {"beta_fast": 16.0})))
    assert list(two) == ["yarn, beta_fast 16", "yarn, beta_fast 32"]


def test_a_modifier_that_a_cell_runs_without_is_not_named() -> None:
    scales = ({"logn": True}, {"query_scale": {"name": "floor", "beta": 0.1, "every": None}}, {"kv_cache": "q8_0"})
    found = lines(cells(("yarn", 1024, 2.0, {}), *(("yarn", 1024, 2.0, scale) for scale in scales)))
    assert list(found) == [
        "yarn", "yarn, kv_cache q8_0", "yarn, logn True", "yarn, query_scale floor (beta 0.1)",
    ]  # fmt: skip


def test_cells_that_nothing_tells_apart_are_numbered() -> None:
    one = synthetic.cell("none", 512, num_windows=1)
    two = pd.concat([one.assign(cell_id="aaaaaaaa1"), one.assign(cell_id="bbbbbbbb1")])
    summary = summarize(two)
    assert list(lines(summary)) == ["none, cell 1 of 2", "none, cell 2 of 2"]
    assert "cell 2 of 2" in formatted(decide(two), "text")


def test_models_read_at_two_trained_lengths_are_two_panels() -> None:
    one = synthetic.cell("none", 512, num_windows=1)
    two = pd.concat([one, one.assign(cell_id="b", original_max_position_embeddings=1024)])
    table = label(summarize(two))
    assert [title for title, _ in panels(table, "ctx", "curve")] == ["trained at 512", "trained at 1k"]


def test_panels_split_by_what_varies_and_refuse_what_coincides() -> None:
    one = synthetic.sweep(("none",), (512, 1024))
    other = one.assign(model="other", cell_id=one["cell_id"] + "-other")
    summary = label(summarize(pd.concat([one, other])))
    assert [title for title, _ in panels(summary, "ctx", "curve")] == ["other", "reference"]
    with pytest.raises(UserError, match=r"2 cells lie on one place of line 'none' at ctx 512.*\(model\)"):
        panels(summary, "ctx", "curve", columns=[])
    with pytest.raises(UserError, match="no column 'length'"):
        panels(summary, "length", "curve")


@pytest.mark.parametrize(
    ("count", "text"),
    [(256, "256"), (512, "512"), (1024, "1k"), (1536, "1.5k"), (2048, "2k"), (131072, "128k"), (1 << 20, "1M"),
     (3000, "3000"), (1000, "1000"), (2 << 20, "2M")],
)  # fmt: skip
def test_tokens(count: int, text: str) -> None:
    assert tokens(count) == text


def test_texts_of_a_sweep_are_told_apart_by_their_names_where_those_differ() -> None:
    one, other = (
        cells(("yarn", 512, 1.0, {})).assign(dataset="text", dataset_source=name, dataset_fingerprint=hashed)
        for name, hashed in (("one.txt", "aaaa"), ("two.txt", "bbbb"))
    )
    titles = [title for title, _ in panels(label(pd.concat([one, other], ignore_index=True)), "ctx", "curve")]
    assert titles == ["one.txt", "two.txt"]
    namesake = other.assign(dataset_source="one.txt")
    titles = [title for title, _ in panels(label(pd.concat([one, namesake], ignore_index=True)), "ctx", "curve")]
    assert titles == ["text 1 of 2", "text 2 of 2"]
    hub = other.assign(dataset="pg19", dataset_source="deepmind/pg19")
    titles = [title for title, _ in panels(label(pd.concat([one, hub], ignore_index=True)), "ctx", "curve")]
    assert titles == ["pg19", "text"]
