"""The processes of one run under torchrun: who this one is, how they talk, and their common end when one dies.

torchrun starts equal processes, the ranks, each with its number in environment variables. Objects pass between
them through a gloo group, on any device. Nobody waits for a dead rank: every rank watches the others of its machine,
and those of other machines through torchrun, which ends all when one ends. torch is imported when ranks join.
"""

import datetime
import json
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Literal, NamedTuple, NoReturn, TypeVar

from harness import torchrun
from harness.errors import one_line
from harness.storage.leases import is_gone, process

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

log = logging.getLogger(__name__)
T = TypeVar("T")

WATCH_S = 1.0  # between looks at the other ranks
LINGER_S = 3.0  # that a rank stays when another has died, so that it is not taken for the dead one
PATIENCE = datetime.timedelta(days=365)  # a rank may compute for days before it answers; death is noticed otherwise


class Peer(NamedTuple):
    """Another rank, as this one sees it."""

    name: str
    process: str  # harness.storage.leases.process, as JSON


_NOBODY = Peer("", "")


def join() -> None:
    """Meet the other ranks, the first time that it is called; every rank calls it before it talks."""
    from torch import distributed

    if has_joined():
        return
    distributed.init_process_group("gloo", timeout=PATIENCE)
    peers: list[Peer] = [_NOBODY] * torchrun.size()
    distributed.all_gather_object(peers, Peer(torchrun.name(), json.dumps(process())))
    _watch.start(peers)


def has_joined() -> bool:
    """Whether this rank has met the others."""
    return _watch.is_watching


def part() -> None:
    """Leave in order, all ranks together."""
    from torch import distributed

    _watch.stop()
    with _talking():
        distributed.barrier()
    distributed.destroy_process_group()


def broadcast(value: T | None = None) -> T | None:
    """What rank 0 gives, on every rank."""
    from torch import distributed

    box = [value]
    with _talking():
        distributed.broadcast_object_list(box, src=0)
    return box[0]


def gather(value: T) -> list[T]:
    """On rank 0 what every rank gives, in their order; elsewhere nothing."""
    from torch import distributed

    found = [value] * torchrun.size() if torchrun.rank() == 0 else None
    with _talking():
        distributed.gather_object(value, found)
    return found or []


def meet(within_s: float, otherwise: str) -> None:
    """Wait until every rank is here; where one is not in time, this process ends all, for the reason `otherwise`."""
    from torch import distributed

    try:
        distributed.monitored_barrier(timeout=datetime.timedelta(seconds=within_s))
    except RuntimeError:
        _watch.end_all(otherwise)


@cache
def tensor_group(backend: Literal["gloo", "nccl"]) -> "ProcessGroup":
    """The ranks as torch.distributed knows them for tensors, through gloo or nccl; every rank calls it."""
    from torch import distributed

    if backend == "gloo":
        return distributed.new_group(backend=backend)
    # What is sent while attention computes must not wait for its kernels, which fill the GPU.
    return distributed.new_group(
        backend=backend, pg_options=distributed.ProcessGroupNCCL.Options(is_high_priority_stream=True)
    )


@contextmanager
def _talking() -> Iterator[None]:
    """A connection that breaks is the death of a rank; whose, the watch finds out."""
    try:
        yield
    except RuntimeError as error:
        _watch.end_all(f"lost the connection to another rank: {one_line(error)}")


@contextmanager
def at_death(report: Callable[[str], object]) -> Iterator[None]:
    """Until the block ends, the death of a rank is reported by `report(which)`, on one of the ranks that are left."""
    _watch.report = report
    try:
        yield
    finally:
        _watch.report = log.error


class _Watch:
    """A thread that ends this process when another rank has died, or when the run is asked to end.

    A thread, since the main one may be waiting inside a library for the very rank that died.
    """

    def __init__(self) -> None:
        self.report: Callable[[str], object] = log.error
        self.is_watching = False
        self._peers: list[Peer] = []
        self._stopped = threading.Event()
        self._is_interrupted = False

    def start(self, peers: list[Peer]) -> None:
        """Begin to watch."""
        self.is_watching, self._peers = True, peers
        self._signals, wakeup = os.pipe()
        os.set_blocking(wakeup, False)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda number, frame: None)  # the thread answers: it can while main is waiting
        self._thread = threading.Thread(target=self._run, name="ranks", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """No longer watch: the ranks are about to end."""
        self._stopped.set()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)

    def end_all(self, reason: str) -> NoReturn:
        """End this process because another has ended; by its name where it is known after a moment."""
        time.sleep(2 * WATCH_S)  # the thread ends this process first where it sees who has died
        self._leave(reason)

    def _run(self) -> None:
        while not self._stopped.is_set():
            ready, _, _ = select.select([self._signals], [], [], WATCH_S)
            received = set(os.read(self._signals, 64)) if ready else set()
            self._is_interrupted |= signal.SIGINT in received
            dead = [i for i, peer in enumerate(self._peers) if is_gone(peer.process)]
            if self._stopped.is_set():
                return
            if dead and not self._is_interrupted:
                alive = next(i for i in range(len(self._peers)) if i not in dead)
                names = " and ".join(self._peers[i].name for i in dead)
                self._leave(f"{names} died" if torchrun.rank() == alive else None)
            if dead or signal.SIGTERM in received:
                self._leave(None)

    def _leave(self, reason: str | None) -> NoReturn:
        if reason:
            self.report(reason)
        sys.stderr.flush()
        time.sleep(LINGER_S)
        os._exit(1)


_watch = _Watch()
