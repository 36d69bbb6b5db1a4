"""The exact merge of attention over disjoint sets of keys.

softmax over all keys = sum over pieces of exp(lse_piece - lse) output_piece, lse = log sum exp lse_piece.
"""

from collections.abc import Sequence
from importlib.util import find_spec

import torch
from torch import Tensor

from harness.models.attention.fused import Piece

HAS_TRITON = find_spec("triton") is not None  # PyTorch brings it where it computes on GPUs, but for Windows


def merged(pieces: Sequence[Piece], sinks: Tensor | None = None) -> Tensor:
    """The output over the keys of all pieces, in the precision of the log-sum-exp (float32 or better).

    `sinks` (heads,) are logits without a value.
    """
    return joined(pieces, sinks)[0]


def joined(pieces: Sequence[Piece], sinks: Tensor | None = None, out: Tensor | None = None) -> Piece:
    """One piece over the keys of all: its output (batch, heads, queries, channels) as `merged`, and its log-sum-exp.

    With `out`, of any dtype, the output is written there as it is computed: its memory is written once.
    """
    if len(pieces) == 1 and sinks is None:
        output, lse = pieces[0]
        return output.to(lse.dtype) if out is None else out.copy_(output), lse
    if sinks is None and HAS_TRITON and pieces[0][1].device.type == "cuda" and pieces[0][1].dtype == torch.float32:
        from harness.models.attention.merge_kernel import merge  # triton is not everywhere

        return merge(pieces, out)
    return _joined(pieces, sinks, out)


def _joined(pieces: Sequence[Piece], sinks: Tensor | None, out: Tensor | None) -> Piece:
    lse = torch.stack([piece[1] for piece in pieces])
    total = torch.logsumexp(lse, dim=0)
    if sinks is not None:
        total = torch.logaddexp(total, sinks.to(total.dtype)[None, :, None])
    weights = torch.exp(lse - total)[..., None]
    whole = pieces[0][0] * weights[0]
    for number, ((output, _), weight) in enumerate(zip(pieces[1:], weights[1:], strict=True), start=2):
        last = number == len(pieces) and out is not None
        whole = torch.addcmul(whole, output, weight, out=out if last else whole)
    return whole if out is None or len(pieces) > 1 else out.copy_(whole), total
