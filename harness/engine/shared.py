"""One window over several processes: each holds a part of its tokens, and the keys and values of one layer at a time.

The window is computed in rounds, one after the other. A round is cut into two equal stripes a rank, dealt from both
ends: under causal attention the first and the last together cost what every other pair costs, so that no rank waits in
any round. In a round all ranks run their stripes through a layer at the same time; their keys and values are gathered,
so that every query finds all keys before its own, and attention needs no further exchange. Beyond the weights a rank
holds its part of the residual stream and the keys and values of one layer for the whole window.
Pairs of stripes and gathered keys and values: The Llama 3 Herd of Models, arXiv:2407.21783, section 3.3.2.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed, nn
from transformers.masking_utils import causal_mask_function

from harness.engine.layered import LayerCache, attend, chunked
from harness.models.attention.first_seen import first_seen
from harness.models.rotary.modules import rotary_modules
from harness.models.swap import swapped


@dataclass(frozen=True)
class Stripes:
    """How a window of `length` tokens is dealt to `ranks` processes, in `rounds` of two stripes each of `size` tokens.

    The last stripes may reach beyond the window: what stands there is computed and thrown away, and as nothing before
    it attends to it, it changes nothing.
    """

    length: int
    ranks: int
    rounds: int

    @classmethod
    def of(cls, length: int, ranks: int, largest: int) -> "Stripes":
        """As few rounds, two at least, as let a rank run `largest` tokens at a time."""
        return cls(length, ranks, max(2, -(-length // (ranks * largest))))

    @property
    def size(self) -> int:
        """Tokens of a stripe."""
        return -(-self.length // (2 * self.ranks * self.rounds))

    @property
    def padded(self) -> int:
        """Tokens of all stripes."""
        return 2 * self.ranks * self.rounds * self.size

    def begins(self, rank: int, round_: int) -> tuple[int, int]:
        """The first tokens of the two stripes of a rank in a round."""
        first = 2 * self.ranks * round_
        return (first + rank) * self.size, (first + 2 * self.ranks - 1 - rank) * self.size

    def all_begins(self, rank: int) -> list[int]:
        """The first token of every stripe of a rank, in the order in which it holds them."""
        return [begin for round_ in range(self.rounds) for begin in self.begins(rank, round_)]

    def own(self, rank: int) -> Tensor:
        """The tokens of a rank, int64 (2 * rounds * size,); the window's last stands for those beyond it."""
        tokens = torch.tensor(self.all_begins(rank))[:, None] + torch.arange(self.size)
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
    **options: Any,
) -> tuple[Tensor, None]:
    """Causal attention of a rank's two stripes of the round with which the keys end."""
    round_ = key.shape[2] // (2 * stripes.ranks * stripes.size) - 1
    outputs = []
    for number, begin in enumerate(stripes.begins(rank, round_)):
        rows, end = slice(number * stripes.size, (number + 1) * stripes.size), begin + stripes.size
        seen = None if first is None else first[:, :, rows]
        outputs.append(attend(module, query[:, :, rows], key[:, :, :end], value[:, :, :end], seen, **options)[0])
    return torch.cat(outputs, dim=1), None


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
    """The last hidden states (batch, 2 * rounds * size, hidden) of this rank's tokens of `ids` (batch, length)."""
    own = stripes.own(rank).to(ids.device)
    body = getattr(model, model.base_model_prefix)
    everything = torch.ones_like(own).expand(len(ids), -1)  # without a mask, jumps of position would part documents
    hidden: Tensor = body(
        input_ids=ids[:, own], position_ids=own[None], attention_mask=everything, use_cache=False
    ).last_hidden_state
    return hidden


def in_order(parts: Sequence[Tensor], stripes: Stripes) -> Tensor:
    """What every rank has of its tokens, (batch, 2 * rounds * size) each, as (batch, length) of the window."""
    placed = parts[0].new_empty(len(parts[0]), stripes.padded)
    for rank, part in enumerate(parts):
        for begin, own in zip(stripes.all_begins(rank), part.split(stripes.size, dim=1), strict=True):
            placed[:, begin : begin + stripes.size] = own
    return placed[:, : stripes.length]
