"""The best of measured methods: by which metric, with which interval, and separated from the next or not."""

import json
from dataclasses import replace
from math import nan

import numpy as np
import pandas as pd
import pytest

from harness.deployment.winner import choose, measured, method_of
from harness.errors import UserError
from harness.methods import RopeGeometry, build
from harness.statistics.metric import PLAIN
from harness.statistics.metrics import METRICS
from harness.statistics.summary import DEFAULT
from tests.statistics import token_cells
from tests.synthetic import TRAINED, cell, sweep

GEOMETRY = RopeGeometry(rotary_dim=64, rope_theta=10_000.0, original_max_position_embeddings=TRAINED)
PERPLEXITY = METRICS["perplexity"]


def chosen(rows, ctx=2048, model="reference", metric=PERPLEXITY, **filters):
    return choose(rows, metric, ctx, model, filters, DEFAULT)


def shifted(rows, method, by, spread=0.0):
    """The rows with one more method: those of yarn, its losses moved by a number that varies by document."""
    moved = rows[rows["method"] == "yarn"].copy()
    noise = np.random.default_rng(0).normal(0, 1, int(moved["document_index"].max()) + 1)
    noise -= noise.mean()
    nll = by + spread * noise[moved["document_index"]]
    moved["nll_sum"] += nll * moved["num_scored"]
    return pd.concat([rows, moved.assign(method=method, cell_id=method + moved["cell_id"])], ignore_index=True)


@pytest.mark.parametrize("metric", ["perplexity", "bits_per_byte"])
def test_the_best_is_the_least_with_its_interval(metric):
    choice = chosen(METRICS[metric].rows(lambda table: sweep(), PLAIN), metric=METRICS[metric])
    assert choice.cell["method"] == "yarn"
    assert choice.value.low < choice.value.value < choice.value.high
    values = [rival.value.value for rival in choice.rivals]
    assert values == sorted(values)
    assert values[0] > choice.value.value


def test_longppl_picks_who_reads_and_says_by_which_tokens():
    """By perplexity the blind method is ahead; on the key tokens of the evaluator it is far behind."""
    draw = np.random.default_rng(1)
    wide = [[nan, *draw.normal(5, 0.1, 9)] for _ in range(6)]
    far = [[own if place in (4, 7) else None for place, own in enumerate(row)] for row in wide]
    reads = [[nan if x != x else 1.0 if far[d][i] else x + 0.2 for i, x in enumerate(r)] for d, r in enumerate(wide)]
    near = [[nan if x != x else 1.02 if far[d][i] else x + 0.3 for i, x in enumerate(r)] for d, r in enumerate(wide)]
    near = [[x + 0.1 * (-1) ** d if x == 1.02 else x for x in row] for d, row in enumerate(near)]
    blind = [[x - 2.0 if x == x else nan for x in row] for row in wide]
    cells = [token_cells.cell(own, method=m) for m, own in (("dca", reads), ("rerope", near), ("windowed", blind))]
    rows = METRICS["longppl"].rows(
        token_cells.load(*cells, token_cells.short(wide)), replace(PLAIN, evaluators=("dca",))
    )
    choice = chosen(rows, ctx=10, model="tiny", metric=METRICS["longppl"])
    assert choice.cell["method"] == "dca"
    assert choice.counted == "key tokens by dca: 12 in 6 documents"
    assert [rival.cell["method"] for rival in choice.rivals] == ["rerope", "windowed"]
    assert [rival.cell["method"] for rival in choice.inseparable] == ["rerope"]
    perplexity = pd.concat([one["windows"] for one in cells], ignore_index=True)
    assert chosen(perplexity, ctx=10, model="tiny").cell["method"] == "windowed"
    assert chosen(perplexity, ctx=10, model="tiny").counted is None


def test_a_clear_winner_is_separated():
    choice = chosen(sweep())
    assert choice.rivals[0].is_separated
    assert choice.inseparable == ()
    assert choice.rivals[0].against_best.low > 1


def test_a_winner_within_the_noise_is_not():
    choice = chosen(shifted(sweep(), "ntk_by_parts", 0.001, spread=0.05))
    assert [rival.cell["method"] for rival in choice.inseparable] == ["ntk_by_parts"]
    assert choice.rivals[0].against_best.low < 1 < choice.rivals[0].against_best.high


def test_separation_is_paired_not_a_comparison_of_intervals():
    choice = chosen(
        shifted(sweep(), "ntk_by_parts", 0.002)
    )  # the same shift in every document: far within the interval
    following = choice.rivals[0]
    assert following.value.low < choice.value.high
    assert following.is_separated


def test_too_few_documents_separate_nothing():
    choice = chosen(sweep(num_documents=3))
    assert not any(rival.is_separated for rival in choice.rivals)


def test_a_metric_of_which_more_is_better_picks_the_most():
    assert chosen(sweep(), metric=replace(PERPLEXITY, higher_is_better=True)).cell["method"] == "none"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"ctx": 999}, "no cell at ctx=999 in the results; they hold ctx 1024, 2048, 256, 4096, 512"),
        ({"model": "llama"}, "no cell with model=llama in the results; they hold reference"),
        ({"dataset": "pg19"}, "no cell with dataset=pg19 in the results; they hold sotu"),
    ],
)
def test_what_is_not_there_is_named(arguments, said):
    with pytest.raises(UserError, match=said):
        chosen(sweep(), **arguments)


def test_cells_of_several_kinds_are_not_compared():
    rows = pd.concat([sweep(), cell("yarn", 2048, dataset="pg19", cell_id="other")], ignore_index=True)
    with pytest.raises(UserError, match="these differ: dataset pg19, sotu"):
        chosen(rows)
    assert chosen(rows, dataset="sotu").cell["dataset"] == "sotu"


def test_the_method_of_a_cell_is_the_one_that_ran():
    params = {"factor": 4.0, "beta_fast": 16.0, "logn": True, "resonance": True}
    rows = cell("yarn", 2048, method_params=json.dumps(params))
    method, scaled = method_of(chosen(rows).cell, GEOMETRY)
    assert scaled
    assert method.method == build("yarn", {"factor": 4.0, "beta_fast": 16.0}, GEOMETRY, 2048)


def test_what_the_nearest_costs_is_its_own_cell():
    choice = chosen(sweep())
    found = measured(choice, build("ntk", {"factor": 4.0}, GEOMETRY, 2048), GEOMETRY)
    assert found is not None
    assert found.cell["method"] == "ntk"
    assert found.against_best.value == pytest.approx(found.value.value / choice.value.value)
    assert measured(choice, build("ntk", {"factor": 2.0}, GEOMETRY, 2048), GEOMETRY) is None
