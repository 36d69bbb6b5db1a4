"""What a command owes its terminal: no traceback where nobody reads, where a disk is full, or for Ctrl-C."""

import atexit
import errno
import io
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

INTERRUPTED = 128 + signal.SIGINT  # the exit code that a shell gives to what Ctrl-C has ended


class _Forgiving(io.RawIOBase):
    """A stream whose reader may leave: what is written from then on is dropped, so that the work goes on to its end."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.lost: OSError | None = None

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self.descriptor)

    def fileno(self) -> int:
        return self.descriptor

    def write(self, data: object) -> int:
        view = memoryview(data)  # type: ignore[arg-type]  # a buffer
        if self.lost is None:
            try:
                return os.write(self.descriptor, view)
            except OSError as error:
                self.lost = error
        return view.nbytes


@contextmanager
def guarded(interrupted: str = "interrupted") -> Iterator[None]:
    """Run a command: Ctrl-C ends it in one line, and so does output that is lost but for a reader that left.

    A character that a stream cannot encode is written as its escape.
    """
    _reserve_descriptors()
    output, sys.stdout = sys.stdout, _forgiving(sys.stdout)
    errors, sys.stderr = sys.stderr, _forgiving(sys.stderr)
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)  # nothing is left to interrupt
    try:
        if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:  # as `until_guarded` left it
            signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would only break the clearing up
        _forget_interrupt()
        print(interrupted, file=sys.stderr)
        sys.exit(INTERRUPTED)
    finally:
        lost = _lost(sys.stdout)
        if output is None or sys.stdout is not output:
            sys.stdout, sys.stderr = output, errors
        if lost is not None and lost.errno != errno.EPIPE:
            print(f"error: standard output cannot be written: {lost.strerror}", file=sys.stderr)
            sys.exit(1)


def _forget_interrupt() -> None:
    """Let the exit code count where the interrupt fell into an `exec` of text, as dataclasses and namedtuples use.

    CPython notes there that an interrupt was not handled (run_eval_code_obj, Python/pythonrun.c), although one further
    out may handle it, and ends `python -m` by the signal whatever sys.exit says. Each `exec` of text begins by
    clearing the note.
    """
    exec("")


def is_command() -> bool:
    """Whether Python was started with `-m` and a command of this package, which it is still looking up."""
    return (
        sys.argv[:1] == ["-m"] and re.search(r"(^|\0)-m\0?harness(\.\w+)?(\0|$)", "\0".join(sys.orig_argv)) is not None
    )


def until_guarded() -> None:
    """From here to `guarded`, Ctrl-C ends the process at once and says nothing, as before Python has begun."""
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _forgiving(stream: IO[str] | None) -> IO[str]:
    if stream is None:  # closed by the shell
        return open(os.devnull, "w")
    if type(stream) is not io.TextIOWrapper:  # replaced, as in a notebook or a test
        return stream
    stream.flush()
    try:
        raw = _Forgiving(stream.fileno())
    except io.UnsupportedOperation:  # in memory
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=stream.encoding, errors="backslashreplace", line_buffering=True
    )


def _lost(stream: IO[str]) -> OSError | None:
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", None)
    if not isinstance(raw, _Forgiving):
        return None
    stream.flush()
    return raw.lost


def _reserve_descriptors() -> None:
    """Open what a shell has closed (`>&-`): a result file would get its number, and with it whatever is printed."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
