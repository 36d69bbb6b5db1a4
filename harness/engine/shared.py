"""One window over several processes: each holds a part of its tokens, and the keys and values of one layer at a time.

The window is computed in rounds, one after the other. A round is cut into two equal stripes a rank, dealt from both
ends: under causal attention the first and the last together cost what every other pair costs, so that no rank waits in
any round. In a round all ranks run their stripes through a layer at the same time; their keys and values are gathered,
so that every query finds all keys before its own, and attention needs no further exchange. Beyond the weights a rank
holds its part of the residual stream and the keys and values of one layer for the whole window.
Pairs of stripes and gathered keys and values: The Llama 3 Herd of Models, arXiv:2407.21783, section 3.3.2.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, distributed, nn
from torch.distributed import ProcessGroup

from harness.engine.attention import attend
from harness.engine.layered import LayerCache, chunked
from harness.engine.nll import losses
from harness.engine.stripes import Stripes, in_order
from harness.models.attention.causal import is_causal
from harness.models.attention.first_seen import first_seen
from harness.models.parts import CausalLM, body_of
from harness.models.rotary.layout import Rotation
from harness.models.rotary.modules import rotary_modules
from harness.models.swap import swapped


@dataclass(frozen=True)
class Ranks:
    """The processes that share a window, and how they exchange tensors."""

    rank: int
    size: int
    group: ProcessGroup  # of the backend of the tensors' device

    def gathered(self, own: Tensor) -> list[Tensor]:
        """What each rank gives, all of one shape (...), in their order."""
        found = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(self.size)]
        distributed.all_gather(found, own.contiguous(), group=self.group)
        return found


class GatheredCache(LayerCache):
    """Keys and values of one layer for the whole window, written round by round as all ranks compute them."""

    def __init__(self, length: int, buffers: dict[int, Tensor], *, stripes: Stripes, ranks: Ranks) -> None:
        super().__init__(stripes.padded, buffers)
        self.stripes, self.ranks, self.round = stripes, ranks, 0

    @torch.compiler.disable
    def update(self, keys: Tensor, values: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Exchange a round's stripes (batch, heads, 2 * size, channels); returns all up to the end of the round."""
        stripes = self.stripes
        self.seen += 2 * stripes.ranks * stripes.size
        both = [self._buffer(i, x) for i, x in enumerate((keys, values))]
        for held, new in zip(both, (keys, values), strict=True):
            for rank, pair in enumerate(self.ranks.gathered(new)):
                for begin, part in zip(stripes.begins(rank, self.round), pair.split(stripes.size, dim=2), strict=True):
                    held[:, :, begin : begin + stripes.size] = part
        self.round += 1
        return both[0][:, :, : self.seen], both[1][:, :, : self.seen]


@contextmanager
def spread(model: CausalLM, stripes: Stripes, ranks: Ranks) -> Iterator[None]:
    """Until the block ends, the model's body takes this rank's tokens of a window, every rank at the same time.

    Raises LookupError where decoder layers cannot be run one by one.
    """
    with ExitStack() as stack:
        for rotary in rotary_modules(model):
            forward = partial(_rotation, rotary.module.forward, stripes.length - 1)
            stack.enter_context(swapped(rotary.module, "forward", forward))
        cache = partial(GatheredCache, stripes=stripes, ranks=ranks)
        mask = partial(_mask, stripes, ranks.rank)
        attention = partial(_attention, stripes, ranks.rank)
        stack.enter_context(chunked(model, 2 * stripes.size, cache=cache, attention=attention, mask=mask))
        yield


@torch.compiler.disable
def _attention(
    stripes: Stripes,
    rank: int,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    first: Tensor | None = None,
    *,
    scaling: float | None = None,
    **options: object,
) -> tuple[Tensor, None]:
    """Causal attention of a rank's two stripes of the round with which the keys end.

    query (batch, heads, 2 * size, channels), key and value (batch, key_heads, keys, channels), first (1, 1, 2 * size,
    1); output (batch, 2 * size, heads, channels).
    """
    round_ = key.shape[2] // (2 * stripes.ranks * stripes.size) - 1
    outputs = []
    for number, begin in enumerate(stripes.begins(rank, round_)):
        rows, end = slice(number * stripes.size, (number + 1) * stripes.size), begin + stripes.size
        seen = None if first is None else first[:, :, rows]
        own, keys, values = query[:, :, rows], key[:, :, :end], value[:, :, :end]
        outputs.append(attend(module, own, keys, values, seen, scaling=scaling, **options)[0])
    return torch.cat(outputs, dim=1), None


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


def _mask(
    stripes: Stripes, rank: int, *, mask_function: Callable[..., Tensor], device: torch.device, **_: object
) -> Tensor | None:
    """As that of `chunked`, for the tokens of this rank; what it is asked for in terms of them does not count."""
    if is_causal(mask_function):
        return None
    whole = first_seen(
        batch_size=1,
        q_length=stripes.length,
        kv_length=stripes.length,
        q_offset=0,
        kv_offset=0,
        mask_function=mask_function,
        attention_mask=None,
        device=device,
    )
    return None if whole is None else whole[:, :, stripes.own(rank)]


@torch.inference_mode()
def shared_nll(model: CausalLM, ids: Tensor, score_from: int, largest: int, ranks: Ranks) -> Tensor:
    """As `token_nll`, every window over all ranks, up to `largest` tokens a rank at a time; the same on each.

    ids: (batch, length); returns (batch, length - score_from). Losses are computed where their tokens live, and
    exchanged as they are.
    """
    length = ids.shape[1]
    stripes = Stripes.of(length, ranks.size, largest)
    with spread(model, stripes, ranks):
        hidden = _hidden_states(model, ids, stripes, ranks.rank)
    own = torch.zeros(hidden.shape[:2], dtype=torch.float32, device=ids.device)  # of the token behind each
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
