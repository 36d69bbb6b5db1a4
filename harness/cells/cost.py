"""What a cell costs, from the shape of its model and the lengths of its windows: FLOPs and peak memory. Pure.

A multiplication with its addition counts as two FLOPs. For one window of L tokens of which n are scored:
  2 x matrix parameters x L                            every token through every matrix (experts: those it is sent to)
  sum of layers, heads x (key + value dimension) x L^2 causal attention: L^2 / 2 pairs, two products
  2 x hidden x vocabulary x n                          logits of scored positions only
Layers with an attention window of w < L tokens have L w - w^2 / 2 pairs. Norms, rotations and softmax are left out
(below one per cent at any size that matters), and so is what attention-changing methods add. The last layer is counted
whole, though the engine runs most of it for scored positions only.
"""

from collections.abc import Iterable

from harness.data.windows import Window
from harness.models.checkpoint.shape import Shape


def flops(shape: Shape, windows: Iterable[Window]) -> float:
    """FLOPs of the forward passes over these windows."""
    return sum(_window_flops(shape, w.end - w.begin + w.bos, w.num_scored) for w in windows)


def _window_flops(shape: Shape, length: int, num_scored: int) -> float:
    layers = zip(shape.attention_widths, shape.attention_windows, strict=True)
    attention = 2 * sum(width * _pairs(length, window) for width, window in layers)
    return 2 * shape.matrix_parameters * length + attention + 2 * shape.hidden * shape.vocabulary * num_scored


def _pairs(length: int, window: int | None) -> float:
    """Pairs of a query and a key it sees, in one layer."""
    w = length if window is None else min(window, length)
    return length * w - w * w / 2


def memory(shape: Shape, *, tokens: int, chunk: int, logits: int, element_bytes: int) -> int:
    """Peak bytes: weights, residual streams and keys of `tokens`, the inside of a layer for `chunk`, `logits` numbers.

    Logits exist in the model's precision, in float32 and once more inside the softmax.
    """
    staying = tokens * element_bytes * 4 * shape.hidden
    passing = min(tokens, chunk) * element_bytes * (6 * shape.hidden + 3 * shape.inner)
    return shape.weight_bytes + staying + passing + logits * (element_bytes + 8)


def memory_beside(base: Shape, *, weights: int, tokens: int, logits: int, element_bytes: int) -> int:
    """Peak bytes that a base adds: its `weights`, final states of `tokens`, `logits` in its precision and float32."""
    return weights + tokens * element_bytes * base.hidden + logits * (element_bytes + 4)
