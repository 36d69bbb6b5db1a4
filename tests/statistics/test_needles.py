"""Needle gain and accuracy: against their definitions, of models whose answer is known, against greedy generation."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from harness.data.documents import Document
from harness.data.needle_spec import Asked
from harness.data.protocols import Targets
from harness.engine.engine import Engine
from harness.engine.spec import EngineSpec
from harness.errors import UserError
from harness.methods.attention.windowed import Windowed
from harness.models.install import applied
from harness.statistics.decision import Terms, decide
from harness.statistics.formats import formatted
from harness.statistics.intervals import interval, resamples
from harness.statistics.metric import PLAIN
from harness.statistics.needles import NEEDLE_ACCURACY, NEEDLE_GAIN, by_depth, reach
from harness.statistics.paired import paired
from harness.statistics.summary import Averaging, summarize
from tests.data.test_needles import grid
from tests.evaluations import scores, windows_table
from tests.reference.needles import Answered, accuracy, gain
from tests.reference.statistics import studentised_interval
from tests.tiny import tiny_llama

DEPTHS = (0.0, 0.5, 1.0)
REPEATS = 6


def answered(seed=0):
    """Answers of 2 to 4 tokens by (repeat, depth, right), some of them found."""
    draw = np.random.default_rng(seed)
    made = {}
    for repeat in range(REPEATS):
        for depth in DEPTHS:
            for right in (True, False):
                count = 2 + repeat % 3
                made[repeat, depth, right] = Answered(
                    draw.exponential(2, count).tolist(), (draw.random(count) < 0.8).tolist()
                )
    return made


def rows_of(made, **columns):
    """The windows table that these answers give."""
    documents, losses = [], []
    for (repeat, depth, right), one in made.items():
        ids = np.arange(9)
        documents.append(
            Document(f"{repeat} {depth} {right}", ids, np.arange(10), None, len(one.nll), Asked(depth, repeat, right))
        )
        losses.append(np.column_stack([one.nll, one.top1]))

    def known(ids, score_from):
        rows = [losses[i] for i in known.order.pop(0)]
        return torch.tensor(np.array(rows), dtype=torch.float32)

    known.order = [[i] for i in range(len(documents))]
    return windows_table(scores(known, documents, 9, Targets(bos="none"), tokens_per_batch=9), documents, **columns)


def measured(rows, metric):
    return metric.rows(lambda table: rows, PLAIN)


def test_both_are_what_their_definitions_say_with_intervals_over_repeats():
    made = answered()
    rows = rows_of(made)
    right, wrong = ([one for key, one in made.items() if key[2] is side] for side in (True, False))
    (line,) = summarize(measured(rows, NEEDLE_GAIN), metric=NEEDLE_GAIN).to_dict("records")
    assert line["needle_gain"] == pytest.approx(gain(right, wrong), rel=1e-6)
    assert line["num_documents"] == REPEATS
    saved = [
        sum(math.fsum(made[r, d, False].nll) - math.fsum(made[r, d, True].nll) for d in DEPTHS) for r in range(REPEATS)
    ]
    tokens = [float(sum(len(made[r, d, True].nll) for d in DEPTHS)) for r in range(REPEATS)]
    draws = [row.tolist() for block in resamples(REPEATS, 0) for row in block]
    limits = studentised_interval(saved, tokens, draws, 0.95)
    assert (line["low"], line["high"]) == pytest.approx(limits, rel=1e-5)
    (line,) = summarize(measured(rows, NEEDLE_ACCURACY), metric=NEEDLE_ACCURACY).to_dict("records")
    assert line["needle_accuracy"] == pytest.approx(accuracy(right), rel=1e-12)
    assert 0 < line["needle_accuracy"] < 1


def test_a_depth_by_itself():
    made = answered()
    for metric, definition in ((NEEDLE_GAIN, gain), (NEEDLE_ACCURACY, lambda right, wrong: accuracy(right))):
        table = by_depth(measured(rows_of(made), metric), metric=metric)
        for depth in DEPTHS:
            sides = [[one for key, one in made.items() if key[1:] == (depth, side)] for side in (True, False)]
            (value,) = table.loc[table["depth"] == depth, metric.name]
            assert value == pytest.approx(definition(*sides), rel=1e-5)


def found_at(shares, ctx=1000):
    """Rows of accuracy at depths 0, 0.25, 0.5, 0.75, 1, of 20 repeats each, of which these shares are found."""
    places = [
        (depth, repeat, share) for depth, share in zip(np.arange(5) / 4, shares, strict=True) for repeat in range(20)
    ]
    lines = [{"depth": depth, "found": float(repeat < round(20 * share))} for depth, repeat, share in places]
    return pd.DataFrame(lines).assign(cell_id="a", ctx=ctx)


@pytest.mark.parametrize(
    ("shares", "k_max", "k_farthest"),
    [
        ([1, 1, 1, 1, 1], 1000, 1000),
        ([0.15, 0.2, 0.9, 1, 1], 750, 750),  # exactly a fifth is enough
        ([0.5, 0.1, 0.2, 0.3, 1], 500, 1000),  # found again beyond a distance at which it is not
        ([1, 1, 1, 1, 0.1], 0, 1000),
        ([0, 0, 0, 0, 1], 0, 0),  # the end itself is no distance
        ([0, 0, 0, 0, 0], 0, 0),
    ],
)
def test_reach_by_hand(shares, k_max, k_farthest):
    rows = pd.concat([found_at(shares), found_at([1, 1, 1, 1, 1], 64).assign(cell_id="b")])
    table = reach(rows)
    assert table.loc["a"].tolist() == [k_max, k_farthest]
    assert table.loc["b"].tolist() == [64, 64]


def test_reach_is_printed_below_accuracy_alone():
    rows = rows_of(answered())
    for metric, is_shown in ((NEEDLE_ACCURACY, True), (NEEDLE_GAIN, False)):
        table = decide(measured(rows, metric), Terms(metric=metric))
        assert ("k_max" in table) is is_shown
        assert ("k_max, tokens back from the end" in formatted(table, "text")) is is_shown
        assert ("| none | 32 |" in formatted(table, "markdown")) is is_shown


@pytest.mark.parametrize(("repeats", "student"), [(5, 2.7764), (10, 2.2622), (20, 2.0930)])
def test_limits_of_accuracy_are_quantiles_further_out(repeats, student):
    """Hesterberg's expanded percentiles with tabled quantiles of Student's t."""
    found = np.minimum(5, np.arange(repeats) % 4 + 2)
    shares = found / 5
    draws = np.concatenate([block @ shares / repeats for block in map(np.asarray, resamples(repeats, 0))])
    outer = math.erfc(student * math.sqrt(repeats / (repeats - 1)) / math.sqrt(2)) / 2
    got = interval(found[:, None].astype(float), np.full((repeats, 1), 5.0), shares=True)
    expected = np.quantile(draws, [outer, 1 - outer])
    np.testing.assert_allclose([got.low, got.high], expected, atol=0.011)  # a step of a share
    assert (got.low, got.high) != pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), abs=1e-9)


def test_an_accuracy_and_a_difference_of_two_stay_where_shares_lie():
    """Eight of ten repeats agree: studentised limits leave [0, 1]."""
    found, other = (np.array(x, float)[:, None] for x in ([5] * 8 + [3, 1], [5] * 7 + [4, 0, 0]))
    depths = np.full((10, 1), 5.0)
    assert interval(found, depths).low < 0.3
    assert 0.5 < interval(found, depths, shares=True).low < 0.86 < interval(found, depths, shares=True).high <= 1
    both = np.hstack([found, other]), np.hstack([depths, depths])
    difference = interval(*both, np.array([-1.0, 1.0]), shares=True)
    assert -1 <= difference.low <= difference.value <= difference.high <= 1
    made = answered()
    line = summarize(measured(rows_of(made), NEEDLE_ACCURACY), metric=NEEDLE_ACCURACY).iloc[0]
    assert 0 <= line["low"] <= line["needle_accuracy"] <= line["high"] <= 1


def test_equal_losses_gain_exactly_nothing():
    made = answered()
    same = {key: made[key[0], key[1], True] for key in made}
    (line,) = summarize(measured(rows_of(same), NEEDLE_GAIN), metric=NEEDLE_GAIN).to_dict("records")
    assert (line["needle_gain"], line["low"], line["high"]) == (0.0, 0.0, 0.0)


def test_more_is_better_when_two_methods_are_compared():
    made = answered()
    better = {
        key: Answered([x - 0.5 for x in one.nll] if key[2] else one.nll, [True] * len(one.nll))
        for key, one in made.items()
    }
    rows = pd.concat([rows_of(made), rows_of(better, cell_id="other", method="yarn")])
    for metric, difference in ((NEEDLE_GAIN, 0.5), (NEEDLE_ACCURACY, None)):
        (line,) = paired(measured(rows, metric), "none", Averaging(), metric).to_dict("records")
        if difference:
            assert line["ratio"] == pytest.approx(difference, rel=1e-5)
            assert line["num_improved"] == REPEATS
        assert metric.change(line["ratio"]) < 0


def test_needles_that_lack_a_side_are_refused():
    rows = rows_of(answered())
    with pytest.raises(UserError, match="needs a right and a wrong document"):
        measured(rows[rows["right"].astype(bool) | (rows["repeat"] > 0)], NEEDLE_GAIN)
    with pytest.raises(UserError, match="there are none"):
        measured(rows.assign(depth=None), NEEDLE_GAIN)


def copying(order):
    """Losses of a model that says what followed the last occurrence of the last `order` tokens, and is sure of it."""

    def nll(ids, score_from):
        losses = torch.full((*ids[:, score_from:].shape, 2), math.log(256.0))
        losses[..., 1] = 0
        for row, own in enumerate(ids.tolist()):
            for place in range(score_from, len(own)):
                before = own[place - order : place]
                seen = [j for j in range(order, place) if own[j - order : j] == before]
                if seen:
                    is_right = own[seen[-1]] == own[place]
                    losses[row, place - score_from] = torch.tensor([0.0 if is_right else 20.0, float(is_right)])
        return losses

    return nll


@pytest.mark.parametrize(("templates", "distractors"), [(["passkey", "register"], 0), (["passkey"], 4)])
def test_a_model_that_copies_finds_every_number(templates, distractors):
    """24 tokens reach from every digit of the answer back to the key, and not beyond the sentence."""
    documents = grid(length=900, templates=templates, repeats=4, distractors=distractors)
    rows = windows_table(scores(copying(24), documents, 900, Targets(bos="none"), tokens_per_batch=900), documents)
    (line,) = summarize(measured(rows, NEEDLE_ACCURACY), metric=NEEDLE_ACCURACY).to_dict("records")
    assert line["needle_accuracy"] == 1
    (line,) = summarize(measured(rows, NEEDLE_GAIN), metric=NEEDLE_GAIN).to_dict("records")
    assert line["needle_gain"] > 2


def test_one_layer_gains_exactly_nothing_from_beyond_its_window():
    model = tiny_llama(vocab_size=256, num_hidden_layers=1)
    documents = grid(length=700, repeats=2, depths=[0.25, 0.5, 1.0])
    engine = Engine(model, EngineSpec())
    near = {}
    for window in (32, 699):
        with applied(model, Windowed(window=window, sinks=10), 700):
            found = scores(engine.token_scores, documents, 700, Targets(bos="none"))
        rows = windows_table(found, documents)
        near[window] = by_depth(measured(rows, NEEDLE_GAIN)).set_index("depth")["needle_gain"]
    assert near[32].tolist() == [0.0, 0.0, 0.0]  # the question alone is longer than the window
    assert (near[699] != 0).all()


def test_accuracy_is_what_greedy_generation_finds():
    model = tiny_llama()
    draw = torch.Generator().manual_seed(0)
    documents = []
    for repeat in range(8):
        prompt = torch.randint(3, 96, (1, 20), generator=draw)
        answer = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=3, do_sample=False, eos_token_id=None
        )[0, 20:]
        if repeat % 2:  # one token of it is another
            answer[repeat % 3] = (answer[repeat % 3] + 1) % 96
        for right in (True, False):
            ids = torch.cat([prompt[0], answer]).numpy()
            documents.append(Document(f"{repeat} {right}", ids, np.arange(24), None, 3, Asked(0.5, repeat, right)))
    found = scores(Engine(model, EngineSpec()).token_scores, documents, 23, Targets(bos="none"))
    rows = measured(windows_table(found, documents), NEEDLE_ACCURACY)
    generated = []
    for document in documents[::2]:
        ids = torch.tensor(document.ids)[None]
        out = model.generate(
            ids[:, :20], attention_mask=torch.ones(1, 20), max_new_tokens=3, do_sample=False, eos_token_id=None
        )
        generated.append(bool((out == ids).all()))
    assert rows.sort_values("repeat")["found"].astype(bool).tolist() == generated
    assert set(generated) == {True, False}
