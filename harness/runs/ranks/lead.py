"""A run under torchrun: rank 0 walks the cells as a process alone does, and sends the others what each pass needs.

Every rank computes the documents that are its share and keeps them as they come; rank 0 collects the losses and writes
the cell. Configurations travel as data, as to a worker of a cluster.
"""

import logging
import os
import sys
import traceback
from collections.abc import Callable, Collection
from functools import partial
from typing import NamedTuple, NoReturn

from harness import torchrun
from harness.cells.files import CellFiles
from harness.cells.passes import Pass
from harness.config.schema import Config
from harness.errors import UserError, one_line
from harness.runs.against import compute_share
from harness.runs.cluster.pack import Pack
from harness.runs.ranks import processes
from harness.runs.share import Resources, Share

log = logging.getLogger(__name__)
CONTEXT_GRACE_S = 120.0  # for other ranks to end after one has, where they share windows; loading may take as long


class Order(NamedTuple):
    """A pass that all ranks compute together."""

    pack: Pack  # its cells, the longest first
    finished: frozenset[int]  # documents that were computed before


class Failure(NamedTuple):
    """What kept a rank from computing its share, as text."""

    rank: str
    message: str
    traceback: str
    is_mistake: bool  # of the user


class RankFailed(RuntimeError):
    """Another rank could not compute its share."""


def run(lead: Callable[[], object]) -> None:
    """On rank 0 `lead()`; the others do what it asks of them until it ends. The exit code is rank 0's.

    The others wait for rank 0, which meets them when there is something to compute: a mistake ends the run before
    torch is there, and torchrun ends who still waits.
    """
    code = None
    if torchrun.rank() != 0:
        processes.join()
    try:
        lead() if torchrun.rank() == 0 else _follow()
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):  # the others were interrupted, too
            raise
        code = end.code
    except KeyboardInterrupt:
        sys.exit(1)
    if torchrun.rank() == 0:
        if code and not processes.has_joined():
            _leave(code)
        processes.join()
        processes.broadcast(None)
    processes.part()
    _leave(code)


def _leave(code: int | str | None) -> NoReturn:
    """As `sys.exit`, at once: taking apart what was imported takes longer than a small cell, and torchrun waits."""
    if isinstance(code, str):
        print(code, file=sys.stderr)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if isinstance(code, str) else code or 0)


def _follow() -> None:
    logging.getLogger("harness").setLevel(logging.ERROR)  # rank 0 says the rest
    resources = Resources()
    order: Order | None
    while (order := processes.broadcast()) is not None:
        with processes.at_death(partial(_report_death, order.pack.cells[0])):
            try:
                done: Share | Failure = compute_share(resources, Pass(tuple(order.pack.prepared())), order.finished)
            except Exception as error:
                done = _failure(error)
            _gathered(done, order.pack.configs[0])


def compute(resources: Resources, current: Pass, finished: Collection[int]) -> Share:
    """All documents of a pass that are not finished, by all ranks; the seconds are those of the slowest.

    Raises what computing here raises, and UserError or RankFailed for what the first other rank raised.
    """
    if torchrun.size() == 1:
        return compute_share(resources, current, finished)
    raised: Exception | None = None
    done: Share | Failure
    processes.join()
    processes.broadcast(Order(Pack.of(current.cells), frozenset(finished)))
    with processes.at_death(partial(_report_death, current.longest.files)):
        try:
            done = compute_share(resources, current, finished)
        except Exception as error:
            raised, done = error, _failure(error)
        everyones = _gathered(done, current.longest.cell.config)
    if raised is not None:
        raise raised
    shares = [_successful(each) for each in everyones]
    scores = [s for share in shares for s in share.scores]
    return Share(scores, max(share.seconds for share in shares), shares[0].installed, shares[0].base_installed)


def _gathered(done: Share | Failure, config: Config) -> list[Share | Failure]:
    """On rank 0 what became of every share.

    Ranks that share each window end together. Where they do not, one has failed while the others wait for its part.
    """
    if config.engine.parallel == "context":
        reason = f"{done.rank}: {done.message}" if isinstance(done, Failure) else "another rank does not answer"
        processes.meet(CONTEXT_GRACE_S, reason)
    return processes.gather(done)


def _failure(error: Exception) -> Failure:
    text = one_line(error)
    is_mistake = isinstance(error, UserError)
    message = text if is_mistake else f"{type(error).__name__}: {text}"
    return Failure(torchrun.name(), message, "".join(traceback.format_exception(error)), is_mistake)


def _successful(done: Share | Failure) -> Share:
    if isinstance(done, Share):
        return done
    error = (UserError if done.is_mistake else RankFailed)(f"{done.rank}: {done.message}")
    error.add_note(done.traceback)
    raise error


def _report_death(files: CellFiles, which: str) -> None:
    """A dead rank fails the cell that it was computing, unless it said why."""
    if files.failure() is None:
        message = f"{which}; finished documents are kept"
        files.write_failure(message, "")
        log.error("FAILED %s: %s", files.label, message)
