"""dry_run=true: the cells of a sweep, which of them are finished, and what the others would cost. Loads no weights."""

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from harness.cells import cost
from harness.cells.beside import at_once, share_weights
from harness.cells.device import check_device
from harness.cells.documents import Documents
from harness.cells.passes import passes
from harness.cells.prepare import Prepared
from harness.engine.budget import CPU_CHUNK, CPU_TOKENS_PER_BATCH, GPU_TOKENS_PER_BATCH
from harness.engine.nll import LOGITS_PER_SLICE
from harness.engine.packed import LARGEST
from harness.models.checkpoint.shape import Shape, shape
from harness.models.checkpoint.spec import ModelSpec

CALIBRATION_S = 0.3
ROWS = 2048  # of the matrix product that is timed


class Estimate(NamedTuple):
    """What a cell would cost."""

    flops: float  # 0: it comes with the pass of a longer cell
    memory: int  # peak, bytes


def show(prepared: Sequence[Prepared]) -> None:
    """Print a line a cell and their sum."""
    todo = [p for p in prepared if not p.files.is_finished()]
    shapes = model_shapes(todo)
    estimates = estimate(todo, shapes)
    rate = _rate(todo[0], shapes[todo[0].cell.config.model].hidden) if todo else None
    width = max(len(p.files.label) for p in prepared)
    print(f"{'cell':{width}}  {'status':8}  {'FLOPs':>8}  {'memory':>9}  {'time':>8}")
    for p in prepared:
        print(f"{p.files.label:{width}}  {_line(estimates.get(p.cell.cell_id), rate)}".rstrip())
    total = sum(estimated.flops for estimated in estimates.values())
    count = f"{len(prepared)} cell" + "s" * (len(prepared) > 1)
    print(f"\n{count}: {len(prepared) - len(todo)} finished, {len(todo)} to compute", end="")
    print(f", {total:.1e} FLOPs" + _time(total, rate, prepared[0]) if todo else "")


def _line(estimated: Estimate | None, rate: float | None) -> str:
    if estimated is None:
        return "finished"
    if not estimated.flops:
        return f"{'to do':8}  comes with the pass of a longer cell"
    seconds = _duration(estimated.flops / rate) if rate else "-"
    return f"{'to do':8}  {estimated.flops:8.1e}  {estimated.memory / 2**30:5.2f} GiB  {seconds:>8}"


def _time(total: float, rate: float | None, one: Prepared) -> str:
    if rate is None:
        return "; times are known on the machine that computes, which is elsewhere"
    where = f"{one.placement.dtype} reaches on this {one.placement.device}"
    return (
        f", {_duration(total / rate)} at the {rate / 1e9:.3g} GFLOP/s that a matrix product in {where}: "
        "a lower bound, loading and small operations come on top"
    )


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def model_shapes(todo: Sequence[Prepared]) -> dict[ModelSpec, Shape]:
    """The shape of every model of these cells."""
    every = [one for p in todo for one in (p, p.base) if one is not None]
    return {spec: shape(p.header, p.placement.dtype) for spec, p in {p.cell.config.model: p for p in every}.items()}


def estimate(todo: Sequence[Prepared], shapes: Mapping[ModelSpec, Shape]) -> dict[str, Estimate]:
    """The costs of cells by their ids; a cell that comes with the pass of a longer one costs nothing."""
    documents = Documents()
    made: dict[str, Estimate] = {}
    for one in passes(todo):
        cell = one.longest.cell
        planned = documents.windows(one.longest)
        known, windows = shapes[cell.config.model], [w for windows in planned for w in windows]
        peak, flops = _memory(known, one.longest), cost.flops(known, windows)
        if one.longest.base is not None:
            other = shapes[one.longest.base.cell.config.model]
            peak, flops = peak + _beside(other, one.longest, one.longest.base), flops + cost.flops(other, windows)
        made |= {p.cell.cell_id: Estimate(0.0, peak) for p in one.cells}
        made[cell.cell_id] = Estimate(flops, peak)
    return made


class _Sizes(NamedTuple):
    """What a call of the engine would hold at once."""

    tokens: int
    logits: int
    chunk: int
    element_bytes: int
    copies: int  # of weights, bytes


def _sizes(known: Shape, prepared: Prepared) -> _Sizes:
    """The batch, the chunk and the packed copies of weights that the engine would take."""
    cell, where = prepared.cell, prepared.placement
    on_cpu = where.device == "cpu"
    batch = cell.config.engine.tokens_per_batch or (CPU_TOKENS_PER_BATCH if on_cpu else GPU_TOKENS_PER_BATCH)
    tokens = max(cell.ctx, batch // cell.ctx * cell.ctx)
    logits = min(LOGITS_PER_SLICE["cpu" if on_cpu else "cuda"], tokens * known.vocabulary)
    chunk = CPU_CHUNK if on_cpu else GPU_TOKENS_PER_BATCH // 2
    size = getattr(torch, where.dtype).itemsize
    copies = known.weight_bytes if on_cpu and size == 4 and known.weight_bytes <= LARGEST else 0
    return _Sizes(tokens, logits, chunk, size, copies)


def _memory(known: Shape, prepared: Prepared) -> int:
    s = _sizes(known, prepared)
    peak = cost.memory(known, tokens=s.tokens, chunk=s.chunk, logits=s.logits, element_bytes=s.element_bytes)
    return s.copies + peak


def _beside(known: Shape, own: Prepared, base: Prepared) -> int:
    """What the base adds: of weights none where they are shared, and its head alone where it ran before."""
    s = _sizes(known, base)
    weights = known.weight_bytes + s.copies
    if not at_once(own, base):
        weights = 2 * known.vocabulary * known.hidden * s.element_bytes
    return cost.memory_beside(
        known,
        weights=0 if share_weights(own, base) else weights,
        tokens=s.tokens,
        logits=s.logits,
        element_bytes=s.element_bytes,
    )


def _rate(one: Prepared, hidden: int) -> float | None:
    """FLOPs a second of a matrix product of the model's size on this device; None where cells run elsewhere."""
    config, where = one.cell.config, one.placement
    if config.cluster.name == "slurm":
        return None
    check_device(config.engine, config.cluster)
    dtype = getattr(torch, where.dtype)
    a = torch.ones(ROWS, hidden, device=where.device, dtype=dtype)
    b = torch.ones(hidden, 4 * hidden, device=where.device, dtype=dtype)
    count, started = 0, time.monotonic()
    while time.monotonic() - started < CALIBRATION_S:
        for _ in range(10):
            product = a @ b
        product[0, 0].item()  # waits for the device
        count += 10
    return count * 2 * ROWS * hidden * 4 * hidden / (time.monotonic() - started)
