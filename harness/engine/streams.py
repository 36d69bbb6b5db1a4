"""The residual stream of a window on disk: a file a rank of the tokens that it holds, read by any number of ranks.

A file says in its first line what it holds; behind it stand the states of its segments, (batch, tokens, channels) each.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from harness.storage.files import write_atomically

COPIED = 65536  # tokens on their way between a device and a file

Segment = tuple[int, int]  # first token of the window, number of tokens


class Found(NamedTuple):
    """The streams that some number of ranks kept behind so many layers."""

    layers: int
    ranks: int


@dataclass(frozen=True)
class Streams:
    """The files of one window."""

    folder: Path
    name: str

    def write(
        self, found: Found, rank: int, hidden: Tensor, segments: Sequence[Segment], extras: int, what: str
    ) -> None:
        """Write a rank's part, hidden (batch, own tokens, channels). Raises StorageError, which says `what`."""
        write_atomically(self._file(found, rank), lambda stream: _fill(stream, hidden, segments, extras), what=what)

    def furthest(self) -> Found:
        """The furthest that all of some number of ranks have kept; behind no layer where there is none."""
        whole = [found for found, ranks in self._there().items() if self._is_whole(found, ranks)]
        return max(whole, default=Found(0, 1))

    def restore(self, found: Found, hidden: Tensor, segments: Sequence[Segment]) -> int:
        """Put what was kept of `segments` into `hidden` (batch, own tokens, channels); returns `extras`."""
        extras = 0
        for rank in range(found.ranks):
            part = _Part.of(self._file(found, rank))
            assert part is not None, "streams were whole when the window began"
            extras = int(part.head["extras"])
            for place, (begin, tokens) in _pieces(segments):
                for first, states in part.read(begin, tokens):
                    at = place + first - begin
                    hidden[:, at : at + states.shape[1]] = states.to(hidden.device)
        return extras

    def remove(self, but: Found | None = None) -> None:
        """Remove all streams of the window, or all others."""
        for found, ranks in self._there().items():
            for rank in ranks if found != but else ():
                self._file(found, rank).unlink(missing_ok=True)

    def _file(self, found: Found, rank: int) -> Path:
        return self.folder / f"{self.name}.layer-{found.layers}.{rank}-of-{found.ranks}.stream"

    def _there(self) -> dict[Found, set[int]]:
        """The ranks whose files are there."""
        there: dict[Found, set[int]] = {}
        for file in self.folder.glob(f"{self.name}.layer-*.stream"):
            if named := re.fullmatch(r".*\.layer-(\d+)\.(\d+)-of-(\d+)\.stream", file.name):
                layers, rank, ranks = map(int, named.groups())
                there.setdefault(Found(layers, ranks), set()).add(rank)
        return there

    def _is_whole(self, found: Found, ranks: set[int]) -> bool:
        return len(ranks) == found.ranks and all(_Part.of(self._file(found, rank)) for rank in ranks)


def _fill(stream: IO[bytes], hidden: Tensor, segments: Sequence[Segment], extras: int) -> None:
    pieces = list(_pieces(segments))
    rows, _, channels = hidden.shape
    head = {"rows": rows, "channels": channels, "dtype": str(hidden.dtype).removeprefix("torch.")}
    head |= {"extras": extras, "segments": [segment for _, segment in pieces]}
    stream.write(json.dumps(head).encode() + b"\n")
    for place, (_, tokens) in pieces:
        part = hidden[:, place : place + tokens].contiguous().cpu()
        stream.write(part.view(torch.uint8).numpy().data)


@dataclass(frozen=True)
class _Part:
    """A file of one rank."""

    file: Path
    head: dict[str, Any]
    begin: int  # of its numbers, bytes

    @classmethod
    def of(cls, file: Path) -> "_Part | None":
        """None where it is torn."""
        try:
            with file.open("rb") as stream:
                line = stream.readline()
            part = cls(file, json.loads(line), len(line))
            tokens = sum(tokens for _, tokens in part.head["segments"])
            return part if file.stat().st_size == part.begin + tokens * part._token else None
        except (OSError, ValueError, KeyError):
            return None

    @property
    def _dtype(self) -> torch.dtype:
        dtype = getattr(torch, self.head["dtype"])
        assert isinstance(dtype, torch.dtype)
        return dtype

    @property
    def _token(self) -> int:
        return int(self.head["rows"] * self.head["channels"] * self._dtype.itemsize)

    def read(self, begin: int, tokens: int) -> Iterator[tuple[int, Tensor]]:
        """What it holds of these tokens: the first of a run of them, and states (batch, run, channels)."""
        at = self.begin
        for own, number in self.head["segments"]:
            first, last = max(begin, own), min(begin + tokens, own + number)
            if first < last:
                shape = (self.head["rows"], number, self.head["channels"] * self._dtype.itemsize)
                held = np.memmap(self.file, dtype=np.uint8, mode="r", offset=at, shape=shape)
                states = torch.from_numpy(np.array(held[:, first - own : last - own]))
                yield first, states.view(self._dtype)
            at += number * self._token


def _pieces(segments: Sequence[Segment]) -> Iterator[tuple[int, Segment]]:
    """Segments cut small, each with its place among the tokens that a rank holds."""
    place = 0
    for begin, tokens in segments:
        for cut in range(0, tokens, COPIED):
            number = min(COPIED, tokens - cut)
            yield place + cut, (begin + cut, number)
        place += tokens
