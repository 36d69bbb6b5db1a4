"""Whether compiling decoder layers repays (engine.compile=auto): by a count of what a process has to compute.

What compiling saves is the writing and reading of states between kernels: on an H100 0.17 s of 32 768 tokens on 8B
shapes, whatever the length of a window, and 0.043 s on 1B shapes (benchmarks/engine_h100_2026-11-25.md): 40 picoseconds
for every number of the residual streams, tokens x layers x hidden. Compiling is reckoned at 15 seconds for every length
of windows, which their batches are compiled for (1 to 4 were measured with a warm cache on disk, none with a cold one).
On a CPU it saves less than times vary, and is never worth it.
"""

from collections import Counter
from collections.abc import Iterable

from harness.cells.documents import Documents
from harness.cells.passes import Pass
from harness.cells.prepare import Prepared
from harness.models.checkpoint.shape import Shape, shape

REPAYS = {"cuda": 4e11}  # numbers of the residual streams (15 s / 40 ps), by kind of device; never on others


def repays(shape: Shape, lengths: Counter[int], device: str) -> bool:
    """Whether so many windows of each length (tokens) save more than compiling for every one of the lengths costs.

    device: cpu | cuda | cuda:N.
    """
    least = REPAYS.get(device.partition(":")[0])
    if least is None:
        return False
    tokens = sum(length * count for length, count in lengths.items())
    return tokens * len(shape.attention_widths) * shape.hidden >= least * len(lengths)


def is_compiled(prepared: Prepared, coming: Iterable[Pass], documents: Documents) -> bool:
    """What engine.compile says for a cell; `auto`: whether it repays over the passes to come that share its weights."""
    config = prepared.cell.config
    if config.engine.compile != "auto":
        return config.engine.compile
    if config.model.device_map is not None or prepared.placement.device.partition(":")[0] not in REPAYS:
        return False
    lengths: Counter[int] = Counter()
    for one in coming:
        if any(not p.files.is_finished() for p in one.cells):
            planned = documents.windows(one.longest)
            lengths.update(w.end - w.begin + w.bos for windows in planned for w in windows)
    return bool(lengths) and repays(
        shape(prepared.header, prepared.placement.dtype), lengths, prepared.placement.device
    )
