"""A long window that was killed goes on at its layer: the residual stream is kept on disk behind a layer, now and then.

Layers run one at a time over the whole window, so that between two of them the stream is all there is. Every rank keeps
the tokens that it holds in a file of its own; a later run reads what it needs of all of them, whatever number of ranks
wrote and reads. A file says in its first line what it holds. Losses of a finished window are kept until its cell is
written, in place of its streams. Nothing here is a result: what does not fit is passed over and computed again.
"""

import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from harness.engine.exchange import Ranks
from harness.models.parts import CausalLM, LayerOutput, decoder_layers
from harness.storage.files import StorageError, write_atomically

log = logging.getLogger(__name__)
LEAST_TOKENS = {"cuda": 65536}  # of a call: shorter ones are over soon, and need not wait for the GPU after each layer
SHARE = 0.05  # of the time that writing may take
BYTES_PER_SECOND = 10**9  # of a disk, until it has been measured
COPIED = 65536  # tokens on their way between a device and a file
FORMAT = 1

Segment = tuple[int, int]  # first token of the window, number of tokens


@dataclass(frozen=True)
class Keep:
    """Where windows of one cell are kept, and how often."""

    folder: Path
    every: float  # seconds, at least
    cell: str  # what determines the numbers besides the tokens

    def window(
        self, model: CausalLM, ids: Tensor, sets: Tensor | None, segments: Sequence[Segment], over: Ranks | None
    ) -> "Kept | None":
        """What is kept of a call with `ids` (batch, length), of which this rank holds `segments`; None: too short.

        sets: (batch,), the frequencies of each row where several are installed. All ranks call it.
        """
        if ids.numel() < LEAST_TOKENS.get(ids.device.type, 0):
            return None
        facts = [FORMAT, self.cell, type(model).__name__, str(model.dtype), list(ids.shape)]
        content = sha256(json.dumps(facts).encode())
        for tensor in (ids, sets):
            content.update(b"" if tensor is None else tensor.cpu().numpy().tobytes())
        number = len(decoder_layers(model))
        return Kept(self, content.hexdigest()[:24], list(segments), over, number, ids.device)


class _Found(NamedTuple):
    """The streams that some number of ranks kept behind a layer."""

    layers: int
    ranks: int


@dataclass
class Kept:
    """The stream of one window behind some of its layers: found, put back, and kept again further on."""

    keep: Keep
    name: str  # of its files
    segments: list[Segment]
    over: Ranks | None
    layers: int
    device: torch.device
    found: _Found = field(init=False)
    extras: int = 0  # what a layer returns beside its hidden states, in number; all None

    def __post_init__(self) -> None:
        self.started = self.last = time.monotonic()
        self.write_s: float | None = None
        self.found = self._agreed_streams()
        if self.found.layers:
            log.info("a window goes on behind layer %d of %d", self.found.layers, self.layers)

    # --- while the window runs

    def run(self, number: int, forward: Callable[..., LayerOutput], hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The output of layer `number`, hidden states (batch, own tokens, channels); computed if it must be."""
        if number < self.found.layers:
            if number == self.found.layers - 1:
                self._restore(hidden)
            return (hidden, *[None] * self.extras) if self.extras else hidden
        out = forward(hidden, *args, **kwargs)
        beside = () if isinstance(out, Tensor) else out[1:]
        self.extras = len(beside)
        if number + 1 < self.layers and all(x is None for x in beside) and self.is_due(number + 1):
            self.write(number + 1, out if isinstance(out, Tensor) else out[0])
        return out

    def is_due(self, layers: int) -> bool:
        """Whether to keep the stream behind so many layers: by the time since the last, and what writing costs."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        wait = max(self.keep.every, (self.write_s or 0) / SHARE)
        return self._agreed(time.monotonic() - self.last >= wait)

    def write(self, layers: int, hidden: Tensor) -> None:
        """Keep the stream (batch, own tokens, channels) behind so many layers, in place of an earlier one."""
        begun = time.monotonic()
        file = self._file(layers, self._rank, self._ranks)
        try:
            write_atomically(file, lambda stream: self._fill(stream, hidden))
            written = True
        except StorageError as error:
            log.warning("a long window is not kept: %s", error)
            written = False
        everyone = [written] if self.over is None else self._gathered(int(written))
        if all(everyone) and self._rank == 0:
            self._remove(but=_Found(layers, self._ranks))
        self.last = time.monotonic()
        self.write_s = self.last - begun
        log.info("kept a window behind layer %d of %d in %.1f s", layers, self.layers, self.write_s)

    # --- its end

    def losses(self, score_from: int) -> Tensor | None:
        """Those of the window (batch, scored), where it was finished before."""
        file = self._losses_file(score_from)
        if not self._agreed(file.exists()):
            return None
        return torch.from_numpy(np.load(file)).to(self.device)

    def finish(self, score_from: int, losses: Tensor) -> None:
        """Remove the streams; where computing took long keep the losses (batch, scored)."""
        took_long = bool(self.found.layers) or self.is_due(self.layers) or self.write_s is not None
        if self._rank == 0:
            if took_long:
                values = losses.float().cpu().numpy()
                write_atomically(self._losses_file(score_from), lambda stream: np.save(stream, values))
            self._remove()

    # --- files

    @property
    def _rank(self) -> int:
        return 0 if self.over is None else self.over.rank

    @property
    def _ranks(self) -> int:
        return 1 if self.over is None else self.over.size

    def _gathered(self, number: int) -> list[int]:
        assert self.over is not None
        return [int(x) for x in self.over.gathered(torch.tensor([number], device=self.device))]

    def _agreed(self, value: bool) -> bool:
        return value if self.over is None else bool(self._gathered(int(value))[0])

    def _file(self, layers: int, rank: int, ranks: int) -> Path:
        return self.keep.folder / f"{self.name}.layer-{layers}.{rank}-of-{ranks}.stream"

    def _losses_file(self, score_from: int) -> Path:
        return self.keep.folder / f"{self.name}.from-{score_from}.losses.npy"

    def _streams(self) -> dict[_Found, set[int]]:
        """The ranks whose streams are there."""
        there: dict[_Found, set[int]] = {}
        for file in self.keep.folder.glob(f"{self.name}.layer-*.stream"):
            if named := re.fullmatch(r".*\.layer-(\d+)\.(\d+)-of-(\d+)\.stream", file.name):
                layers, rank, ranks = map(int, named.groups())
                there.setdefault(_Found(layers, ranks), set()).add(rank)
        return there

    def _agreed_streams(self) -> _Found:
        """The furthest that all of some number of ranks have kept, as rank 0 sees it; behind layer 0 where none is."""
        whole = [found for found, ranks in self._streams().items() if self._is_whole(found, ranks)]
        best = max(whole, default=_Found(0, 1))
        if self.over is None:
            return best
        return _Found(self._gathered(best.layers)[0], self._gathered(best.ranks)[0])

    def _is_whole(self, found: _Found, ranks: set[int]) -> bool:
        files = [self._file(found.layers, rank, found.ranks) for rank in range(found.ranks)]
        return len(ranks) == found.ranks and all(_Part.of(file) is not None for file in files)

    def _remove(self, but: _Found | None = None) -> None:
        for found, ranks in self._streams().items():
            for rank in ranks if found != but else ():
                self._file(found.layers, rank, found.ranks).unlink(missing_ok=True)

    def _fill(self, stream: IO[bytes], hidden: Tensor) -> None:
        pieces = list(_pieces(self.segments))
        rows, _, channels = hidden.shape
        head = {"rows": rows, "channels": channels, "dtype": str(hidden.dtype).removeprefix("torch.")}
        head |= {"extras": self.extras, "segments": [piece[1] for piece in pieces]}
        stream.write(json.dumps(head).encode() + b"\n")
        for place, (_, tokens) in pieces:
            part = hidden[:, place : place + tokens].contiguous().cpu()
            stream.write(part.view(torch.uint8).numpy().data)

    def _restore(self, hidden: Tensor) -> None:
        """Put the stream that was found into `hidden` (batch, own tokens, channels)."""
        for rank in range(self.found.ranks):
            part = _Part.of(self._file(self.found.layers, rank, self.found.ranks))
            assert part is not None, "streams were whole when the window began"
            self.extras = part.head["extras"]
            for place, (begin, tokens) in _pieces(self.segments):
                for first, states in part.read(begin, tokens):
                    at = place + first - begin
                    hidden[:, at : at + states.shape[1]] = states.to(hidden.device)


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
