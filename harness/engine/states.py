"""Final hidden states of a base on disk: a file a window, found again by its tokens.

A file says in its first line what it holds; behind it stand the states before the scored tokens, (tokens, hidden), and
their checksum. They are written piece by piece and read where they lie, without a copy of the whole. None is a result:
what is torn, or of another base, is named and computed again.
"""

import json
import logging
import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.storage.files import write_atomically

log = logging.getLogger(__name__)
WHAT = "the final hidden states of the base"
PIECE = 2**24  # bytes on their way from a device to a file
ALIGNED = 64  # bytes of which the first line is a multiple, so that states lie in memory as torch wants them
CHECK = 4  # bytes of the checksum


@dataclass(frozen=True)
class States:
    """The states of one base on its windows."""

    folder: Path
    base: str  # what determines them besides the tokens: the cell_id of the base
    dtype: torch.dtype

    def holds(self, row: NDArray[np.int64], score_from: int) -> bool:
        """Whether the states before the tokens from `score_from` on of a window, row (length,), are there and whole.

        Reads them; what is there and of no use is removed.
        """
        file = self._file(row)
        if not file.exists():
            return False
        try:
            self._read(row, score_from)
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s is unusable (%s); its window is computed again", file, str(error).split("\n")[0])
            file.unlink(missing_ok=True)
            return False
        return True

    def write(self, row: NDArray[np.int64], score_from: int, states: Tensor) -> None:
        """Keep the states (length - score_from, hidden) of a window. Raises StorageError."""
        head = self._facts | {"from": score_from, "shape": list(states.shape)}
        text = json.dumps(head).encode()
        rows = max(1, PIECE // (states.shape[1] * states.element_size()))

        def fill(stream: IO[bytes]) -> None:
            stream.write(text.ljust(-(-(len(text) + 1) // ALIGNED) * ALIGNED - 1) + b"\n")
            check = 0
            for piece in states.split(rows):  # a second copy of them all would cost seconds
                content = piece.contiguous().cpu().view(torch.uint8).numpy().data
                check = crc32(content, check)
                stream.write(content)
            stream.write(check.to_bytes(CHECK, "little"))

        write_atomically(self._file(row), fill, sync=False, what=WHAT)

    def read(self, ids: Tensor, score_from: int) -> Tensor:
        """The states (batch, length - score_from, hidden) of windows, ids (batch, length), in the memory of the CPU.

        Those before what a window scores itself are 0.
        """
        rows = ids.cpu().numpy()
        parts = [self._read(row, None) for row in rows]
        if len(parts) == 1 and len(parts[0]) == rows.shape[1] - score_from:
            return parts[0][None]
        made = torch.zeros(len(rows), rows.shape[1] - score_from, parts[0].shape[1], dtype=self.dtype)
        for place, part in zip(made, parts, strict=True):
            place[max(0, len(place) - len(part)) :] = part[-len(place) :]
        return made

    @property
    def _facts(self) -> dict[str, object]:
        return {"base": self.base, "dtype": str(self.dtype)}

    def _file(self, row: NDArray[np.int64]) -> Path:
        return self.folder / f"{sha256(np.ascontiguousarray(row).tobytes()).hexdigest()[:24]}.states"

    def _read(self, row: NDArray[np.int64], score_from: int | None) -> Tensor:
        """(tokens, hidden); ValueError for what is torn, of another base, or begins too late."""
        with self._file(row).open("rb") as stream:
            head = json.loads(stream.readline())
            for name, value in self._facts.items():
                if head[name] != value:
                    raise ValueError(f"it is of {name} {head[name]}, not {value}")
            if score_from is not None and head["from"] > score_from:
                raise ValueError("it begins behind the first scored token")
            begin = stream.tell()
            stream.seek(-CHECK, os.SEEK_END)
            end, check = stream.tell(), int.from_bytes(stream.read(), "little")
        tokens, hidden = head["shape"]
        if end - begin != tokens * hidden * self.dtype.itemsize:
            raise ValueError("it is torn")
        content = np.memmap(self._file(row), np.uint8, mode="c", offset=begin, shape=(end - begin,))
        if crc32(content.data) != check:
            raise ValueError("it is torn")
        return torch.from_numpy(content).view(self.dtype).view(tokens, hidden)
