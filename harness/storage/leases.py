"""Who computes a cell right now, shown to other processes and machines by a file beside it.

A lease is created exclusively and then touched every BEAT_S seconds. Whoever finds it taken watches it: a lease whose
modification time did not move for EXPIRY_S seconds *of the watcher's own clock* is dead, so that clocks of different
machines are never compared. A dead holder on the same machine, or an earlier start of the same batch job, is known at
once. Should two processes come to hold one lease all the same (one of them was frozen for longer than EXPIRY_S), a
cell is computed twice and written whole twice, with the same numbers: a lease saves work, it does not guard results.
"""

import contextlib
import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from harness.storage.files import storage

log = logging.getLogger(__name__)

BEAT_S = 10.0
EXPIRY_S = 90.0  # above the minute for which network file systems may show old modification times


class Sign(NamedTuple):
    """What a watcher sees of a lease."""

    content: str
    mtime_ns: int


class Leases:
    """The leases that this process holds; a thread keeps them alive until the `with` block ends."""

    def __init__(self) -> None:
        self.owner = uuid.uuid4().hex
        self._held: set[Path] = set()
        self._seen: dict[Path, tuple[Sign, float]] = {}  # of others: sign, and when it was first seen
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="leases", daemon=True)

    def __enter__(self) -> "Leases":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        self.release(list(self._held))

    def acquire(self, files: Sequence[Path]) -> bool:
        """Take all of these leases or none; never waits. Raises StorageError."""
        taken: list[Path] = []
        for file in files:
            if not self._take(file):
                self.release(taken)
                return False
            taken.append(file)
        return True

    def release(self, files: Sequence[Path]) -> None:
        """Give leases back; one that another process has taken over meanwhile stays its own."""
        for file in files:
            self._held.discard(file)
            if self._is_own(file):
                file.unlink(missing_ok=True)

    def _take(self, file: Path) -> bool:
        with storage(file.parent):
            file.parent.mkdir(parents=True, exist_ok=True)
            while not self._create(file):
                found = _sign(file)
                if found is not None and not (self._is_dead(file, found) and self._bury(file, found)):
                    return False
        self._seen.pop(file, None)
        self._held.add(file)
        return True

    def _create(self, file: Path) -> bool:
        try:
            handle = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return False
        try:
            os.write(handle, json.dumps({"owner": self.owner, **process()}).encode())
        except OSError:
            file.unlink(missing_ok=True)
            raise
        finally:
            os.close(handle)
        return True

    def _is_dead(self, file: Path, sign: Sign) -> bool:
        if is_gone(sign.content):
            return True
        known, since = self._seen.get(file, (None, 0.0))
        if known != sign:
            self._seen[file] = (sign, time.monotonic())
            return False
        return time.monotonic() - since > EXPIRY_S

    def _bury(self, file: Path, dead: Sign) -> bool:
        """Remove a dead lease; one process at a time, so that none removes the lease of one that was quicker."""
        guard = file.with_name(f".{file.name}.burial")
        if not self._create(guard):
            holder = _sign(guard)
            if holder is not None and self._is_dead(guard, holder):
                guard.unlink(missing_ok=True)  # its process was killed in the act
            return False
        try:
            found = _sign(file)
            if found is not None and found.content == dead.content:
                file.unlink(missing_ok=True)
                log.info("took over %s from a process that is gone", file.name)
        finally:
            guard.unlink(missing_ok=True)
        return True

    def _is_own(self, file: Path) -> bool:
        sign = _sign(file)
        return sign is not None and _field(sign.content, "owner") == self.owner

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_S):
            for file in list(self._held):
                if self._is_own(file):
                    with contextlib.suppress(OSError):
                        os.utime(file)
                elif file in self._held:
                    log.warning("%s was taken over by another process; both go on", file.name)
                    self._held.discard(file)


def _sign(file: Path) -> Sign | None:
    """A lease as it is now, None if there is none; opened, not only looked up, so that network caches are passed by."""
    try:
        with file.open("rb") as stream:
            return Sign(stream.read().decode(errors="replace"), os.fstat(stream.fileno()).st_mtime_ns)
    except FileNotFoundError:
        return None


def _field(content: str, name: str) -> str | int | None:
    try:
        return json.loads(content).get(name)
    except (ValueError, AttributeError):
        return None  # just created, or foreign: judged by its beat alone


def process() -> dict[str, str | int]:
    """What lets others on this machine, or a later start of this batch job, see that this process is gone (JSON)."""
    pid = os.getpid()
    return {
        "machine": _machine(),
        "pid": pid,
        "started": _started(pid) or "",
        "job": os.environ.get("SLURM_JOB_ID", ""),
        "restarts": int(os.environ.get("SLURM_RESTART_COUNT") or 0),
    }


def is_gone(content: str) -> bool:
    """Whether the process that `process` described, as JSON, surely no longer runs."""
    mine = process()
    if _field(content, "machine") == mine["machine"] != "":
        pid = _field(content, "pid")
        return not isinstance(pid, int) or _started(pid) != _field(content, "started")
    if not _field(content, "job") == mine["job"] != "":
        return False
    return _field(content, "restarts") != mine["restarts"]  # a job starts again only when its earlier start has ended


@cache
def _machine() -> str:
    """This boot of this machine and this process namespace; empty where the system does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """When a process started, in ticks since boot; None if it is not running (a zombie is not)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
