"""Layers one at a time, in every chunking, equal the model's own forward."""

import pytest
import torch
from accelerate import dispatch_model

from harness.engine.layered import chunked
from harness.engine.nll import token_nll
from tests.engine.small import PLACES, tokens


@pytest.mark.parametrize("chunk", [1, 7, 16, 50, 51, 200])
def test_every_chunking_equals_the_whole(model, chunk):
    ids = tokens(2, 51)
    whole = token_nll(model, ids, 1, sliced=False)
    with chunked(model, chunk):
        torch.testing.assert_close(token_nll(model, ids, 1), whole, atol=1e-5, rtol=0)
    assert torch.equal(token_nll(model, ids, 1, sliced=False), whole)  # the model is as it was


@pytest.mark.parametrize("chunk", [7, 51])
@pytest.mark.parametrize("first", [1, 7, 30, 49])
def test_the_last_layer_may_run_for_scored_positions_only(model, chunk, first):
    ids = tokens(2, 51)
    whole = token_nll(model, ids, 1, sliced=False)[:, first:]
    with chunked(model, chunk, first):
        torch.testing.assert_close(token_nll(model, ids, first + 1), whole, atol=1e-5, rtol=0)


@pytest.mark.gpu
def test_modes_agree_in_bfloat16_on_a_gpu(model):
    model = model.to("cuda", torch.bfloat16)
    ids = tokens(2, 300).to("cuda")
    whole = token_nll(model, ids, 1, sliced=False)
    with chunked(model, 64):
        torch.testing.assert_close(token_nll(model, ids, 1), whole, atol=0.1, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_layers_on_two_gpus_run_in_chunks(llama):
    ids = tokens(2, 40)
    expected = token_nll(llama, ids, 1)
    spread = dispatch_model(llama, {place: int(i > 2) for i, place in enumerate(PLACES)})
    with chunked(spread, 7):
        torch.testing.assert_close(token_nll(spread, ids.cuda(), 1).cpu(), expected, atol=1e-3, rtol=0)
