"""One window over several processes: each holds a part of its tokens, and the keys and values of one layer at a time.

The window is cut into equal stripes, dealt in rounds: in round 0 rank r takes stripe r, in round 1 the ranks take the
next stripes in reverse, and so on, an even number of rounds. Under causal attention two rounds together cost every
rank the same. In each round the ranks run their stripes through a layer at the same time; their keys and values are
gathered, so that every query finds all keys before its own, and attention needs no further exchange. Beyond the
weights a rank holds its part of the residual stream and the keys and values of one layer for the whole window.
The zigzag is that of Zhu, ring-flash-attention, 2024; gathering keys and values instead of passing them round is
section 3.3.2 of The Llama 3 Herd of Models, arXiv:2407.21783.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed, nn
from transformers.masking_utils import causal_mask_function

from harness.models.chunked import LayerCache, chunked
from harness.models.rotary import rotary_modules
from harness.models.seen import first_seen
from harness.models.swap import swapped


@dataclass(frozen=True)
class Stripes:
    """How a window of `length` tokens is dealt to `ranks` processes, in `rounds` stripes of `size` tokens each.

    The last stripes may reach beyond the window: what stands there is computed and thrown away, and as nothing before
    it attends to it, it changes nothing.
    """

    length: int
    ranks: int
    rounds: int

    @classmethod
    def of(cls, length: int, ranks: int, largest: int) -> "Stripes":
        """As few rounds as keep stripes within `largest` tokens."""
        return cls(length, ranks, 2 * -(-length // (2 * ranks * largest)))

    @property
    def size(self) -> int:
        """Tokens of a stripe."""
        return -(-self.length // (self.ranks * self.rounds))

    @property
    def padded(self) -> int:
        """Tokens of all stripes."""
        return self.ranks * self.rounds * self.size

    def stripe(self, rank: int, round_: int) -> int:
        """The stripe that a rank holds in a round."""
        return round_ * self.ranks + (rank if round_ % 2 == 0 else self.ranks - 1 - rank)

    def begins(self, rank: int) -> list[int]:
        """The first token of each stripe of a rank."""
        return [self.stripe(rank, round_) * self.size for round_ in range(self.rounds)]

    def own(self, rank: int) -> Tensor:
        """The tokens of a rank, int64 (rounds * size,); the window's last stands for those beyond it."""
        tokens = torch.tensor(self.begins(rank))[:, None] + torch.arange(self.size)
        return tokens.flatten().clamp(max=self.length - 1)


@dataclass(frozen=True)
class Ranks:
    """The processes that share a window, and how they exchange tensors."""

    rank: int
    size: int
    group: Any  # torch.distributed's, of the backend of the tensors' device

    def gathered(self, own: Tensor) -> list[Tensor]:
        """What each rank gives, of one shape, in their order."""
        found = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(self.size)]
        distributed.all_gather(found, own.contiguous(), group=self.group)
        return found


class GatheredCache(LayerCache):
    """Keys and values of one layer for the whole window, written round by round as all ranks compute them."""

    def __init__(self, length: int, buffers: dict[int, Tensor], *, stripes: Stripes, ranks: Ranks) -> None:
        super().__init__(stripes.padded, buffers)
        self.stripes, self.ranks, self.round = stripes, ranks, 0

    @torch.compiler.disable
    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Exchange a round's stripes (batch, heads, size, channels); returns all up to the end of this rank's."""
        size, own = self.stripes.size, self.stripes.stripe(self.ranks.rank, self.round)
        both = [self._buffer(i, x) for i, x in enumerate((keys, values))]
        for held, new in zip(both, (keys, values), strict=True):
            for rank, part in enumerate(self.ranks.gathered(new)):
                begin = self.stripes.stripe(rank, self.round) * size
                held[:, :, begin : begin + size] = part
        self.round += 1
        return both[0][:, :, : (own + 1) * size], both[1][:, :, : (own + 1) * size]

    def get_seq_length(self, *_: Any) -> int:
        """Tokens before the stripe whose turn it is."""
        return self.stripes.stripe(self.ranks.rank, self.round) * self.stripes.size


@contextmanager
def spread(model: nn.Module, stripes: Stripes, ranks: Ranks) -> Iterator[None]:
    """Until the block ends, the model's body takes this rank's tokens of a window, every rank at the same time.

    Raises LookupError where decoder layers cannot be run one by one.
    """
    with ExitStack() as stack:
        for rotary in rotary_modules(model):
            forward = partial(_rotation, rotary.module.forward, stripes.length - 1)
            stack.enter_context(swapped(rotary.module, "forward", forward))
        cache = partial(GatheredCache, stripes=stripes, ranks=ranks)
        mask = partial(_mask, stripes, ranks.rank)
        stack.enter_context(chunked(model, stripes.size, cache=cache, mask=mask))
        yield


def _rotation(
    forward: Callable[..., Any], last: int, hidden: Tensor, position_ids: Tensor, *rest: Any, **more: Any
) -> Any:
    """A rotary module's answer where it sees the window's last position, too: some scale by the largest they see."""
    end = position_ids.new_full((*position_ids.shape[:-1], 1), last)
    answer = forward(hidden, torch.cat((position_ids, end), dim=-1), *rest, **more)
    return answer[:, :-1] if isinstance(answer, Tensor) else type(answer)(part[..., :-1, :] for part in answer)


def _mask(stripes: Stripes, rank: int, *, mask_function: Any, device: torch.device, **_: Any) -> Tensor | None:
    """As that of `chunked`, for the tokens of this rank; what it is asked for in terms of them does not count."""
    if mask_function is causal_mask_function:
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


def hidden_states(model: Any, ids: Tensor, stripes: Stripes, rank: int) -> Tensor:
    """The last hidden states (batch, rounds * size, hidden) of this rank's tokens of `ids` (batch, length)."""
    own = stripes.own(rank).to(ids.device)
    body = getattr(model, model.base_model_prefix)
    everything = torch.ones_like(own).expand(len(ids), -1)  # without a mask, jumps of position would part documents
    hidden: Tensor = body(
        input_ids=ids[:, own], position_ids=own[None], attention_mask=everything, use_cache=False
    ).last_hidden_state
    return hidden


def in_order(parts: Sequence[Tensor], stripes: Stripes) -> Tensor:
    """What every rank has of its tokens, (batch, rounds * size) each, as (batch, length) of the window."""
    placed = parts[0].new_empty(len(parts[0]), stripes.padded)
    for rank, part in enumerate(parts):
        for begin, own in zip(stripes.begins(rank), part.split(stripes.size, dim=1), strict=True):
            placed[:, begin : begin + stripes.size] = own
    return placed[:, : stripes.length]
