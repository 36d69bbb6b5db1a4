"""Attention of a chunk equals masked attention over all keys."""

import pytest
import torch

from harness.engine.attention import after_past, windowed


def test_attention_after_a_past_equals_masked_attention():
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, heads, n, 8, generator=generator) for heads, n in ((4, 5), (2, 13), (2, 13)))
    mask = torch.arange(13) <= torch.arange(8, 13)[:, None]
    wide = (x.double().repeat_interleave(2, dim=1) for x in (key, value))
    expected = torch.nn.functional.scaled_dot_product_attention(query.double(), *wide, attn_mask=mask)
    torch.testing.assert_close(after_past(query, key, value, None).double(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("value_channels", [8, 5, 12])
@pytest.mark.parametrize("with_sinks", [False, True])
@pytest.mark.parametrize(("window", "softcap"), [(None, None), (4, None), (4, 0.7), (None, 0.7)])
@pytest.mark.parametrize("past", [0, 9])
def test_sinks_windows_caps_and_values_of_another_width(past, window, softcap, with_sinks, value_channels):
    """Against one softmax over a whole row, in float64."""
    generator = torch.Generator().manual_seed(0)
    length, heads = 7, 4
    query = torch.randn(2, heads, length, 8, generator=generator)
    key = torch.randn(2, 2, past + length, 8, generator=generator)
    value = torch.randn(2, 2, past + length, value_channels, generator=generator)
    sinks = torch.randn(heads, generator=generator) if with_sinks else None
    rows, keys = torch.arange(past, past + length)[:, None], torch.arange(past + length)
    first = torch.zeros_like(rows) if window is None else (rows - window + 1).clamp(min=0)
    scores = query.double() @ key.double().repeat_interleave(2, 1).transpose(-1, -2) * 0.3
    scores = scores if softcap is None else softcap * (scores / softcap).tanh()
    scores = scores.masked_fill((keys > rows) | (keys < first), -torch.inf)
    extra = torch.full((2, heads, length, 1), -torch.inf).double()
    if with_sinks:
        extra = sinks.double()[None, :, None, None].expand_as(extra)
    weights = torch.cat((scores, extra), -1).softmax(-1)[..., :-1]
    expected = weights @ value.double().repeat_interleave(2, 1)
    if window is None and softcap is None:
        found = after_past(query, key, value, 0.3, sinks)
    else:
        found = windowed(query, key, value, first.view(1, 1, -1, 1), 0.3, sinks, softcap)
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=0)
