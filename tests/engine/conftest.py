"""Models that every test of the engine may change."""

import pytest
import torch
import transformers

from tests.engine.small import FAMILIES


@pytest.fixture(params=FAMILIES)
def model(request):
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(FAMILIES[request.param]()).eval()


@pytest.fixture
def llama():
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(FAMILIES["llama"]()).eval()
