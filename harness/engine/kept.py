"""A long window that was killed goes on at its layer: the residual stream is kept on disk behind a layer, now and then.

Layers run one at a time over the whole window, so that between two of them the stream is all there is. Losses of a
window that took long are kept until its cell is written, in place of its streams. Nothing here is a result: what is
torn or does not fit is passed over, and computed again.
"""

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from harness.engine.exchange import Ranks
from harness.engine.streams import Found, Segment, Streams
from harness.models.parts import CausalLM, LayerOutput, decoder_layers
from harness.storage.files import StorageError, write_atomically

log = logging.getLogger(__name__)
LEAST_TOKENS = {"cuda": 65536}  # of a call: shorter ones are over soon, and need not wait for the GPU after each layer
SHARE = 0.05  # of the time that writing may take
BYTES_PER_SECOND = 10**9  # of a disk, until it has been measured
FORMAT = 1
WHAT = "the stream of a long window"


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
        layers = len(decoder_layers(model))
        return Kept(self, content.hexdigest()[:24], list(segments), over, layers, ids.device)


@dataclass
class Kept:
    """The stream of one window behind some of its layers: found, put back, and kept again further on."""

    keep: Keep
    name: str  # of its files
    segments: list[Segment]
    over: Ranks | None
    layers: int
    device: torch.device
    found: Found = field(init=False)

    def __post_init__(self) -> None:
        self.streams = Streams(self.keep.folder, self.name)
        self.started = self.last = time.monotonic()
        self.write_s: float | None = None  # of the last time
        self.extras = 0  # what a layer returns beside its hidden states, in number; all None
        found = self.streams.furthest()
        self.found = Found(self._agreed(found.layers), self._agreed(found.ranks))
        if self.found.layers:
            log.info("a window goes on behind layer %d of %d", self.found.layers, self.layers)

    def run(
        self, number: int, forward: Callable[..., LayerOutput], hidden: Tensor, *args: object, **kwargs: object
    ) -> LayerOutput:
        """The output of layer `number`, hidden states (batch, own tokens, channels); computed if it must be."""
        if number < self.found.layers:
            if number == self.found.layers - 1:
                self.extras = self.streams.restore(self.found, hidden, self.segments)
            return (hidden, *cast("list[Tensor]", [None] * self.extras)) if self.extras else hidden
        out = forward(hidden, *args, **kwargs)
        states, *beside = (out,) if isinstance(out, Tensor) else out
        self.extras = len(beside)
        if number + 1 < self.layers and all(x is None for x in beside) and self.is_due(number + 1, states):
            self.write(number + 1, states)
        return out

    def is_due(self, layers: int, states: Tensor) -> bool:
        """Whether to keep the stream (batch, own tokens, channels) behind so many layers.

        By the time since the last, and by what writing it costs.
        """
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        write_s = states.nbytes / BYTES_PER_SECOND if self.write_s is None else self.write_s
        return bool(self._agreed(time.monotonic() - self.last >= max(self.keep.every, write_s / SHARE)))

    def write(self, layers: int, hidden: Tensor) -> None:
        """Keep the stream (batch, own tokens, channels) behind so many layers, in place of an earlier one."""
        begun = time.monotonic()
        now = Found(layers, 1 if self.over is None else self.over.size)
        is_written = True
        try:
            self.streams.write(now, self._rank, hidden, self.segments, self.extras, WHAT)
        except StorageError as error:
            log.warning("%s", error)
            is_written = False
        if all(self._gathered(is_written)) and self._rank == 0:
            self.streams.remove(but=now)
        self.last = time.monotonic()
        self.write_s = self.last - begun
        log.info("kept a window behind layer %d of %d in %.1f s", layers, self.layers, self.write_s)

    def losses(self, score_from: int) -> Tensor | None:
        """Those of the window, (batch, scored), where it was finished before."""
        file = self._losses_file(score_from)
        return torch.from_numpy(np.load(file)).to(self.device) if self._agreed(file.exists()) else None

    def finish(self, score_from: int, losses: Tensor) -> None:
        """Remove the streams; where computing took long keep the losses, (batch, scored)."""
        took_long = self.found.layers > 0 or self.write_s is not None or self.is_due(self.layers, losses)
        if self._rank == 0 and took_long:
            values = losses.float().cpu().numpy()
            try:
                write_atomically(self._losses_file(score_from), lambda stream: np.save(stream, values), what=WHAT)
            except StorageError as error:
                log.warning("%s", error)
        if self._rank == 0:
            self.streams.remove()

    @property
    def _rank(self) -> int:
        return 0 if self.over is None else self.over.rank

    def _gathered(self, number: int) -> list[int]:
        if self.over is None:
            return [number]
        return [int(x) for x in self.over.gathered(torch.tensor([int(number)], device=self.device))]

    def _agreed(self, number: int) -> int:
        """As rank 0 sees it: all must do the same."""
        return self._gathered(number)[0]

    def _losses_file(self, score_from: int) -> Path:
        return self.keep.folder / f"{self.name}.from-{score_from}.losses.npy"
