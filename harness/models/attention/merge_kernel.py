"""The exact merge in one pass over memory: every piece is read once and the output written once.

Cost of P pieces of n numbers in half precision: 2 (P + 1) n bytes, where PyTorch's operations one after the other,
which keep a float32 sum, take 8 to 10 n for each.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from harness.models.attention.fused import Piece

ROWS = 32  # queries of one program


def merge(pieces: Sequence[Piece], out: Tensor | None = None) -> Piece:
    """As `harness.models.attention.merging.joined` without sinks, of float32 log-sum-exps on a GPU.

    Returns the output (batch, heads, queries, channels), `out` or new and float32, and its log-sum-exp.
    """
    batch, heads, queries, channels = pieces[0][0].shape
    outputs = [output if output.stride(-1) == 1 else output.contiguous() for output, _ in pieces]
    sums = [lse for _, lse in pieces]
    total = torch.empty((batch, heads, queries), dtype=torch.float32, device=outputs[0].device)
    whole = outputs[0].new_empty(outputs[0].shape, dtype=torch.float32) if out is None else out
    grid = (triton.cdiv(queries, ROWS), batch * heads)
    with torch.cuda.device_of(whole):  # of several GPUs
        _merge[grid](
            tuple(outputs),
            tuple(step for output in outputs for step in output.stride()),
            tuple(sums),
            tuple(step for lse in sums for step in lse.stride()),
            whole,
            *whole.stride(),
            total,
            heads,
            queries,
            channels,
            PIECES=len(pieces),
            ROWS=ROWS,
            WIDTH=triton.next_power_of_2(channels),
        )
    return whole, total


@triton.jit
def _merge(  # type: ignore[no-untyped-def]
    outputs, output_steps, sums, sum_steps, whole, step_b, step_h, step_q, step_c, total, heads, queries, channels,
    PIECES: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1).to(tl.int64)
    b, h = head // heads, head % heads
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    inside = row < queries
    filled = inside[:, None] & (column < channels)[None, :]
    largest = tl.full((ROWS,), float("-inf"), tl.float32)
    for i in tl.static_range(PIECES):
        place = b * sum_steps[3 * i] + h * sum_steps[3 * i + 1] + row * sum_steps[3 * i + 2]
        largest = tl.maximum(largest, tl.load(sums[i] + place, mask=inside, other=float("-inf")))
    weights = tl.zeros((ROWS,), tl.float32)
    value = tl.zeros((ROWS, WIDTH), tl.float32)
    for i in tl.static_range(PIECES):
        place = b * sum_steps[3 * i] + h * sum_steps[3 * i + 1] + row * sum_steps[3 * i + 2]
        weight = tl.exp(tl.load(sums[i] + place, mask=inside, other=0.0) - largest)
        rows = b * output_steps[4 * i] + h * output_steps[4 * i + 1] + row * output_steps[4 * i + 2]
        piece = tl.load(outputs[i] + rows[:, None] + column[None, :], mask=filled, other=0.0)
        value += weight[:, None] * piece.to(tl.float32)
        weights += weight
    value = value / weights[:, None]
    places = (b * step_b + h * step_h + row * step_q)[:, None] + (column * step_c)[None, :]
    tl.store(whole + places, value.to(whole.dtype.element_ty), mask=filled)
    tl.store(total + head * queries + row, largest + tl.log(weights), mask=inside)
