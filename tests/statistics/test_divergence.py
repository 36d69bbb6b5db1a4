"""KL to a base as one reads it: sums, percentiles, intervals over documents, tables, figures and comparisons."""

import json
import re
import sys

import numpy as np
import pandas as pd
import pytest

from harness import compare, plot, report
from harness.errors import UserError
from harness.results import store
from harness.runs import runner
from harness.statistics import intervals
from harness.statistics.divergence import (
    PERCENTILES,
    correlation,
    difference,
    divergences,
    percentiles,
    token_rows,
)
from harness.statistics.divergence_text import divergence_text
from harness.statistics.metrics import METRICS
from harness.statistics.summary import Averaging, loss_by_position, summarize
from tests.reference.divergence import correlation as reference_correlation
from tests.reference.divergence import percentile
from tests.sweeps import Place

AVERAGING = Averaging()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Six documents; NTK and linear beside the model as it is, at two lengths, and a cell without a base."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("divergence")
        patch.setenv("HARNESS_CACHE", str(folder / "cache"))
        made = Place(folder, documents=6)
        protocol = "protocol=sliding protocol.stride=16 protocol.max_windows=3"
        cells = [
            f"method={method} ctx={ctx} method@base.method=none {protocol}"
            for method in ("linear", "ntk")
            for ctx in (64, 96)
        ]
        outcomes = runner.run(made.prepared(*cells, "method=none ctx=64 protocol=sliding protocol.stride=16"))
        assert [o.status for o in outcomes] == ["computed"] * 5
        return made


def load(place):
    return lambda table: store.load_results(place.results, table)


def test_statistics_of_a_cell_against_plain_numpy(place):
    bins = load(place)("kl")
    tokens = token_rows(load(place), bins)
    table = divergences(bins, tokens, AVERAGING)
    assert len(table) == 4
    assert (tokens["weight"] > 1).any()
    for line in table.to_dict("records"):
        own = tokens[tokens["cell_id"] == line["cell_id"]]
        weight = own["weight"] / own["weight"].sum()
        change = np.exp(-own["nll"].astype(float)) - np.exp(-own["base_nll"].astype(float))
        assert line["num_scored"] == len(own)
        assert line["kl"] == pytest.approx((weight * own["kl"]).sum(), rel=1e-5)
        assert line["same_top"] == pytest.approx((weight * own["same_top"]).sum(), rel=1e-9)
        assert line["delta_p"] == pytest.approx((weight * change).sum(), rel=1e-4, abs=1e-9)
        assert line["delta_p_rms"] == pytest.approx(np.sqrt((weight * change**2).sum()), rel=1e-5)
        assert line["ppl_ratio"] == pytest.approx(line["ppl"] / line["base_ppl"], rel=1e-9)
        assert line["ppl_difference"] == pytest.approx(line["ppl"] - line["base_ppl"], rel=1e-9)
        assert line["ppl_log_ratio"] == pytest.approx(np.log(line["ppl"]) - np.log(line["base_ppl"]), rel=1e-9)
        assert line["correlation"] == pytest.approx(
            reference_correlation(own["nll"], own["base_nll"], own["weight"]), rel=1e-9
        )
        for name in ("ppl_difference", "correlation"):
            assert line[f"{name}_low"] < line[name] < line[f"{name}_high"]
        assert line["kl_low"] < line["kl"] < line["kl_high"]
        assert line["kl_p50_low"] <= line["kl_p50"] <= line["kl_p50_high"]
        assert line["kl_max"] == own["kl"].max() > line["kl_p99"] > line["kl_p1"] > line["kl_min"] >= 0


def test_percentiles_lie_between_the_two_nearest_as_llama_cpp_takes_them():
    values = np.random.default_rng(0).gamma(0.3, 1.0, 1237)
    found = percentiles(values, np.ones(1237), np.zeros(1237, int), AVERAGING)
    for share, one in zip(PERCENTILES, found, strict=True):
        assert one.value == pytest.approx(percentile(values, share / 100), rel=1e-12)
        assert np.isnan(one.low)  # one document


def test_statistics_that_llama_cpp_prints_are_all_there_and_in_its_order(place, tmp_path):
    """Names and order of its `kl_divergence`; of KL it prints no 75 % and no 25 %."""
    shares = ["maximum", "99.9 %", "99 %", "95 %", "90 %", "75 %", "median", "25 %", "10 %", "5 %", "1 %", "0.1 %"]
    expected = [
        "perplexity", "perplexity of the base", "correlation of losses", "ln of their ratio", "ratio of perplexities",
        "difference of perplexities", "mean KL (nats)", *(f"KL {share}" for share in [*shares, "minimum"]),
        "mean delta p", *(f"delta p {share}" for share in [*shares, "minimum"]), "RMS delta p", "same top",
    ]  # fmt: skip
    bins = load(place)("kl")
    text = divergence_text(divergences(bins, token_rows(load(place), bins), AVERAGING), AVERAGING)
    lines = text.split("\n\n")[0].splitlines()[3:]
    assert [re.split("  +", line)[0] for line in lines] == expected


def made(draw, number):
    """Losses of documents that differ in their level: a mean at random, tokens at random about it."""
    level = np.repeat(draw.normal(2, 0.3, number), 40)
    own = level + draw.normal(0, 0.3, (2, 40 * number))
    return pd.DataFrame({"nll": own[0] + 0.1, "base_nll": own[1]}), np.repeat(np.arange(number), 40)


def test_limits_of_correlation_and_difference_cover_over_documents():
    """The truth, from very many documents, lies within as often as 95 % limits promise, up to the error of counting."""
    many, _ = made(np.random.default_rng(1), 20_000)
    truth = [np.corrcoef(many["nll"], many["base_nll"])[0, 1], np.subtract(*np.exp(many.mean()))]
    covered = []
    for seed in range(100):
        losses, documents = made(np.random.default_rng(2 + seed), 20)
        sums, counts = losses.groupby(documents).sum().to_numpy(), np.full((20, 1), 40.0)
        found = correlation(losses, np.ones(len(losses)), documents, AVERAGING), difference(sums, counts, AVERAGING)
        covered.append([one.low <= true <= one.high for one, true in zip(found, truth, strict=True)])
    assert (np.abs(np.mean(covered, axis=0) - 0.95) < 0.045).all()


def test_weights_of_a_correlation_stand_for_copies():
    losses, documents = made(np.random.default_rng(3), 8)
    weights = np.where(np.arange(len(losses)) % 3 == 0, 4, 1)
    copied = losses.loc[losses.index.repeat(weights)]
    expected = correlation(copied, np.ones(len(copied)), documents.repeat(weights), AVERAGING)
    assert correlation(losses, weights.astype(float), documents, AVERAGING) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("losses", [[1.0, 1.0, 1.0], [0.1, 0.1, 0.1]])
def test_losses_that_never_change_have_no_correlation(losses):
    tokens = pd.DataFrame({"nll": losses, "base_nll": [1.0, 2.0, 4.0]})
    assert np.isnan(correlation(tokens, np.ones(3), np.zeros(3, int), AVERAGING).value)


def test_losses_that_are_the_same_have_a_correlation_of_one():
    losses, documents = made(np.random.default_rng(4), 8)
    same = losses.assign(base_nll=losses["nll"])
    assert correlation(same, np.ones(len(same)), documents, AVERAGING).value == pytest.approx(1, rel=1e-12)


def test_weights_stand_for_copies():
    values = np.random.default_rng(1).gamma(0.3, 1.0, 400)
    weights = np.where(np.arange(400) % 3 == 0, 4.0, 1.0)
    copied = np.repeat(values, weights.astype(int))
    found = percentiles(values, weights, np.zeros(400, int), AVERAGING)
    for share, one in zip(PERCENTILES, found, strict=True):
        assert one.value == np.quantile(copied, share / 100, method="inverted_cdf")


def test_limits_of_a_median_cover_over_documents():
    """Documents that differ: the limits follow the documents, not the tokens, and hold the truth nine times in ten."""
    draw, covered = np.random.default_rng(2), 0
    for seed in range(40):
        levels = draw.normal(0, 1, 20)
        documents = np.repeat(np.arange(20), 50)
        values = levels[documents] + 0.1 * draw.normal(size=1000)
        median = percentiles(values, np.ones(1000), documents, Averaging(seed=seed))[PERCENTILES.index(50)]
        covered += median.low <= 0 <= median.high
        assert median.high - median.low > 0.4  # of tokens alone it would be 0.13
    assert covered >= 35


def test_few_documents_have_no_limits(place):
    bins = load(place)("kl")
    few = bins[bins["document_index"] < intervals.MIN_DOCUMENTS - 1]
    assert divergences(few, None, AVERAGING)["kl_low"].isna().all()


@pytest.mark.parametrize(("name", "column"), [("kl", "kl"), ("same_top", "same_top")])
def test_metrics_are_the_statistics(place, name, column):
    metric = METRICS[name]
    bins = metric.rows(load(place), None)
    summary = summarize(bins, AVERAGING, metric).set_index("cell_id")
    table = divergences(bins, None, AVERAGING).set_index("cell_id").loc[summary.index]
    for end in ("", "_low", "_high"):
        np.testing.assert_allclose(summary[end[1:] or name], table[column + end], rtol=1e-12)


def test_kl_by_position_is_the_mean_of_the_tokens_there(place):
    bins = load(place)("kl")
    tokens = token_rows(load(place), bins).merge(
        load(place)("windows")[["cell_id", "document_index", "window", "begin", "bos"]],
        on=["cell_id", "document_index", "window"],
    )
    position = tokens["token"] - tokens["begin"] + tokens["bos"]
    for line in loss_by_position(bins, AVERAGING, METRICS["kl"]).to_dict("records"):
        there = tokens[
            (tokens["cell_id"] == line["cell_id"])
            & (position >= line["position_begin"])
            & (position < line["position_end"])
        ]
        assert line["kl"] == pytest.approx(np.average(there["kl"], weights=there["weight"]), rel=1e-5, abs=1e-9)


def test_cells_without_a_base_are_asked_for_one(tmp_path, own_cache):
    alone = Place(tmp_path)
    runner.run(alone.prepared("method=none ctx=16"))
    with pytest.raises(UserError, match="KL needs cells with a base"):
        METRICS["kl"].rows(load(alone), None)


# Commands ------------------------------------------------------------------------------------------------------------


def drawn(place, monkeypatch, tmp_path, *overrides):
    given = [f"results_dir={place.results}", f"plots_dir={tmp_path}", "formats=[svg]", *overrides]
    monkeypatch.setattr(sys, "argv", ["plot", *given])
    plot.main()
    return sorted(path.name for path in tmp_path.iterdir())


def test_plot_draws_kl_by_length_and_by_position_and_prints_the_statistics(place, monkeypatch, tmp_path, capsys):
    assert drawn(place, monkeypatch, tmp_path, "metric=kl") == ["kl.svg"]
    printed = capsys.readouterr().out
    assert "KL(tiny none || tiny linear)" in printed
    assert "KL 99.9 %" in printed
    assert "95 % intervals over documents" in printed
    assert "KL to the base (nats a token)" in (tmp_path / "kl.svg").read_text()
    assert drawn(place, monkeypatch, tmp_path, "metric=kl", "figure=position") == ["kl.svg", "position-kl.svg"]
    assert drawn(place, monkeypatch, tmp_path, "metric=kl", "figure=ratio", "baseline=ntk")[-1] == "ratio-kl.svg"


def test_perplexity_of_cells_with_and_without_a_base_is_drawn_apart(place, monkeypatch, tmp_path):
    drawn(place, monkeypatch, tmp_path)
    assert "KL to tiny none" in (tmp_path / "perplexity.svg").read_text()


def test_compare_judges_kl_by_its_difference(place, tmp_path, capsys):
    assert compare.main([str(place.results), str(place.results), "--metric", "kl"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("same") == 4
    worse = tmp_path / "worse"
    for place_, columns, tables in cells(place):
        tables["kl"]["kl_sum"] += 0.01 * tables["kl"]["num_scored"]
        store.write(worse, columns, tables, {"of": place_.name})
    assert compare.main([str(place.results), str(worse), "--metric", "kl", "--format", "json"]) == 1
    judged = json.loads(capsys.readouterr().out)["cells"]
    assert [cell["verdict"] for cell in judged] == ["worse"] * 4
    assert all(cell["ratio"] == pytest.approx(0.01, rel=1e-6) for cell in judged)
    assert compare.main([str(worse), str(place.results), "--metric", "kl"]) == 0


def cells(place):
    """Every cell with a base: where it lies, its columns, its tables."""
    for file in sorted(place.results.rglob("*.kl.parquet")):
        at = file.with_name(file.name.removesuffix(".kl.parquet"))
        tables = {name: store.load_results(store.table_file(at, name), name) for name in ("windows", "kl")}
        yield at, tables["windows"].iloc[0][list(store.schema.cell_columns())].to_dict(), tables


def test_the_report_holds_the_statistics(place, tmp_path):
    page = report.build(place.results)
    assert "KL to a base" in page
    assert "RMS delta p" in page
    of_kl = report.build(place.results, metric=METRICS["kl"])
    assert "Kl to the base" in of_kl or "KL to the base" in of_kl
