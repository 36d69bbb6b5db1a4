"""A document as it comes out of a file: a text, or a long one that is read while it is asked for."""

import codecs
import csv
import itertools
import logging
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO, NamedTuple

from harness.errors import UserError, first_line
from harness.storage import hashed

log = logging.getLogger(__name__)

BOM = "\ufeff"
LONG = 1 << 24  # bytes of a text that is not held in memory as a whole


class Parts:
    """A long text that is read while it is asked for: once, and as far as it is asked for."""

    def __init__(self, begin: bytes, stream: IO[bytes], what: str) -> None:
        self._begin, self._stream, self._what = begin, stream, what

    def __iter__(self) -> Iterator[str]:
        """Its parts in order. Raises UserError where it cannot be read."""
        decoder, before = codecs.getincrementaldecoder("utf-8")(), 0
        with understood(self._what):
            for block in itertools.chain([self._begin], iter(partial(self._stream.read, hashed.BLOCK), b""), [b""]):
                pending = len(decoder.getstate()[0])
                try:
                    text = decoder.decode(block, final=not block)
                except UnicodeDecodeError as error:
                    raise _undecodable(self._what, before - pending + error.start) from error
                if not before and text.startswith(BOM):
                    log.warning("a text of %s begins with a byte order mark, which is left out", self._what)
                    text = text.removeprefix(BOM)
                before += len(block)
                yield text


class RawText(NamedTuple):
    """One untokenized document."""

    name: str
    text: str | Parts
    target: str | None = None  # what follows it and alone counts


@contextmanager
def understood(what: str) -> Iterator[None]:
    """What goes wrong with reading a file, `what`, as a UserError."""
    try:
        yield
    except UserError:
        raise
    except UnicodeDecodeError as error:
        raise _undecodable(what, error.start) from error
    except (OSError, EOFError, ValueError, RuntimeError, csv.Error, zlib.error, lzma.LZMAError) as error:
        raise UserError(f"{what} cannot be read: {first_line(error)}") from error


def _undecodable(what: str, place: int) -> UserError:
    return UserError(f"{what} is not UTF-8 text: byte {place} cannot be decoded.")
