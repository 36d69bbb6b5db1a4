"""A packed file as the bytes that were packed, all of them or an error."""

import bz2
import gzip
import io
import lzma
from collections.abc import Callable
from typing import IO, TYPE_CHECKING

from harness.data.local import Packing
from harness.storage import hashed

if TYPE_CHECKING:
    from typing_extensions import Buffer


def unpacked(stream: io.BufferedReader, packing: Packing | None) -> IO[bytes]:
    """What a file holds, also one of several packed parts. Reading raises where anything else follows them."""
    if packing == "gz":
        return io.BufferedReader(gzip.GzipFile(fileobj=stream))
    if packing == "bz2":
        return io.BufferedReader(_Unpacking(stream, bz2.BZ2Decompressor))
    if packing == "xz":
        return io.BufferedReader(_Unpacking(stream, lzma.LZMADecompressor))
    if packing == "zst":
        import pyarrow as pa

        return io.BufferedReader(pa.CompressedInputStream(stream, "zstd"))
    return stream


class _Unpacking(io.RawIOBase):
    """Packed parts behind each other; Python's own files of these types leave out a part whose begin is damaged."""

    def __init__(
        self,
        stream: io.BufferedReader,
        begin: "Callable[[], bz2.BZ2Decompressor] | Callable[[], lzma.LZMADecompressor]",
    ) -> None:
        self._stream, self._begin = stream, begin
        self._part = begin()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "Buffer") -> int:
        room = memoryview(buffer)
        while (block := self._next_block()) is not None:
            if found := self._part.decompress(block, len(room)):
                room[: len(found)] = found
                return len(found)
        return 0

    def _next_block(self) -> bytes | None:
        """What is to be unpacked next; None at the end."""
        if self._part.eof:
            block = self._part.unused_data or self._stream.read(hashed.BLOCK)
            self._part = self._begin() if block else self._part
            return block or None
        if not self._part.needs_input:
            return b""
        if block := self._stream.read(hashed.BLOCK):
            return block
        raise EOFError("Compressed file ended before the end-of-stream marker was reached")
