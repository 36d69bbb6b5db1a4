import numpy as np
import pandas as pd
import pytest

from harness.errors import UserError
from harness.statistics.metric import BITS_PER_BYTE, BYTE_PERPLEXITY, PLAIN
from harness.statistics.summary import AGGREGATES, Aggregate, Averaging, loss_by_position, point, summarize
from tests import synthetic
from tests.reference import statistics


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return synthetic.sweep(lengths=(512, 1024), num_documents=6)


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_aggregates_against_plain_loops(rows: pd.DataFrame, aggregate: Aggregate) -> None:
    weighted = rows.assign(weight=np.where(rows["window"] == 0, 1.0, 3.5))
    summary = summarize(weighted, Averaging(aggregate))
    assert len(summary) == 8
    for line in summary.to_dict("records"):
        own = weighted[weighted["cell_id"] == line["cell_id"]].to_dict("records")
        assert line["perplexity"] == pytest.approx(statistics.perplexity(own, aggregate), rel=1e-12)
        assert line["low"] < line["perplexity"] < line["high"]
        assert point(pd.DataFrame(own), aggregate) == pytest.approx(line["perplexity"], rel=1e-12)
    assert summary["sampled"].all()


def test_aggregates_differ_from_each_other(rows: pd.DataFrame) -> None:
    values = [summarize(rows, Averaging(name))["perplexity"].iloc[0] for name in AGGREGATES]
    assert len({round(value, 6) for value in values}) == len(values)


def test_counts_and_bits_per_byte(rows: pd.DataFrame) -> None:
    line = summarize(rows).iloc[0]
    own = rows[rows["cell_id"] == line["cell_id"]]
    assert (line["num_documents"], line["num_windows"], line["num_scored"]) == (6, 18, own["num_scored"].sum())
    assert line["bits_per_byte"] == pytest.approx(own["nll_sum"].sum() / np.log(2) / own["num_bytes"].sum(), rel=1e-12)
    assert not line["sampled"]


@pytest.mark.parametrize("aggregate", ["token", "document"])
def test_losses_in_windows_without_bytes_are_counted(rows: pd.DataFrame, aggregate: Aggregate) -> None:
    """A window may score only parts of a character, whose bytes count where it ends: its loss is the text's, too."""
    own = rows[rows["cell_id"] == rows["cell_id"].iloc[0]].copy()
    own.loc[own["window"] == 1, "num_bytes"] = 0
    bits = BITS_PER_BYTE.rows(lambda name: {"windows": own}[name], PLAIN)
    value = summarize(bits, Averaging(aggregate), BITS_PER_BYTE)["bits_per_byte"].item()
    by_document = own.groupby("document")[["nll_sum", "num_bytes"]].sum()
    means = by_document["nll_sum"] / by_document["num_bytes"] / np.log(2)
    total = own["nll_sum"].sum() / own["num_bytes"].sum() / np.log(2)
    assert value == pytest.approx(total if aggregate == "token" else means.mean(), rel=1e-9)
    one = summarize(own, Averaging(aggregate), BYTE_PERPLEXITY)["byte_perplexity"].item()
    assert aggregate == "document" or 2**value == pytest.approx(one, rel=1e-9)
    with pytest.raises(UserError, match="bits_per_byte has no mean of windows"):
        summarize(bits, Averaging("window"), BITS_PER_BYTE)


def test_one_document_cut_into_more_windows_changes_no_interval() -> None:
    """Windows of a document are not independent: cutting them finer must not narrow anything."""
    whole = synthetic.cell("yarn", 1024, num_windows=1)
    halves = pd.concat([whole.assign(window=w, nll_sum=whole["nll_sum"] / 2, num_scored=whole["num_scored"] / 2)
                        for w in (0, 1)])  # fmt: skip
    one, two = summarize(whole).iloc[0], summarize(halves).iloc[0]
    assert one[["perplexity", "low", "high"]].tolist() == pytest.approx(
        two[["perplexity", "low", "high"]].tolist(), rel=1e-12
    )


def test_sampled_windows_with_weights_are_unbiased() -> None:
    """The first window and three sampled ones out of forty, each standing for 13, against all forty-one."""
    rng = np.random.default_rng(0)
    all_rows = synthetic.cell("yarn", 1024, num_windows=41)
    all_rows["nll_sum"] += np.where(all_rows["window"] == 0, 0.3, 0.0) * all_rows["num_scored"]
    truth = summarize(all_rows)["perplexity"].iloc[0]
    weighted, bare = [], []
    for _ in range(60):
        chosen = {0, *rng.choice(np.arange(1, 41), 3, replace=False)}
        sample = all_rows[all_rows["window"].isin(chosen)]
        sample = sample.assign(weight=np.where(sample["window"] == 0, 1.0, 40 / 3))
        weighted.append(summarize(sample)["perplexity"].iloc[0])
        bare.append(summarize(sample.assign(weight=1.0))["perplexity"].iloc[0])
    assert np.mean(weighted) == pytest.approx(truth, rel=1e-3)
    assert abs(np.mean(bare) / truth - 1) > 0.05


def test_order_of_rows_changes_nothing(rows: pd.DataFrame) -> None:
    shuffled = rows.sample(frac=1.0, random_state=3)
    pd.testing.assert_frame_equal(summarize(rows), summarize(shuffled), check_exact=False, rtol=1e-12)


def test_mistakes_are_one_line(rows: pd.DataFrame) -> None:
    with pytest.raises(UserError, match=r"Unknown aggregate 'tokens'\. Did you mean 'token'"):
        Averaging("tokens")
    with pytest.raises(UserError, match="confidence must lie between 0 and 1, got 95"):
        Averaging(confidence=95)
    with pytest.raises(UserError, match="no results"):
        summarize(rows.iloc[:0])
    with pytest.raises(UserError, match="'speech-0' window 0 has nll_sum nan"):
        summarize(rows.assign(nll_sum=np.nan))


def test_loss_by_position_against_plain_sums() -> None:
    positions = synthetic.positions(synthetic.sweep(("none", "yarn"), (512, 1024)))
    table = loss_by_position(positions)
    for line in table.sample(10, random_state=0).to_dict("records"):
        mine = (positions["cell_id"] == line["cell_id"]) & (positions["position_begin"] == line["position_begin"])
        own = positions[mine].to_dict("records")
        assert line["nll"] == pytest.approx(np.log(statistics.perplexity(own, "token")), rel=1e-12)
        assert line["position_begin"] <= line["position"] < line["position_end"]
        assert line["low"] < line["nll"] < line["high"]
        assert line["num_scored"] == sum(row["num_scored"] for row in own)
