"""The engine computes what is asked for and no more, and what memory does not hold in more calls."""

import pytest
import torch
from accelerate import dispatch_model

from harness.engine.engine import Engine
from harness.engine.modes import MODES
from harness.engine.nll import token_nll
from harness.engine.spec import EngineSpec
from harness.methods import build
from harness.models.checkpoint.geometry import geometry
from harness.models.install import applied
from tests.engine.small import PLACES, tokens


def test_of_positions_that_are_not_scored_the_last_layer_computes_keys_and_values(llama):
    counted = {}
    for name, module in llama.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(
                lambda _, inputs, __, name=name: counted.update({name: counted.get(name, 0) + inputs[0].shape[1]})
            )
    engine = Engine(llama, EngineSpec())
    counted.clear()
    engine.token_nll(tokens(1, 40), 31)  # predicted from positions 30 .. 38
    last = {name.split(".")[-1]: n for name, n in counted.items() if name.startswith("model.layers.2")}
    assert last == {
        "q_proj": 40, "k_proj": 40, "v_proj": 40, "o_proj": 10, "gate_proj": 10, "up_proj": 10, "down_proj": 10,
    }  # fmt: skip
    assert counted["model.layers.1.mlp.down_proj"] == 40
    assert counted["lm_head"] == 9


class Scarce:
    """A forward that runs out of memory above a number of tokens."""

    def __init__(self, model, limit, error=None):
        self.forward, self.limit, self.refused = model.model.forward, limit, 0
        self.error = error or torch.OutOfMemoryError("not enough")

    def __call__(self, input_ids, **options):
        if input_ids.numel() > self.limit:
            self.refused += 1
            raise self.error
        return self.forward(input_ids=input_ids, **options)


def test_out_of_memory_halves_the_batch_and_loses_nothing(llama, caplog):
    ids = tokens(8, 20)
    engine = Engine(llama, EngineSpec(tokens_per_batch=160))
    expected = engine.token_nll(ids, 1)
    llama.model.forward = scarce = Scarce(llama, limit=50)
    torch.testing.assert_close(engine.token_nll(ids, 1), expected, atol=1e-5, rtol=0)
    assert scarce.refused == 2  # 8 -> 4 -> 2 windows, and no third refusal
    assert "going on with 2" in caplog.text
    assert engine.tokens_per_batch == 40


@pytest.mark.parametrize(
    "message", ["[enforce fail] DefaultCPUAllocator: can't allocate memory: 8 bytes", "could not create a primitive"]
)
def test_a_cpu_out_of_memory_halves_the_batch_too(llama, message):
    ids = tokens(8, 20)
    engine = Engine(llama, EngineSpec(tokens_per_batch=160))
    expected = engine.token_nll(ids, 1)
    llama.model.forward = Scarce(llama, limit=50, error=RuntimeError(message))
    torch.testing.assert_close(engine.token_nll(ids, 1), expected, atol=1e-5, rtol=0)
    llama.model.forward = Scarce(llama, limit=50, error=RuntimeError("shapes differ"))
    engine.tokens_per_batch = 160
    with pytest.raises(RuntimeError, match="shapes differ"):
        engine.token_nll(ids, 1)


def test_a_model_that_is_nan_runs_so_that_its_loss_can_be_named(llama, caplog):
    with torch.no_grad():
        llama.model.layers[0].mlp.down_proj.weight[0, 0] = torch.nan
    assert Engine(llama, EngineSpec()).token_nll(tokens(1, 20), 1).isnan().any()
    assert "every loss of the probe is NaN or infinite" in caplog.text


def test_out_of_memory_at_one_window_halves_its_chunks(llama, monkeypatch, caplog):
    monkeypatch.setattr("harness.engine.engine.SMALLEST_CHUNK", 4)
    engine = Engine(llama, EngineSpec())
    ids = tokens(1, 40)
    expected = engine.token_nll(ids, 1)
    inside = llama.model.layers[1].mlp.forward

    def scarce(hidden):
        if hidden.shape[1] > 12:
            raise torch.OutOfMemoryError("not enough")
        return inside(hidden)

    llama.model.layers[1].mlp.forward = scarce
    torch.testing.assert_close(engine.token_nll(ids, 1), expected, atol=1e-5, rtol=0)
    assert engine.largest_chunk == 10
    assert "in chunks of 10" in caplog.text


def test_a_window_that_cannot_fit_is_an_error(llama, monkeypatch):
    monkeypatch.setattr("harness.engine.engine.SMALLEST_CHUNK", 4)
    engine = Engine(llama, EngineSpec())
    llama.model.forward = Scarce(llama, limit=0)
    with pytest.raises(MemoryError, match="one window of 20 tokens does not fit"):
        engine.token_nll(tokens(1, 20), 1)


@pytest.mark.parametrize("name", MODES)
@pytest.mark.parametrize("method", ["yarn", "rerope"])
def test_a_model_with_layers_that_accelerate_keeps_elsewhere_runs_every_mode(llama, tmp_path, name, method):
    """As under model.device_map=auto where GPUs do not suffice: weights come to a layer when it is called."""
    ids, rope = tokens(2, 40), geometry(llama.config)
    with applied(llama, build(method, {}, rope, 40), 40):
        expected = token_nll(llama, ids, 1)
    places = dict.fromkeys(PLACES, "cpu") | {"model.layers.1": "disk"}
    held = dispatch_model(llama, places, main_device="cpu", offload_dir=tmp_path)
    assert {p.device.type for p in held.model.layers[1].parameters()} == {"meta"}
    engine = Engine(held, EngineSpec(mode=name))
    engine.largest_chunk = 7
    with applied(held, build(method, {}, rope, 40), 40):
        torch.testing.assert_close(engine.token_nll(ids, 1), expected, atol=1e-5, rtol=0)
