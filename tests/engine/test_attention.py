"""Attention of a chunk equals masked attention over all keys."""

import torch

from harness.engine.attention import after_past


def test_attention_after_a_past_equals_masked_attention():
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, heads, n, 8, generator=generator) for heads, n in ((4, 5), (2, 13), (2, 13)))
    mask = torch.arange(13) <= torch.arange(8, 13)[:, None]
    wide = (x.double().repeat_interleave(2, dim=1) for x in (key, value))
    expected = torch.nn.functional.scaled_dot_product_attention(query.double(), *wide, attn_mask=mask)
    torch.testing.assert_close(after_past(query, key, value, None).double(), expected, atol=1e-6, rtol=0)
