"""Attention over disjoint sets of keys, merged, against one softmax over all of them in float64."""

import math

import pytest
import torch

from harness.models.attention.merging import joined, merged


def pieces_of(shares, dtype, channels=16, device="cpu"):
    """Pieces over `shares` keys each, and what they merge to: output and log-sum-exp in float64, of random states."""
    generator = torch.Generator().manual_seed(sum(shares) + channels)
    query, key, value = (
        torch.randn(2, 3, tokens, channels, generator=generator, dtype=torch.float64)
        for tokens in (37, sum(shares), sum(shares))
    )
    scores = query @ key.transpose(-1, -2) / math.sqrt(channels)
    scores[:, :, :5, : shares[0]] = -torch.inf  # rows that see nothing of the first piece
    pieces, begin = [], 0
    for share in shares:
        own = scores[..., begin : begin + share]
        output = torch.softmax(own, dim=-1).nan_to_num(0) @ value[:, :, begin : begin + share]
        lse = torch.logsumexp(own, dim=-1)
        pieces.append((output.to(device, dtype), lse.to(device, torch.promote_types(dtype, torch.float32))))
        begin += share
    return pieces, (torch.softmax(scores, dim=-1) @ value, torch.logsumexp(scores, dim=-1))


@pytest.mark.parametrize("shares", [(1, 40), (7, 1, 30), (4, 4, 4, 4)])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-6), (torch.bfloat16, 2e-2)]
)
def test_merged_pieces_are_one_softmax(shares, dtype, tolerance):
    pieces, (output, lse) = pieces_of(shares, dtype)
    found = joined(pieces)
    torch.testing.assert_close(found[0].double(), output, rtol=0, atol=tolerance)
    torch.testing.assert_close(found[1].double(), lse, rtol=0, atol=min(tolerance, 1e-5))
    assert merged(pieces).dtype == pieces[0][1].dtype, "in the precision of the log-sum-exp"
    out = torch.zeros(2, 37, 3, 16, dtype=dtype).transpose(1, 2)
    joined(pieces, out=out)
    torch.testing.assert_close(out.double(), output, rtol=0, atol=tolerance)


def test_one_piece_is_itself():
    ((output, lse),), _ = pieces_of((5,), torch.bfloat16)
    found = joined([(output[:, :, 5:], lse[:, :, 5:])])
    assert torch.equal(found[0], output[:, :, 5:].float())
    assert torch.equal(found[1], lse[:, :, 5:])
    out = torch.zeros_like(output)
    assert joined([(output, lse)], out=out)[0] is out
    assert torch.equal(out, output)


def test_a_sink_is_a_logit_without_a_value():
    pieces, (output, lse) = pieces_of((6, 9), torch.float64)
    sinks = torch.tensor([0.5, -1.0, 3.0], dtype=torch.float64)
    rest = 1 / (1 + torch.exp(sinks[None, :, None] - lse))
    torch.testing.assert_close(merged(pieces, sinks), output * rest[..., None], rtol=0, atol=1e-13)
    alone = merged(pieces[1:], sinks)
    rest = 1 / (1 + torch.exp(sinks[None, :, None] - pieces[1][1]))
    torch.testing.assert_close(alone, pieces[1][0] * rest[..., None], rtol=0, atol=1e-13)


@pytest.mark.gpu
@pytest.mark.parametrize("shares", [(1, 40), (7, 1, 30), (4, 4, 4, 4)])
@pytest.mark.parametrize("channels", [16, 80, 128])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 2e-2)])
def test_the_kernel_merges_as_the_definition(shares, channels, dtype, tolerance):
    from harness.models.attention.merge_kernel import merge  # where there is a GPU, there is triton

    pieces, (output, lse) = pieces_of(shares, dtype, channels, "cuda")
    pieces[0] = (pieces[0][0].transpose(1, 2).contiguous().transpose(1, 2), pieces[0][1])  # in other steps
    pieces[1] = (pieces[1][0].to(torch.float32), pieces[1][1])  # what was merged before
    found = merge(pieces)
    assert found[0].dtype == torch.float32
    held = torch.full((2, 40, 3, channels), 7.0, dtype=dtype, device="cuda")
    out = held[:, 1:38].transpose(1, 2)
    merge(pieces, out)
    for own in (found[0], out):
        torch.testing.assert_close(own.double().cpu(), output, rtol=0, atol=tolerance)
    torch.testing.assert_close(found[1].double().cpu(), lse, rtol=0, atol=1e-5)
    assert (held[:, [0, 38, 39]] == 7).all(), "nothing else is written"
