"""A file that is read once, its content hashed on the way: what was read is what was identified, or an error."""

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UserError

if TYPE_CHECKING:
    from typing_extensions import Buffer

BLOCK = 1 << 20  # bytes


class _Hashing(io.RawIOBase):
    """Bytes of a stream as they are read, and their SHA-256."""

    def __init__(self, stream: io.RawIOBase) -> None:
        self._stream = stream
        self._sha = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "Buffer") -> int:
        count = self._stream.readinto(buffer) or 0
        self._sha.update(memoryview(buffer)[:count])
        return count

    def digest_of_all(self) -> str:
        """Hex digest of the whole file: what nobody has read so far is read here."""
        while self.read(BLOCK):
            pass
        return self._sha.hexdigest()


@contextmanager
def reading(file: Path, expected: str) -> Iterator[io.BufferedReader]:
    """A file open for reading, which holds what hashes to `expected` (`harness.storage.cache.file_hash`).

    Raises UserError on leaving if it does not, also where the reader stopped before the end. Raises OSError.
    """
    with file.open("rb", buffering=0) as stream:
        hashing = _Hashing(stream)
        try:
            yield io.BufferedReader(hashing, BLOCK)
        except GeneratorExit:  # the reader is a generator, and whoever asked it has enough
            _check(file, hashing, expected)
            raise
        _check(file, hashing, expected)


def _check(file: Path, hashing: _Hashing, expected: str) -> None:
    if hashing.digest_of_all() != expected:
        raise UserError(f"{str(file)!r} changed after it was identified; start the run again.")
