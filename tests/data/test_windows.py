"""Windows as literal tables worked by hand, and what every protocol promises."""

import numpy as np
import pytest

from harness.data.protocols import (
    PROTOCOLS,
    Disjoint,
    FixedTargets,
    Last,
    OverlappingFull,
    Rolling,
    SecondHalf,
    SinglePass,
    Sliding,
)
from harness.data.windows import Window, plan
from harness.errors import UserError
from tests.evaluations import protocol_named


def spans(num_tokens, ctx, name="sliding", bos="none", **options):
    """(begin, end, score_from, bos) of every window."""
    return [w[:4] for w in plan(num_tokens, ctx, PROTOCOLS[name](bos=bos, **options))]


TABLES = [
    # num_tokens, ctx, protocol, bos, options, windows
    (10, 4, "sliding", "none", {"stride": 2}, [(0, 4, 1, 0), (2, 6, 4, 0), (4, 8, 6, 0), (6, 10, 8, 0)]),
    # the last window lies on the grid and is cut at the document's end
    (9, 4, "sliding", "none", {"stride": 2}, [(0, 4, 1, 0), (2, 6, 4, 0), (4, 8, 6, 0), (6, 9, 8, 0)]),
    (4, 4, "sliding", "none", {"stride": 2}, [(0, 4, 1, 0)]),
    # a BOS takes one place of the ctx, and makes the first token scorable
    (7, 4, "sliding", "every_window", {"stride": 2}, [(0, 3, 0, 1), (2, 5, 3, 1), (4, 7, 5, 1)]),
    (7, 4, "sliding", "first_window", {"stride": 2}, [(0, 3, 0, 1), (1, 5, 3, 0), (3, 7, 5, 0)]),
    (10, 4, "single_pass", "none", {}, [(0, 4, 1, 0)]),
    (10, 4, "single_pass", "every_window", {}, [(0, 3, 0, 1)]),
    (10, 4, "disjoint", "none", {}, [(0, 4, 1, 0), (4, 8, 5, 0), (8, 10, 9, 0)]),
    # a last window of one token has nothing to score without a BOS
    (9, 4, "disjoint", "none", {}, [(0, 4, 1, 0), (4, 8, 5, 0)]),
    (7, 4, "disjoint", "every_window", {}, [(0, 3, 0, 1), (3, 6, 3, 1), (6, 7, 6, 1)]),
    (10, 4, "disjoint", "first_window", {}, [(0, 3, 0, 1), (3, 7, 4, 0), (7, 10, 8, 0)]),
    # lm-eval: the model sees 4 tokens, scores 4; the last window is filled up with context
    (10, 4, "rolling", "first_window", {}, [(0, 4, 0, 1), (3, 8, 4, 0), (5, 10, 8, 0)]),
    (8, 4, "rolling", "first_window", {}, [(0, 4, 0, 1), (3, 8, 4, 0)]),
    (4, 4, "rolling", "first_window", {}, [(0, 4, 0, 1)]),
    (10, 4, "rolling", "none", {}, [(0, 5, 1, 0), (4, 9, 5, 0), (5, 10, 9, 0)]),
    (10, 4, "rolling", "every_window", {}, [(0, 4, 0, 1), (4, 8, 4, 1), (6, 10, 8, 1)]),
    # full windows only; the tail that no full window reaches is not scored
    (9, 4, "last", "none", {"stride": 2}, [(0, 4, 2, 0), (2, 6, 4, 0), (4, 8, 6, 0)]),
    (9, 4, "last", "none", {"stride": 2, "num_targets": 3}, [(0, 4, 1, 0), (2, 6, 3, 0), (4, 8, 5, 0)]),
    (8, 4, "last", "every_window", {"stride": 2, "num_targets": 1}, [(0, 3, 2, 1), (2, 5, 4, 1), (4, 7, 6, 1)]),
    # in the stream [BOS] + text the second window begins at the stride
    (20, 8, "last", "first_window", {"stride": 4}, [(0, 7, 3, 1), (3, 11, 7, 0), (7, 15, 11, 0), (11, 19, 15, 0)]),
    # llama.cpp: chunk of 8 scores the 3 tokens behind position 4; the BOS overwrites the first token of each chunk of
    # the stream [BOS] + text
    (20, 8, "second_half", "none", {}, [(0, 8, 5, 0), (8, 16, 13, 0)]),
    (20, 8, "second_half", "every_window", {}, [(0, 7, 4, 1), (8, 15, 12, 1)]),
    (15, 8, "second_half", "every_window", {}, [(0, 7, 4, 1), (8, 15, 12, 1)]),
    (23, 8, "second_half", "first_window", {}, [(0, 7, 4, 1), (7, 15, 12, 0), (15, 23, 20, 0)]),
    # the same last tokens at every length
    (20, 8, "fixed_targets", "none", {"num_targets": 3}, [(12, 20, 17, 0)]),
    (20, 16, "fixed_targets", "none", {"num_targets": 3}, [(4, 20, 17, 0)]),
    (20, 8, "fixed_targets", "every_window", {"num_targets": 3}, [(13, 20, 17, 1)]),
    (20, 8, "targets", "none", {}, [(12, 20, 13, 0)]),
    (20, 8, "targets", "every_window", {}, [(13, 20, 13, 1)]),
    (9, 4, "overlapping_full", "none", {"stride": 2}, [(0, 4, 1, 0), (2, 6, 3, 0), (4, 8, 5, 0)]),
    (9, 4, "overlapping_full", "first_window", {"stride": 2}, [(0, 3, 0, 1), (1, 5, 2, 0), (3, 7, 4, 0), (5, 9, 6, 0)]),
]  # fmt: skip


@pytest.mark.parametrize(("num_tokens", "ctx", "name", "bos", "options", "expected"), TABLES)
def test_windows_are_those_worked_by_hand(num_tokens, ctx, name, bos, options, expected):
    assert spans(num_tokens, ctx, name, bos, **options) == [(b, e, s, bool(x)) for b, e, s, x in expected]


@pytest.mark.parametrize("bos", ["none", "every_window", "first_window"])
@pytest.mark.parametrize("name", [name for name, p in PROTOCOLS.items() if "every_token" in p.promises])
@pytest.mark.parametrize(("num_tokens", "ctx", "stride"), [(100, 16, 8), (101, 16, 15), (97, 32, 1), (64, 64, 5)])
def test_no_token_is_left_out_that_has_something_before_it(name, bos, num_tokens, ctx, stride):
    protocol = protocol_named(name, bos=bos, stride=stride, num_targets=5)
    windows = protocol.windows(num_tokens, ctx)
    ends = [0, *(w.end for w in windows)]
    nothing_before = {w.begin for w, end in zip(windows, ends[:-1], strict=True) if w.begin == end and not w.bos}
    scored = {token for w in plan(num_tokens, ctx, protocol) for token in range(w.score_from, w.end)}
    assert scored == set(range(num_tokens)) - nothing_before


@pytest.mark.parametrize("bos", ["none", "every_window", "first_window"])
@pytest.mark.parametrize("name", [name for name, p in PROTOCOLS.items() if "once" in p.promises])
@pytest.mark.parametrize(("num_tokens", "ctx", "stride"), [(100, 16, 8), (101, 16, 15), (97, 32, 1), (64, 64, 5)])
def test_no_token_is_scored_twice(name, bos, num_tokens, ctx, stride):
    windows = plan(num_tokens, ctx, protocol_named(name, bos=bos, stride=stride, num_targets=5))
    scored = np.concatenate([np.arange(w.score_from, w.end) for w in windows])
    assert len(scored) == len(set(scored))


@pytest.mark.parametrize("bos", ["none", "every_window", "first_window"])
@pytest.mark.parametrize("name", [name for name, p in PROTOCOLS.items() if p.nested])
def test_nested_windows_begin_alike_at_every_length(name, bos):
    """What lets one pass serve all lengths of a curve: one window, cut shorter."""
    protocol = protocol_named(name, bos=bos, stride=7, num_targets=5)
    (longest,) = plan(100, 64, protocol)
    for ctx in (16, 17, 63):
        assert plan(100, ctx, protocol) == [longest._replace(end=ctx - longest.bos)]


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("bos", ["none", "every_window", "first_window"])
def test_no_window_is_longer_than_ctx_or_leaves_the_document(name, bos):
    protocol = protocol_named(name, bos=bos, stride=7, num_targets=5)
    for w in plan(123, 24, protocol):
        assert 0 <= w.begin <= w.score_from < w.end <= 123
        assert w.end - w.begin + w.bos - protocol.ahead <= 24  # as many the model sees
        assert w.bos or w.score_from > w.begin  # the first token of a window has no prediction


def test_sampled_windows_keep_the_first_and_stand_for_the_rest():
    everything = plan(1000, 16, Sliding(stride=8, bos="none"))
    sampled = plan(1000, 16, Sliding(stride=8, bos="none", max_windows=5), seed=3)
    assert sampled[0] == everything[0]
    assert len(sampled) == 5
    assert {w[:4] for w in sampled} <= {w[:4] for w in everything}
    assert sum(w.weight for w in sampled) == pytest.approx(len(everything))
    assert sampled == plan(1000, 16, Sliding(stride=8, bos="none", max_windows=5), seed=3)
    assert sampled != plan(1000, 16, Sliding(stride=8, bos="none", max_windows=5), seed=4)


def test_weighted_sums_of_samples_are_unbiased():
    loss = {
        w.begin: 5.0 if w.begin == 0 else 1.0 + w.begin / 1000 for w in plan(1000, 16, Sliding(stride=8, bos="none"))
    }
    truth = sum(loss.values())
    draws = [
        sum(w.weight * loss[w.begin] for w in plan(1000, 16, Sliding(stride=8, bos="none", max_windows=6), seed=s))
        for s in range(4000)
    ]
    assert np.mean(draws) == pytest.approx(truth, abs=4 * np.std(draws) / np.sqrt(len(draws)))


def test_a_sample_as_large_as_the_plan_is_the_plan():
    assert plan(40, 16, Sliding(stride=8, bos="none", max_windows=99)) == plan(40, 16, Sliding(stride=8, bos="none"))


@pytest.mark.parametrize(
    ("protocol", "options", "ctx", "message"),
    [
        (SinglePass, {"bos": "always"}, 16, "Known: auto, every_window, first_window, none"),
        (SinglePass, {"max_windows": 1}, 16, "at least 2"),
        (SinglePass, {}, 1, "at least 2 tokens, got 1"),
        (SecondHalf, {}, 2, "at least 3 tokens for second_half"),
        (Sliding, {"bos": "always"}, 16, "Known: auto, every_window, first_window, none"),
        (Sliding, {"stride": 0}, 16, "at least 1 token, got 0"),
        (Sliding, {"stride": 17}, 16, "at most the 16 text tokens"),
        (Sliding, {"stride": 16, "bos": "every_window"}, 16, "at most the 15 text tokens"),
        (Sliding, {"stride": 1}, 1, "at least 2 tokens, got 1"),
        (FixedTargets, {"num_targets": 0}, 16, "num_targets must be at least 1 token, got 0"),
        (FixedTargets, {"num_targets": 16}, 16, "at most ctx - 1 = 15 for fixed_targets, got 16"),
        (Last, {"stride": 2, "num_targets": 0}, 16, "num_targets must be at least 1 token, got 0"),
        (Last, {"stride": 2, "num_targets": 16}, 16, "at most ctx - 1 = 15 for last, got 16"),
        (Last, {"stride": 16}, 16, "at most ctx - 1 = 15 for last, got 16"),
    ],
)
def test_impossible_protocols_are_refused(protocol, options, ctx, message):
    with pytest.raises(UserError, match=message):
        protocol(**options).check(ctx)


@pytest.mark.parametrize(
    ("protocol", "hashed"),
    [
        (Sliding(stride=7), {"bos": "auto", "max_windows": None, "stride": 7}),
        (SinglePass(max_windows=3), {"bos": "auto", "max_windows": 3}),
        (Disjoint(bos="none"), {"bos": "none", "max_windows": None}),
        (Last(), {"bos": "auto", "max_windows": None, "stride": 256, "num_targets": 256}),
        (Last(stride=9, num_targets=5), {"bos": "auto", "max_windows": None, "stride": 9, "num_targets": 5}),
        (SecondHalf(), {"bos": "auto", "max_windows": None}),
        (FixedTargets(num_targets=5), {"bos": "auto", "max_windows": None, "num_targets": 5}),
        (OverlappingFull(), {"bos": "auto", "max_windows": None, "stride": 256}),
        (Rolling(), {"bos": "auto", "max_windows": None}),
        # windows that once lay elsewhere: the cells of then are not those of now
        (SecondHalf(bos="none"), {"bos": "none", "max_windows": None}),
        (SecondHalf(bos="every_window"), {"bos": "every_window", "max_windows": None, "version": 2}),
        (SecondHalf(bos="first_window"), {"bos": "first_window", "max_windows": None, "version": 2}),
        (
            Last(stride=9, num_targets=5, bos="first_window"),
            {"bos": "first_window", "max_windows": None, "stride": 9, "num_targets": 5, "version": 2},
        ),
        (Last(bos="every_window"), {"bos": "every_window", "max_windows": None, "stride": 256, "num_targets": 256}),
        (
            OverlappingFull(bos="first_window"),
            {"bos": "first_window", "max_windows": None, "stride": 256, "version": 2},
        ),
        (OverlappingFull(bos="every_window"), {"bos": "every_window", "max_windows": None, "stride": 256}),
        (Sliding(bos="first_window"), {"bos": "first_window", "max_windows": None, "stride": 256}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_the_parameters_that_identify_a_cell_are_those_of_finished_cells(protocol, hashed):
    """Written down, since a key more or less would let no finished cell be recognised."""
    assert protocol.parameters() == hashed


def test_a_document_shorter_than_a_window_is_refused():
    with pytest.raises(UserError, match="15 tokens is shorter than one window of ctx=16"):
        plan(15, 16, Sliding(stride=8, bos="none"))


@pytest.mark.parametrize("bos", ["none", "every_window", "first_window"])
@pytest.mark.parametrize("name", [name for name, p in PROTOCOLS.items() if p.takes_shorter])
def test_a_shorter_document_is_one_short_window_where_that_is_asked_for(name, bos):
    protocol = protocol_named(name, bos=bos, stride=6, num_targets=5)
    for num_tokens in (2, 7, 14, 15):
        (only,) = plan(num_tokens, 16, protocol, shorter="whole")
        assert (only.begin, only.end, only.bos) == (0, num_tokens, bos != "none")
    assert plan(16, 16, protocol, shorter="whole") == plan(16, 16, protocol)


def test_a_protocol_of_full_windows_alone_does_not_take_shorter_documents():
    for num_tokens in (10, 15):
        with pytest.raises(UserError, match="data.shorter must be error for protocol=second_half"):
            plan(num_tokens, 16, SecondHalf(bos="none"), shorter="whole")


def test_window_counts_its_scored_tokens():
    assert Window(4, 10, 7).num_scored == 3
