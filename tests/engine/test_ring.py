"""What is passed round, in which order, and what it costs, counted by hand; layers with windows exchange less."""

import pytest
import torch

from harness.engine.exchange import Ranks
from harness.engine.ring import Ring, block_of, pieces
from harness.engine.ring_cost import Cost
from harness.engine.ring_windows import _needed, first_seen_by_ranks
from harness.engine.stripes import Stripes
from harness.models.parts import widths
from tests.tiny import tiny_llama


def turns(stripes, rank, round_, wanted_from=0, block=5):
    return list(Ring(stripes, Ranks(rank, stripes.ranks, None), wanted_from).turns(round_, block))


@pytest.mark.parametrize("ranks", [2, 3, 4])
@pytest.mark.parametrize("wanted_from", [0, 50, 99])
def test_what_a_rank_receives_is_what_the_other_sends_in_the_same_order(ranks, wanted_from):
    stripes = Stripes.of(100, ranks, largest=17)
    for round_ in range(stripes.rounds):
        every = [turns(stripes, rank, round_, wanted_from) for rank in range(ranks)]
        for sender in range(ranks):
            for receiver in set(range(ranks)) - {sender}:
                sent = [t.sent for t in every[sender] if t.to == receiver and t.sent.stop]
                received = [t.received for t in every[receiver] if t.source == sender and t.received.stop]
                assert sent == received


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_a_query_is_sent_every_key_before_it_and_no_block_that_nobody_sees(ranks):
    stripes = Stripes.of(100, ranks, largest=17)
    for rank in range(ranks):
        for round_ in range(stripes.rounds):
            ring = Ring(stripes, Ranks(rank, ranks, None))
            for other in set(range(ranks)) - {rank}:
                held = [begin + i for begin in stripes.all_begins(other) for i in range(stripes.size)]
                for begin, seen in zip(stripes.begins(rank, round_), ring.seen(rank, round_, other), strict=True):
                    assert held[:seen] == [token for token in held if token < begin]
    one = [t for t in turns(stripes, 0, 0) if t.source == 1]
    assert sum(t.received.stop - t.received.start for t in one) == 2 * stripes.size


def test_a_rank_of_which_nothing_is_wanted_sends_and_receives_nothing():
    stripes = Stripes.of(64, 2, largest=100)  # of the last token's stripe is rank 0
    assert all(t.received.stop == 0 and t.sent.stop for t in turns(stripes, 1, 0, wanted_from=63))
    assert all(t.sent.stop == 0 and t.received.stop for t in turns(stripes, 0, 0, wanted_from=63))
    assert [stripes.first_run(rank, 63) for rank in (0, 1)] == [31, 31]  # both take part, with a token at least
    assert [stripes.first_run(rank, 50) for rank in (0, 1)] == [18, 31]


@pytest.mark.parametrize(("size", "block"), [(6, 36), (20, 40), (21, 21), (41, 21), (100, 34)])
def test_blocks_are_whole_pairs_of_stripes_or_equal_parts_of_one(size, block):
    assert block_of(size, 40) == block


def test_few_shapes_come_up_however_many_rounds_there_are():
    stripes = Stripes.of(10_000, 3, largest=14)
    assert stripes.rounds > 200
    block = block_of(stripes.size, 60)
    lengths = {
        t.received.stop - t.received.start
        for round_ in range(stripes.rounds)
        for t in turns(stripes, 1, round_, 0, block)
    }
    assert len(lengths) <= 2 * 60 // stripes.size
    assert pieces(0, 5) == []
    assert pieces(11, 5) == [slice(0, 5), slice(5, 10), slice(10, 11)]


@pytest.mark.parametrize(("ranks", "rounds"), [(2, 1), (2, 3), (3, 2), (4, 2)])
def test_counted_costs_are_those_of_the_turns(ranks, rounds):
    stripes, model = Stripes(240, ranks, rounds), tiny_llama()
    token = 2 * widths(model).keys * 4
    received = [
        sum(t.received.stop - t.received.start for round_ in range(rounds) for t in turns(stripes, rank, round_))
        for rank in range(ranks)
    ]
    cost = Cost.of(model, 1, stripes)
    assert cost.received == pytest.approx(sum(received) / ranks * token)
    assert cost.held == pytest.approx(240 / ranks * token)
    assert f"a window of 240 tokens over {ranks} ranks: {rounds} rounds of" in str(cost)


def test_of_a_window_only_what_is_seen_is_exchanged():
    stripes = Stripes.of(48, 2, largest=12)  # size 6: stripes 0 3 4 7 are of rank 0, 1 2 5 6 of rank 1
    assert list(_needed(stripes, low=16, begin=24)) == [(1, slice(10, 12)), (0, slice(6, 12)), (0, slice(12, 18))]
    whole = (torch.arange(48) - 8).clamp(min=0)[None, None, :, None]
    first = first_seen_by_ranks(whole, stripes, rank=1)
    assert first.shape == (1, 1, 24, 5)
    assert first[0, 0, :, 0].tolist() == whole.flatten()[stripes.own(1)].tolist()
    assert first[0, 0, 0, 1:].tolist() == [0, 10, 0, 4]  # stripes at 0, 18, 6 and 12
    assert first[0, 0, 12, 1:].tolist() == [16, 34, 22, 28]
