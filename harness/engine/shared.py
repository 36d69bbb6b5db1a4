"""One window over several processes: each holds its part of the tokens, and of one layer's keys and values.

The window is computed in rounds, one after the other. A round is cut into two equal stripes a rank, dealt from both
ends: under causal attention the first and the last together cost what every other pair costs, so that no rank waits in
any round. In a round all ranks run their stripes through a layer at the same time; keys and values are passed round
while attention computes (harness.engine.ring). Of the last layer only tokens that are scored are run, and of the others
keys and values.
Pairs of stripes: The Llama 3 Herd of Models, arXiv:2407.21783, section 3.3.2.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from harness.engine.exchange import Ranks
from harness.engine.kept import Kept
from harness.engine.layered import chunked
from harness.engine.nll import losses, per_token
from harness.engine.ring import Ring, RingCache
from harness.engine.ring_attention import attend
from harness.engine.ring_windows import first_seen_by_ranks
from harness.engine.stripes import Stripes, in_order
from harness.models.attention.causal import causal_mask
from harness.models.parts import CausalLM, body_of
from harness.models.rotary.layout import Rotation
from harness.models.rotary.modules import rotary_modules
from harness.models.swap import swapped


@contextmanager
def spread(
    model: CausalLM, stripes: Stripes, ranks: Ranks, wanted: int = 0, kept: Kept | None = None
) -> Iterator[None]:
    """Until the block ends, the model's body takes this rank's tokens of a window, every rank at the same time.

    Hidden states come out right for tokens from position `wanted` of the window on. `kept` as in `chunked`.
    Raises LookupError where decoder layers cannot be run one by one.
    """
    ring = Ring(stripes, ranks)
    with ExitStack() as stack:
        for rotary in rotary_modules(model):
            forward = partial(_rotation, rotary.module.forward, stripes.length - 1)
            stack.enter_context(swapped(rotary.module, "forward", forward))
        cache = partial(RingCache, ring=ring, wanted=wanted)
        mask = partial(_mask, stripes, ranks.rank)
        first = stripes.first_run(ranks.rank, wanted)
        attention = partial(attend, ring)
        layers = chunked(model, 2 * stripes.size, first, cache=cache, attention=attention, mask=mask, kept=kept)
        stack.enter_context(layers)
        yield


def _rotation(
    forward: Callable[..., Rotation], last: int, hidden: Tensor, position_ids: Tensor, *rest: object, **more: object
) -> Rotation:
    """A rotary module's answer where it sees the window's last position, too: some scale by the largest they see."""
    end = position_ids.new_full((*position_ids.shape[:-1], 1), last)
    answer = forward(hidden, torch.cat((position_ids, end), dim=-1), *rest, **more)
    if isinstance(answer, Tensor):
        return answer[:, :-1]
    cos, sin = answer
    return cos[..., :-1, :], sin[..., :-1, :]


def _mask(stripes: Stripes, rank: int, **options: Any) -> Tensor | None:
    """As that of `chunked`, for the tokens of this rank; what it is asked for in terms of them does not count."""
    length = stripes.length
    whole = {"batch_size": 1, "q_length": length, "kv_length": length, "q_offset": 0, "kv_offset": 0}
    first = causal_mask(**{**options, **whole, "attention_mask": None})
    return None if first is None else first_seen_by_ranks(first, stripes, rank)


@torch.inference_mode()
def shared_nll(
    model: CausalLM, ids: Tensor, score_from: int, stripes: Stripes, ranks: Ranks, kept: Kept | None = None
) -> Tensor:
    """As `token_nll`, every window over all ranks, dealt in `stripes`; the same on each. `kept` as in `chunked`.

    ids: (batch, length); returns (batch, length - score_from). Losses are computed where their tokens live, and
    exchanged as they are.
    """
    length = ids.shape[1]
    with spread(model, stripes, ranks, score_from - 1, kept):
        hidden = _hidden_states(model, ids, stripes, ranks.rank)
    of_next = (*hidden.shape[:2], *per_token())  # each state scores the token behind it
    own = torch.zeros(of_next, dtype=torch.float32, device=ids.device)
    for number, begin in enumerate(stripes.all_begins(ranks.rank)):
        first, last = max(begin, score_from - 1), min(begin + stripes.size, length - 1)
        if first < last:
            place = slice(number * stripes.size + first - begin, number * stripes.size + last - begin)
            own[:, place] = losses(model, hidden[:, place], ids[:, first + 1 : last + 1])
    return in_order(ranks.gathered(own), stripes)[:, score_from - 1 : -1]


def _hidden_states(model: CausalLM, ids: Tensor, stripes: Stripes, rank: int) -> Tensor:
    """The last hidden states (batch, 2 * rounds * size, hidden) of this rank's tokens of `ids` (batch, length)."""
    own = stripes.own(rank).to(ids.device)
    body = body_of(model)
    everything = torch.ones_like(own).expand(len(ids), -1)  # without a mask, jumps of position would part documents
    hidden: Tensor = body(
        input_ids=ids[:, own], position_ids=own[None], attention_mask=everything, use_cache=False
    ).last_hidden_state
    return hidden
