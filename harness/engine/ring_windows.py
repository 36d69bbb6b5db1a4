"""Layers that see only a window of a text dealt to several processes: what is seen of other ranks' keys is exchanged.

All ranks know what each of them sees, so that no rank asks another: they name the same pieces in the same order.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from harness.engine.attention import windowed
from harness.engine.exchange import Message, finish
from harness.engine.ring import Ring
from harness.engine.stripes import Stripes


def first_seen_by_ranks(whole: Tensor, stripes: Stripes, rank: int) -> Tensor:
    """What `attend_in_windows` needs of a layer's mask, int64 (1, 1, own tokens, 1 + 2 ranks).

    whole: (1, 1, length, 1), the first key that each query of the window sees. Beside that of each own query stands
    the first that any query of each stripe of the same round sees: early and late of rank 0, of rank 1, ...
    """
    first, last = whole.flatten(), stripes.length - 1
    rounds = []
    for round_ in range(stripes.rounds):
        begins = [begin for other in range(stripes.ranks) for begin in stripes.begins(other, round_)]
        lowest = [first[min(begin, last) : begin + stripes.size].min() for begin in begins]
        rounds.append(torch.stack(lowest).expand(2 * stripes.size, -1))
    return torch.cat((first[stripes.own(rank)][:, None], torch.cat(rounds)), dim=1)[None, None]


def attend_in_windows(
    ring: Ring, query: Tensor, keys: Tensor, values: Tensor, first: Tensor, scale: float | None
) -> Tensor:
    """Attention (batch, rows, heads, channels) of the last tokens of a rank's round, each to the keys from `first` on.

    query (batch, heads, rows, channels), keys and values (batch, own tokens to the end of the round, key_heads,
    channels), first as of `first_seen_by_ranks`, of the rows.
    """
    me, size = ring.ranks.rank, ring.stripes.size
    round_ = keys.shape[1] // (2 * size) - 1
    lowest = first[0, 0, -1, 1:].view(-1, 2)
    seen = exchanged(ring, keys, values, round_, lowest)
    if not seen:  # nothing of this rank is wanted
        return query.new_zeros(query.shape).transpose(1, 2)
    early = max(0, query.shape[2] - size)
    out = []
    for number, rows in enumerate((slice(0, early), slice(early, query.shape[2]))):
        if rows.stop > rows.start:
            own = first[:, :, rows, :1] - lowest[me, number]
            own_keys, own_values = (x.transpose(1, 2) for x in seen[number])
            out.append(windowed(query[:, :, rows], own_keys, own_values, own, scale).transpose(1, 2))
    return torch.cat(out, dim=1)


def exchanged(ring: Ring, keys: Tensor, values: Tensor, round_: int, lowest: Tensor) -> list[tuple[Tensor, Tensor]]:
    """For either stripe of a rank the keys and values from the first that it sees to its end, from all ranks.

    lowest (ranks, 2): that first key of every stripe of the round.
    """
    me = ring.ranks.rank
    sends: list[Message] = []
    receives: list[Message] = []
    seen: list[tuple[list[Tensor], list[Tensor]]] = [([], []), ([], [])]
    for rank in range(ring.ranks.size):
        if not ring.wants(rank, round_):
            continue
        for number, begin in enumerate(ring.stripes.begins(rank, round_)):
            for owner, piece in _needed(ring.stripes, int(lowest[rank, number]), begin):
                for i, states in enumerate((keys, values)):
                    if rank == me:
                        own = owner == me
                        part = states[:, piece] if own else states.new_empty(states[:, piece].shape)
                        seen[number][i].append(part)
                        if not own:
                            receives.append((owner, part))
                    elif owner == me:
                        sends.append((rank, states[:, piece].contiguous()))
    finish(ring.ranks.start(sends, receives))
    return [(torch.cat(k, dim=1), torch.cat(v, dim=1)) for k, v in seen if k]


def _needed(stripes: Stripes, low: int, begin: int) -> Iterator[tuple[int, slice]]:
    """Who holds the tokens from `low` to the end of the stripe that begins at `begin`, and where among its own."""
    size = stripes.size
    for number in range(low // size, begin // size + 1):
        owner, place = stripes.owner(number)
        yield owner, slice(place * size + max(low - number * size, 0), (place + 1) * size)
