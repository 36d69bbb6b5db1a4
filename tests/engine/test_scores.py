"""What an evaluation must not get wrong: each test is named after the fact it pins, most with losses known by hand."""

import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

from harness import load_results, summarize
from harness.data.protocols import PROTOCOLS
from harness.data.scores import cut
from harness.data.windows import Window, plan
from harness.engine.batches import batches, plans
from harness.engine.engine import Engine
from harness.engine.scores import NonFiniteLoss, evaluate
from harness.engine.spec import EngineSpec
from harness.results.rows import table_rows
from harness.results.units import position_edges
from harness.runs import runner
from harness.statistics.decision import decide
from harness.statistics.formats import formatted
from harness.statistics.summary import AGGREGATES, Averaging, document_ratios, loss_by_position, point
from tests.evaluations import BOS, CELL, numbered, own_number, protocol_named, scores, windows_table
from tests.sweeps import save_texts
from tests.tiny import tiny_llama, tokens

POLICIES = ("none", "first_window", "every_window")
EVERY = list(itertools.product(PROTOCOLS, POLICIES))


def protocol(name="sliding", bos="none", **options):
    return protocol_named(name, bos=bos, **({"stride": 7, "num_targets": 5} | options))


def random_documents(*lengths):
    """Tokens of the tiny model."""
    return [d._replace(ids=tokens(d.num_tokens, seed=i)[0].numpy()) for i, d in enumerate(numbered(*lengths))]


@pytest.fixture(scope="module")
def engine():
    return Engine(tiny_llama(), EngineSpec())


# Which losses end up where -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [7, 20])
@pytest.mark.parametrize(("name", "bos"), EVERY)
def test_losses_belong_to_the_tokens_that_the_window_names(name, bos, stride):
    """No label is shifted, no BOS is scored, no count is off by one; 20 of 24 tokens batch with a first window's 23."""
    documents = numbered(60, 41, 97)
    one = protocol(name, bos, stride=stride)
    for found in scores(own_number, documents, 24, one, tokens_per_batch=100):
        for w, nll in zip(found.windows, found.nll, strict=True):
            assert nll.tolist() == documents[found.document].ids[w.score_from : w.end].tolist()
        rows = table_rows("windows", found, documents[found.document], 24)
        assert rows["num_scored"].tolist() == [len(nll) for nll in found.nll]
        assert rows["nll_sum"].tolist() == [float(nll.sum(dtype=np.float64)) for nll in found.nll]
        assert rows["num_bytes"].tolist() == (3 * rows["num_scored"]).tolist()  # three a token, a BOS has none


@pytest.mark.parametrize("tokens_per_batch", [1, 7, 60, 10**6])
@pytest.mark.parametrize("bos", POLICIES)
def test_a_forward_sees_windows_of_one_document_each_and_nothing_else(tokens_per_batch, bos):
    """No window straddles documents, none is padded, and a BOS stands where the policy puts it."""
    seen = []

    def nll(ids, score_from):
        seen.extend(row.tolist() for row in ids)
        return own_number(ids, score_from)

    documents = numbered(60, 41, 97)
    scores(nll, documents, 24, protocol(bos=bos), tokens_per_batch=tokens_per_batch)
    expected = [
        [BOS] * w.bos + d.ids[w.begin : w.end].tolist()
        for d in documents
        for w in plan(len(d.ids), 24, protocol(bos=bos))
    ]
    assert sorted(seen) == sorted(expected)
    starts = [row[1] % 1000 for row in seen if row[0] == BOS]
    assert len(starts) == {"none": 0, "first_window": 3, "every_window": len(seen)}[bos]


def test_batches_hold_as_many_tokens_as_they_may():
    sizes = []

    def nll(ids, score_from):
        sizes.append(ids.shape)
        return own_number(ids, score_from)

    scores(nll, numbered(100, 100), 20, protocol(stride=5), tokens_per_batch=90)
    assert max(rows * length for rows, length in sizes) == 80
    assert sizes.count((4, 20)) == 8  # 2 x 16 later windows; the two first windows score more and go by themselves


@pytest.mark.parametrize("length", [40, 41, 46, 47, 48])
def test_the_last_window_is_not_lost_and_every_token_counts_once(length):
    (found,) = scores(own_number, numbered(length), 20, protocol())
    assert np.concatenate(found.nll).tolist() == list(range(1, length))


def test_long_documents_are_not_capped_at_some_number_of_windows():
    (found,) = scores(own_number, numbered(900), 16, protocol(stride=1))
    assert len(found.windows) == 900 - 16 + 1


def test_token_numbers_beyond_sixteen_bits_survive():
    (document,) = numbered(30)
    (found,) = scores(own_number, [document._replace(ids=document.ids + 128_000)], 16, protocol("single_pass"))
    assert found.nll[0].tolist() == list(range(128_001, 128_016))


def test_sums_are_taken_in_float64():
    losses = np.random.default_rng(0).uniform(0, 12, 50_000).astype(np.float32)
    (document,) = numbered(50_001)
    (found,) = scores(lambda ids, _: torch.from_numpy(losses)[None], [document], 50_001, protocol("single_pass"))
    (total,) = table_rows("windows", found, document, 24)["nll_sum"]
    assert total == pytest.approx(math.fsum(losses.tolist()), rel=1e-13)


def test_losses_of_half_precision_models_are_formed_in_float32():
    """bfloat16 logits are what the model says; the log-softmax of them must not be rounded again."""
    half = tiny_llama().to(torch.bfloat16)
    documents = random_documents(64)
    (found,) = scores(Engine(half, EngineSpec(mode="plain")).token_nll, documents, 64, protocol("single_pass"))
    ids = torch.from_numpy(documents[0].ids)[None]
    with torch.no_grad():
        logits = half(ids, use_cache=False).logits[0, :-1]
    expected, rounded = (
        -torch.log_softmax(x, dim=-1).gather(1, ids[0, 1:, None])[:, 0].double() for x in (logits.double(), logits)
    )
    np.testing.assert_allclose(found.nll[0], expected, atol=2e-6, rtol=0)
    assert (rounded - expected).abs().max() > 1e-3  # what would have gone unseen


# What does not matter ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens_per_batch", [7, 100, 10**6])
def test_batches_mix_documents_without_changing_a_loss(engine, tokens_per_batch):
    documents = random_documents(60, 41, 97)
    alone = [scores(engine.token_nll, [d], 24, protocol(), tokens_per_batch=1)[0] for d in documents]
    together = scores(engine.token_nll, documents, 24, protocol(), tokens_per_batch=tokens_per_batch)
    for one, other in zip(alone, together, strict=True):
        assert one.windows == other.windows
        np.testing.assert_allclose(np.concatenate(one.nll), np.concatenate(other.nll), atol=1e-5, rtol=0)


def test_no_document_leaves_anything_behind_for_the_next(engine):
    """As a key-value cache that is not reset would."""
    documents = random_documents(60, 41, 97)
    forth = scores(engine.token_nll, documents, 24, protocol(), tokens_per_batch=1)
    back = scores(engine.token_nll, documents[::-1], 24, protocol(), tokens_per_batch=1)[::-1]
    for one, other in zip(forth, back, strict=True):
        assert [n.tolist() for n in one.nll] == [n.tolist() for n in other.nll]


@pytest.mark.parametrize(("tokens_per_batch", "order"), [(8, "nydnydnyd"), (16, "nnydnydyd")])
def test_losses_of_a_long_window_reach_their_document_before_the_next_begins(tokens_per_batch, order):
    """n: a call, y d: a document comes and is dealt with; short windows are fetched while the next ones run."""
    seen = []

    def nll(ids, score_from):
        seen.append("n")
        return ids[:, score_from:].float()

    documents = numbered(16, 16, 16)
    planned = [[Window(0, 16, 1, bos=False)] for _ in documents]
    for _ in evaluate(documents, planned, nll, tokens_per_batch):
        seen += "yd"
    assert "".join(seen) == order


def test_finished_documents_are_left_out_and_the_others_bit_equal(engine):
    documents = random_documents(60, 41, 97)
    whole = scores(engine.token_nll, documents, 24, protocol(), tokens_per_batch=100)
    (rest,) = scores(engine.token_nll, documents, 24, protocol(), tokens_per_batch=100, finished={0, 2})
    assert rest.document == 1
    assert [n.tolist() for n in rest.nll] == [n.tolist() for n in whole[1].nll]


def test_a_bos_changes_what_the_first_tokens_cost(engine):
    """It is in the model's input, not only in the bookkeeping."""
    documents = random_documents(40)
    (with_bos,) = scores(engine.token_nll, documents, 24, protocol(bos="every_window"), bos_token_id=1)
    (without,) = scores(engine.token_nll, documents, 24, protocol(bos="none"))
    assert with_bos.nll[0][1] != pytest.approx(without.nll[0][0], abs=1e-3)  # token 1, behind BOS and token 0


@pytest.mark.parametrize("method", ["native", "dynamic_ntk", "yarn"])
def test_the_order_of_lengths_changes_no_loss(place, method):
    """State that grows with the longest window seen so far would."""
    cells = [f"method={method} ctx={ctx}" for ctx in (16, 32, 96)]
    if method == "native":
        file = place.model / "config.json"
        config = json.loads(file.read_text())
        config["rope_parameters"] |= {"rope_type": "dynamic", "factor": 4.0}
        file.write_text(json.dumps(config))
    runner.run(place.prepared(*cells))
    upwards = losses_of(place)
    runner.run(place.prepared(*cells[::-1], common=("force=true",)))
    pd.testing.assert_frame_equal(losses_of(place), upwards, check_exact=True)
    assert upwards.groupby("ctx")["nll_sum"].nunique().gt(1).all()


def losses_of(place, kind="windows"):
    rows = load_results(place.results, kind)
    keys = [k for k in ("method", "ctx", "cell_id", "document_index", "window", "token") if k in rows]
    return rows.sort_values(keys, ignore_index=True)


# Errors --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("bos", ["none", "every_window"])
def test_a_loss_that_is_no_number_stops_the_cell_and_names_document_and_window(bad, bos):
    documents = numbered(60, 41)

    def nll(ids, score_from):
        losses = own_number(ids, score_from)
        return torch.where(losses == 1030, bad, losses)

    (window,) = [w for w in enumerate(plan(41, 24, protocol(bos=bos))) if w[1].score_from <= 30 < w[1].end]
    place = f"loss {bad} at token 30 of document 'document-1', window {window[0]} .{window[1].begin}, {window[1].end}"
    with pytest.raises(NonFiniteLoss, match=place):
        scores(nll, documents, 24, protocol(bos=bos))


def test_a_context_token_without_a_loss_is_no_error():
    """Only scored losses are looked at: a batch may compute more than its windows need."""
    documents = numbered(60)
    scores(lambda ids, s: torch.where(own_number(ids, s) == 0, math.nan, own_number(ids, s)), documents, 24, protocol())


# Means ---------------------------------------------------------------------------------------------------------------


def test_a_last_window_with_one_new_token_does_not_weigh_as_a_whole_one():
    """Windows of 1023, 256 x 6 and 1 scored tokens; the default mean is over tokens."""

    def nll(ids, score_from):
        return torch.where(own_number(ids, score_from) == 2560, 100.0, 1.0)

    documents = numbered(1024 + 6 * 256 + 1)
    rows = windows_table(scores(nll, documents, 1024, protocol(stride=256)), documents)
    assert rows["num_scored"].tolist() == [1023, *[256] * 6, 1]
    assert math.log(summarize(rows)["perplexity"].item()) == pytest.approx((2559 + 100) / 2560)
    assert math.log(summarize(rows, Averaging("window"))["perplexity"].item()) == pytest.approx((7 + 100) / 8)


def test_means_are_over_what_they_say_and_not_over_batches():
    documents = numbered(60, 41, 97)
    values = []
    for size in (1, 60, 10**6):
        rows = windows_table(
            scores(lambda ids, s: own_number(ids, s) / 999, documents, 24, protocol(), tokens_per_batch=size), documents
        )
        values.append([summarize(rows, Averaging(a))["perplexity"].item() for a in AGGREGATES])
    assert values[0] == values[1] == values[2]
    assert len(set(values[0])) == len(AGGREGATES)


def test_overlapping_positions_count_more_than_once_only_where_the_protocol_says_so():
    counts = {}
    for name in PROTOCOLS:
        (found,) = scores(own_number, numbered(100), 24, protocol(name))
        counts[name] = np.unique(np.concatenate(found.nll), return_counts=True)[1]
    assert {name for name, count in counts.items() if count.max() > 1} == {"overlapping_full"}
    assert all(counts[name].max() == 1 for name, p in PROTOCOLS.items() if "once" in p.promises)
    assert counts["overlapping_full"].max() == 4  # ctx / stride, rounded up


# Windows that were sampled -------------------------------------------------------------------------------------------


def falling(ids, score_from):
    """Losses that fall with context, and differ between documents and places."""
    place = torch.arange(score_from, ids.shape[1], dtype=torch.float64)
    jitter = torch.sin(own_number(ids, score_from).double() * 12.9898) * 0.5
    return (1.6 + 2.2 * (place + 1) ** -0.28 + jitter).float()


def all_rows(name, documents):
    return windows_table(scores(falling, documents, 24, protocol(name)), documents)


def sample(everything, name, seed, documents, max_windows=4):
    """The rows of a sampled evaluation, taken from those of the whole one."""
    planned = plans(documents, 24, protocol(name, max_windows=max_windows), seed)
    weights = {(i, w.begin): w.weight for i, windows in enumerate(planned) for w in windows}
    drawn = [weights.get(key, 0.0) for key in zip(everything["document_index"], everything["begin"], strict=True)]
    return everything.assign(weight=drawn)[np.array(drawn) > 0]


def test_a_sampled_evaluation_scores_its_windows_as_the_whole_one_does():
    documents = numbered(200, 151)
    found = scores(falling, documents, 24, protocol(max_windows=4), seed=3)
    rows = sample(all_rows("sliding", documents), "sliding", 3, documents).drop(columns="window")
    pd.testing.assert_frame_equal(windows_table(found, documents).drop(columns="window"), rows.reset_index(drop=True))


@pytest.mark.parametrize("name", ["sliding", "disjoint", "last", "overlapping_full"])
def test_sampled_windows_are_unbiased_for_every_mean(name):
    """Sums of documents equal those of all windows on average, and so do the logarithms of perplexities."""
    documents, draws = numbered(200, 151), 80
    everything = all_rows(name, documents)
    drawn = [sample(everything, name, seed, documents) for seed in range(draws)]
    for aggregate in ("token", "window", "document"):
        truth, exact = document_ratios(everything, aggregate).sum(), math.log(point(everything, aggregate))
        sums = np.array([document_ratios(d, aggregate).sum() for d in drawn])
        assert np.all(np.abs(sums.mean(axis=0) - truth) <= 4 * sums.std(axis=0) / np.sqrt(draws) + 1e-9)
        values = np.log([point(d, aggregate) for d in drawn])
        assert values.mean() == pytest.approx(exact, abs=4 * values.std() / np.sqrt(draws) + 5e-4)
        if name == "sliding" and aggregate != "window":  # unweighted, the first window is far too loud
            assert np.mean([math.log(point(d.assign(weight=1.0), aggregate)) for d in drawn]) > exact + 0.05


def test_every_document_draws_a_sample_of_its_own():
    first, second = plans(numbered(500, 500), 24, protocol(max_windows=5), seed=0)
    assert [w.begin for w in first] != [w.begin for w in second]
    again = plans(numbered(500, 500), 24, protocol(max_windows=5), seed=0)
    assert [first, second] == again


def test_samples_are_told_and_widen_the_interval():
    documents = numbered(*[300] * 8)
    rows = all_rows("sliding", documents)
    everything = summarize(rows)
    some = [sample(rows, "sliding", seed, documents, 3) for seed in range(8)]
    assert "sampled windows" in formatted(decide(some[0]), "text")
    assert "sampled" not in formatted(decide(rows), "text")
    sampled = [summarize(one) for one in some]
    assert all(s["sampled"].item() for s in sampled)
    width = np.mean([np.log(s["high"] / s["low"]).item() for s in sampled])
    assert width > 1.5 * np.log(everything["high"] / everything["low"]).item()


# Curves from one pass ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bos", POLICIES)
def test_a_cut_of_a_longer_pass_is_the_shorter_pass(engine, bos):
    documents = random_documents(60, 41)
    one = protocol("single_pass", bos)
    long = scores(engine.token_nll, documents, 40, one, bos_token_id=1)
    for ctx in (2, 3, 17, 39, 40):
        for got, alone in zip(
            [cut(s, ctx) for s in long], scores(engine.token_nll, documents, ctx, one, bos_token_id=1), strict=True
        ):
            assert got.windows == alone.windows
            np.testing.assert_allclose(got.nll[0], alone.nll[0], atol=1e-5, rtol=0)


SHARED = [
    "none",
    "linear method.factor=4",
    "yarn method.factor=4",
    "ntk method.factor=2",
    "yarn method.factor=4 method.query_scale=log_n",
]
SEPARATE = ["yarn", "dynamic_ntk"]


@pytest.mark.parametrize("method", [*SHARED, *SEPARATE])
def test_cells_of_a_curve_equal_the_same_cells_computed_alone(place, monkeypatch, method):
    """One pass where the method does not depend on the length, one a length where it does; either way the same."""
    cells = [f"method={method} ctx={ctx}" for ctx in (24, 48, 96)]
    calls = []
    whole = evaluate
    monkeypatch.setattr("harness.runs.share.evaluate", lambda *a, **k: calls.append(1) or whole(*a, **k))
    runner.run(place.prepared(*cells, common=("save_tokens=true",)))
    assert len(calls) == (1 if method in SHARED else 3)
    curve = {kind: losses_of(place, kind) for kind in ("windows", "tokens")}
    for cell in cells:
        runner.run(place.prepared(cell, common=("save_tokens=true", "force=true"), run_id="again"))
    alone = {kind: losses_of(place, kind) for kind in ("windows", "tokens")}
    np.testing.assert_allclose(curve["tokens"]["nll"], alone["tokens"]["nll"], atol=1e-5, rtol=0)
    for kind, inexact in (("windows", "nll_sum"), ("tokens", "nll")):
        pd.testing.assert_frame_equal(curve[kind].drop(columns=inexact), alone[kind].drop(columns=inexact))


# Tables --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "bos"), EVERY)
def test_position_rows_are_sums_over_tokens_by_their_place_in_the_window(name, bos):
    documents = numbered(90, 61)
    edges = position_edges(24)
    for found in scores(falling, documents, 24, protocol(name, bos, max_windows=3), seed=1):
        expected = {}
        for w, nll in zip(found.windows, found.nll, strict=True):
            for token, loss in zip(range(w.score_from, w.end), nll.tolist(), strict=True):
                place = token - w.begin + (1 if w.bos else 0)  # tokens that precede it
                begin = max(e for e in edges.tolist() if e <= place)
                count, total = expected.get((w.weight, begin), (0, 0.0))
                expected[w.weight, begin] = (count + 1, total + loss)
        rows = table_rows("positions", found, documents[found.document], 24)
        got = {
            (r["weight"], r["position_begin"]): (r["num_scored"], pytest.approx(r["nll_sum"], rel=1e-12))
            for r in rows.to_dict("records")
        }
        assert got == expected
        windows = table_rows("windows", found, documents[found.document], 24)
        for column in ("num_scored", "nll_sum"):
            sums = [t[column].groupby(t["weight"]).sum().tolist() for t in (rows, windows)]
            assert sums[0] == pytest.approx(sums[1], rel=1e-12)


@pytest.mark.parametrize("ctx", [2, 3, 5, 64, 100, 4096])
def test_position_bins_tile_the_window_without_position_zero(ctx):
    edges = position_edges(ctx)
    assert (edges[0], edges[-1]) == (1, ctx)
    assert (np.diff(edges) > 0).all()
    assert len(edges) <= 2 * math.log2(ctx) + 3


def test_loss_by_position_is_the_mean_of_the_tokens_there():
    documents = numbered(24)
    (found,) = scores(own_number, documents, 24, protocol("single_pass"))
    for row in loss_by_position(table_rows("positions", found, documents[0], 24).assign(**CELL)).to_dict("records"):
        assert row["nll"] == pytest.approx(np.arange(row["position_begin"], row["position_end"]).mean())


@pytest.mark.parametrize(("name", "bos"), EVERY)
def test_token_rows_hold_every_scored_token(name, bos):
    documents = numbered(60, 41)
    for found in scores(own_number, documents, 24, protocol(name, bos)):
        rows = table_rows("tokens", found, documents[found.document], 24)
        assert (rows["token"] + 1000 * found.document).tolist() == rows["nll"].tolist()
        assert rows["window"].tolist() == [i for i, w in enumerate(found.windows) for _ in range(w.num_scored)]
        assert rows["nll"].dtype == np.float32


def test_tables_come_back_from_disk_and_agree_with_each_other(place):
    save_texts(place.texts, documents=3, tokens=100)
    runner.run(
        place.prepared(
            "protocol=sliding protocol.stride=9 protocol.max_windows=null ctx=32", common=("save_tokens=true",)
        )
    )
    windows, positions, tokens_ = (load_results(place.results, kind) for kind in ("windows", "positions", "tokens"))
    assert tokens_["nll"].dtype == np.float32
    by_window = tokens_.astype({"nll": np.float64}).groupby(["document_index", "window"])["nll"].sum()
    assert by_window.tolist() == pytest.approx(windows["nll_sum"].tolist(), rel=1e-12)
    assert positions.groupby("document_index")["num_scored"].sum().tolist() == [99, 99, 99]
    assert tokens_.groupby("document_index")["token"].agg(list).tolist() == [list(range(1, 100))] * 3


def test_every_document_is_complete_as_early_as_its_batches_allow():
    planned = [[Window(0, 10 + i, 1), Window(0, 10, 5), Window(0, 7 + i, 3)] for i in range(6)]
    made = batches(planned, 20)
    first = [min(job.document for job in batch) for batch in made]
    assert first == sorted(first)
    assert sorted((job.document, job.window) for batch in made for job in batch) == [
        (d, w) for d in range(6) for w in range(3)
    ]
