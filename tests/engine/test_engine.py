"""The engine equals the model's own forward, and a loop over single tokens, in every mode and every chunking."""

import copy
import functools

import numpy as np
import pytest
import torch
import transformers
from accelerate import dispatch_model

from harness.engine.attention import after_past
from harness.engine.budget import Budget
from harness.engine.compiled import STATIC_SHAPES, compiled, compiled_forwards
from harness.engine.engine import Engine
from harness.engine.layered import chunked
from harness.engine.modes import MODES, choose_mode
from harness.engine.nll import LOGITS_PER_SLICE, token_nll
from harness.engine.spec import EngineSpec
from harness.errors import UserError
from harness.methods import build
from harness.models.checkpoint.geometry import geometry
from harness.models.install import applied

VOCABULARY = 211
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
FAMILIES = {
    "llama": lambda: transformers.LlamaConfig(**SHAPE),
    "qwen3": lambda: transformers.Qwen3Config(**SHAPE, head_dim=8),
    "mistral, windowed": lambda: transformers.MistralConfig(**SHAPE, sliding_window=20),
    "gemma3, local and global": lambda: transformers.Gemma3TextConfig(
        **SHAPE, head_dim=8, sliding_window=20, layer_types=["sliding_attention", "sliding_attention", "full_attention"]
    ),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**{k: v for k, v in SHAPE.items() if k != "num_key_value_heads"}),
    "granite, scaled logits": lambda: transformers.GraniteConfig(**SHAPE, logits_scaling=3.0),
    "cohere, scaled logits": lambda: transformers.CohereConfig(**SHAPE),
}


@pytest.fixture(params=FAMILIES)
def model(request):
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(FAMILIES[request.param]()).eval()


@pytest.fixture
def llama():
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(FAMILIES["llama"]()).eval()


def tokens(rows, length, seed=1):
    return torch.randint(0, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def by_hand(model, ids, score_from):
    """Each token from a forward of its own over just what precedes it, in float64."""
    double = copy.deepcopy(model).double()
    losses = [
        -torch.log_softmax(double(ids[:, :n], use_cache=False).logits[:, -1], dim=-1).gather(1, ids[:, n : n + 1])
        for n in range(score_from, ids.shape[1])
    ]
    return torch.cat(losses, dim=1)


def test_loss_is_that_of_single_token_forwards_in_float64(model):
    ids = tokens(2, 33)
    torch.testing.assert_close(token_nll(model, ids, 5).double(), by_hand(model, ids, 5), atol=1e-5, rtol=0)


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


@pytest.mark.parametrize("numbers", [1, 3 * VOCABULARY, 10**9])
def test_slices_of_logits_change_nothing(llama, monkeypatch, numbers):
    ids = tokens(3, 40)
    whole = token_nll(llama, ids, 1, sliced=False)
    monkeypatch.setitem(LOGITS_PER_SLICE, "cpu", numbers)
    torch.testing.assert_close(token_nll(llama, ids, 1), whole, atol=1e-6, rtol=0)


def test_batches_do_not_mix_rows(llama):
    ids = tokens(5, 30)
    alone = torch.cat([token_nll(llama, row[None], 3) for row in ids])
    torch.testing.assert_close(token_nll(llama, ids, 3), alone, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_compiled_layers_equal_eager_ones(model):
    ids = tokens(2, 40)
    whole = token_nll(model, ids, 1)
    with compiled(model, compiled_forwards(model)):
        torch.testing.assert_close(token_nll(model, ids, 1), whole, atol=1e-5, rtol=0)
    engine = Engine(model, EngineSpec(compile=True))
    assert engine.forwards
    for score_from in (1, 30):
        torch.testing.assert_close(engine.token_nll(ids, score_from), whole[:, score_from - 1 :], atol=1e-5, rtol=0)


def test_compiled_llama_layers_equal_eager_ones(llama):
    ids = tokens(2, 40)
    whole = token_nll(llama, ids, 1)
    with compiled(llama, compiled_forwards(llama)):
        torch.testing.assert_close(token_nll(llama, ids, 1), whole, atol=1e-5, rtol=0)


def test_layers_compiled_for_one_shape_meet_one_whatever_the_batch(llama, monkeypatch):
    monkeypatch.setitem(STATIC_SHAPES, "cpu", True)
    seen = set()
    engine = Engine(llama, EngineSpec(tokens_per_batch=80))
    forwards = [layer.forward for layer in llama.model.layers]

    def noting(forward):
        @functools.wraps(forward)
        def noted(hidden, *args, **kwargs):
            seen.add(tuple(hidden.shape))
            return forward(hidden, *args, **kwargs)

        return noted

    expected = engine.token_nll(tokens(7, 20), 1)
    engine.forwards = [noting(forward) for forward in forwards]
    torch.testing.assert_close(engine.token_nll(tokens(7, 20), 1), expected, atol=1e-5, rtol=0)
    assert seen == {(4, 20, 32)}


def test_layers_that_cannot_be_compiled_run_as_they_are(llama, monkeypatch, caplog):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", (None, "no-such-compiler"))
    monkeypatch.setattr(torch._inductor.config, "force_disable_caches", True)
    torch._dynamo.reset()
    engine = Engine(llama, EngineSpec(compile=True))
    assert not engine.forwards
    assert "LlamaForCausalLM cannot run with compiled layers" in caplog.text
    ids = tokens(2, 40)
    torch.testing.assert_close(engine.token_nll(ids, 3), token_nll(llama, ids, 3, sliced=False), atol=1e-5, rtol=0)


def test_a_model_without_a_list_of_layers_is_not_compiled(llama, caplog):
    llama.model.layers = torch.nn.Sequential(*llama.model.layers)
    assert not Engine(llama, EngineSpec(compile=True)).forwards
    assert "cannot run with compiled layers: LlamaModel has 0 lists of decoder layers" in caplog.text


def test_attention_after_a_past_equals_masked_attention():
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, heads, n, 8, generator=generator) for heads, n in ((4, 5), (2, 13), (2, 13)))
    mask = torch.arange(13) <= torch.arange(8, 13)[:, None]
    wide = (x.double().repeat_interleave(2, dim=1) for x in (key, value))
    expected = torch.nn.functional.scaled_dot_product_attention(query.double(), *wide, attn_mask=mask)
    torch.testing.assert_close(after_past(query, key, value, None).double(), expected, atol=1e-6, rtol=0)


def test_the_first_mode_that_proves_itself_is_taken(llama, caplog):
    assert choose_mode(llama, "auto") == MODES["layered"]
    llama.model.layers = torch.nn.Sequential(*llama.model.layers)  # no list of layers to run one by one
    assert choose_mode(llama, "auto") == MODES["sliced"]
    assert "cannot run in mode layered" in caplog.text


def test_a_forward_that_does_more_than_its_head_falls_back_to_plain(llama, caplog):
    whole = llama.forward
    llama.forward = lambda input_ids, **options: _shifted(whole(input_ids=input_ids, **options), input_ids.shape[1])
    assert choose_mode(llama, "auto") == MODES["plain"]
    assert "losses differ" in caplog.text
    with pytest.raises(UserError, match="engine.mode=sliced cannot run LlamaForCausalLM: losses differ"):
        choose_mode(llama, "sliced")


def _shifted(output, length):
    output.logits = output.logits * (1 + 1 / length)
    return output


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


def test_budget_follows_free_memory():
    budget = Budget(free=60 * 2**30, passing=135_000, staying=32_768)
    assert budget.tokens_per_batch() == 32768
    assert budget.chunk(1, 131_072) > 131_072  # fits whole
    assert budget.chunk(1, 2_097_152) == 16_384  # the stream alone fills the memory
    assert Budget(free=2**30, passing=135_000, staying=32_768).tokens_per_batch() == 5120


def test_a_window_that_cannot_fit_is_an_error(llama, monkeypatch):
    monkeypatch.setattr("harness.engine.engine.SMALLEST_CHUNK", 4)
    engine = Engine(llama, EngineSpec())
    llama.model.forward = Scarce(llama, limit=0)
    with pytest.raises(MemoryError, match="one window of 20 tokens does not fit"):
        engine.token_nll(tokens(1, 20), 1)


def test_uniform_logits_cost_the_logarithm_of_the_vocabulary(llama):
    torch.nn.init.zeros_(llama.lm_head.weight)
    losses = token_nll(llama, tokens(2, 20), 1)
    np.testing.assert_allclose(losses.numpy(), np.log(VOCABULARY), rtol=1e-6)


def test_losses_are_taken_in_float32_also_of_bfloat16_logits(llama):
    half = copy.deepcopy(llama).to(torch.bfloat16)
    ids = tokens(2, 40)
    logits = half(ids, use_cache=False).logits[:, :-1].double()
    exact = -torch.log_softmax(logits, dim=-1).gather(2, ids[:, 1:, None])[..., 0]
    torch.testing.assert_close(token_nll(half, ids, 1).double(), exact, atol=2e-2, rtol=0)
    assert (token_nll(half, ids, 1, sliced=False).double() - exact).abs().max() < 1e-5


@pytest.mark.gpu
def test_modes_agree_in_bfloat16_on_a_gpu(model):
    model = model.to("cuda", torch.bfloat16)
    ids = tokens(2, 300).to("cuda")
    whole = token_nll(model, ids, 1, sliced=False)
    with chunked(model, 64):
        torch.testing.assert_close(token_nll(model, ids, 1), whole, atol=0.1, rtol=0)


PLACES = ["model.embed_tokens", "model.rotary_emb", *(f"model.layers.{i}" for i in range(3)), "model.norm", "lm_head"]


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


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_layers_on_two_gpus_run_in_chunks(llama):
    ids = tokens(2, 40)
    expected = token_nll(llama, ids, 1)
    spread = dispatch_model(llama, {place: int(i > 2) for i, place in enumerate(PLACES)})
    with chunked(spread, 7):
        torch.testing.assert_close(token_nll(spread, ids.cuda(), 1).cpu(), expected, atol=1e-3, rtol=0)
