"""The processes that share a window, and how tensors pass between them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, distributed
from torch.distributed import P2POp, ProcessGroup, Work

Message = tuple[int, Tensor]  # another rank, and what goes to it or where what it sends is put; contiguous


@dataclass(frozen=True)
class Ranks:
    """The processes that share a window, and how they exchange tensors."""

    rank: int
    size: int
    group: ProcessGroup  # of the backend of the tensors' device; all processes of the run

    def gathered(self, own: Tensor) -> list[Tensor]:
        """What each rank gives, all of one shape (...), in their order."""
        found = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(self.size)]
        distributed.all_gather(found, own.contiguous(), group=self.group)
        return found

    def start(self, sends: Sequence[Message], receives: Sequence[Message]) -> list[Work]:
        """Begin to send and receive; what `finish` waits for.

        Two ranks must name what passes between them in the same order.
        """
        operations = [P2POp(distributed.isend, tensor, peer, self.group) for peer, tensor in sends]
        operations += [P2POp(distributed.irecv, tensor, peer, self.group) for peer, tensor in receives]
        return distributed.batch_isend_irecv(operations) if operations else []


def finish(works: Sequence[Work]) -> None:
    """Wait until everything has been sent and received; on a GPU the stream waits, not this process."""
    for work in works:
        work.wait()
