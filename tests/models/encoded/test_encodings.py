"""Encodings that must be trained: each against its definition in float64, what they promise, and what is refused."""

import dataclasses
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import Tensor
from transformers import AutoModelForCausalLM

from harness import methods
from harness.errors import UserError
from harness.methods.encoding.alibi import slopes
from harness.methods.encoding.base import Shape
from harness.methods.encoding.modules.base import EncodingModule
from harness.methods.encoding.modules.positions import Drawn, DrawnFloats, Shifted
from harness.methods.encoding.modules.rotations import powers
from harness.methods.encoding.permuteformer import period, permutations, ratios
from harness.methods.encoding.t5_bias import edges
from harness.methods.encoding.trained_with import TrainedWith
from harness.methods.encoding.xpos import decay
from harness.models.encoded import attention
from harness.models.encoded.model import EncodedConfig, EncodedForCausalLM
from harness.models.install import applied
from harness.results import store
from harness.runs import runner
from tests.reference import encodings as reference
from tests.reference.training import random_floats
from tests.sweeps import Place
from tests.tiny import VOCABULARY

NAMES = [name for name, method in methods.METHODS.items() if method.kind == "encoding"]
HEADS, HEAD_DIM, LAYERS, TRAINED, LENGTH = 3, 8, 2, 16, 37
SHAPE = Shape(HEADS * HEAD_DIM, LAYERS, HEADS, TRAINED)
LAYER = 1


def part(name: str, **given: Any) -> EncodingModule:
    """The encoding as a module, its parameters drawn, in evaluation."""
    torch.manual_seed(1)
    module = methods.construct(name, given).filled(TRAINED).module(SHAPE)
    module.reset_parameters()
    return module.eval()


def inputs(seed: int = 0, length: int = LENGTH) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(1, HEADS, length, HEAD_DIM, generator=generator) for _ in range(3))  # type: ignore[return-value]


@torch.no_grad()
def attended(module: EncodingModule, q: Tensor, k: Tensor, v: Tensor) -> np.ndarray:
    prepared = module.prepare(1, q.shape[2], q.device)
    return attention.attend(q, k, v, module, prepared, LAYER)[0].double().numpy()


def expected(name: str, module: Any, q: np.ndarray, k: np.ndarray, v: np.ndarray, **given: Any) -> np.ndarray:
    def numbers(parameter: Tensor) -> np.ndarray:
        return parameter.detach().double().numpy()

    if name == "permuteformer" and given.get("form") == "linear":
        return reference.permuteformer_linear(q, k, v, permutations(HEADS, HEAD_DIM, 0))
    if name == "alibi":
        score = reference.alibi(q, k)
    elif name == "t5_bias":
        score = reference.t5_bias(q, k, numbers(module.table.weight), 32, given.get("max_distance", 128))
    elif name == "kerple":
        a, p = (np.maximum(numbers(x)[LAYER], 1e-2) for x in (module.rate, module.scale))
        score = reference.kerple(q, k, given["form"], p, a)
    elif name == "fire":
        inner, outer = module.inner[LAYER], module.outer[LAYER]
        layers = [numbers(x) for x in (inner.weight, inner.bias, outer.weight, outer.bias)]
        score = reference.fire(q, k, 0.1, TRAINED, *layers)
    elif name == "xpos":
        score = reference.xpos(q, k, given["decay_length"], block=TRAINED // 2 if given.get("lex") else None)
    elif name == "permuteformer":
        score = reference.permuted(q, k, permutations(HEADS, HEAD_DIM, 0))
    elif name == "randomized":
        draws, length = np.random.default_rng([5, q.shape[1]]), q.shape[1]
        is_float = given.get("draws") == "floats"
        drawn = random_floats(draws.random(length).tolist(), 64.0) if is_float else draws.choice(64, length, False)
        score = reference.rope(q, k, np.sort(drawn))
    else:
        score = reference.plain(q, k)
    return reference.softmax_attention(q, k, v, score)


CASES: list[tuple[str, dict[str, Any]]] = [
    ("alibi", {}),
    ("t5_bias", {}),
    ("t5_bias", {"max_distance": 24}),
    ("kerple", {"form": "log"}),
    ("kerple", {"form": "power"}),
    ("fire", {}),
    ("nope", {}),
    ("xpos", {"decay_length": 6.0}),
    ("xpos", {"decay_length": 512.0}),
    ("xpos", {"decay_length": 6.0, "lex": True}),
    ("permuteformer", {"form": "softmax"}),
    ("permuteformer", {"form": "linear"}),
    ("randomized", {"base": "rope", "positions": 64, "seed": 5}),
    ("randomized", {"base": "rope", "positions": 64, "seed": 5, "draws": "floats"}),
]


@pytest.mark.parametrize("queries", [5, 64])
@pytest.mark.parametrize(("name", "given"), CASES, ids=str)
def test_attention_is_that_of_the_definition(
    name: str, given: dict[str, Any], queries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "SCORES_AT_ONCE", 1)
    monkeypatch.setattr(attention, "LEAST_QUERIES", queries)
    module = part(name, **given)
    q, k, v = inputs()
    wanted = expected(name, module, *(x[0].double().numpy() for x in (q, k, v)), **given)
    scale = np.abs(wanted).max()
    assert_allclose(attended(module, q, k, v) / scale, wanted / scale, atol=2e-6)


RELATIVE = [case for case in CASES if case[0] in {"alibi", "t5_bias", "kerple", "xpos", "permuteformer", "nope"}]


@pytest.mark.parametrize(("name", "given"), [c for c in RELATIVE if "lex" not in c[1]], ids=str)
def test_scores_depend_on_the_distance_alone(name: str, given: dict[str, Any]) -> None:
    module = part(name, **given)
    shift = 11
    q, k, _v = inputs(length=LENGTH)

    def weights(query_at: int, key_at: int) -> float:
        queries, keys = torch.zeros_like(q), torch.zeros_like(k)
        queries[:, :, query_at], keys[:, :, key_at] = q[:, :, 0], k[:, :, 0]
        prepared = module.prepare(1, LENGTH, q.device)
        block = attention.Block(0, LENGTH, 0)
        rotated = module.rotate(queries, keys, prepared, block)
        scores = attention._scores(*rotated, module.bias(prepared, block, LAYER), module.linear)
        return scores[0, LAYER, query_at, key_at].item()

    for i, j in [(0, 0), (9, 3), (20, 0), (25, 24)]:
        assert weights(i, j) == pytest.approx(weights(i + shift, j + shift), abs=2e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("name", "given"), [("permuteformer", {"form": "linear"}), ("xpos", {"decay_length": 4.0})], ids=str
)
def test_a_decay_overflows_at_no_length(name: str, given: dict[str, Any], dtype: torch.dtype) -> None:
    module = part(name, **given)
    q, k, v = (x.to(dtype) for x in inputs(length=1100))  # in one block but for the bound on its queries
    assert attention.SCORES_AT_ONCE // 1100 > 1100
    got = attended(module, q, k, v)
    assert np.isfinite(got).all()
    last = attended(module, *(x[:, :, :700] for x in (q, k, v)))
    assert_allclose(got[:, :700], last, atol=3e-5 if dtype == torch.float32 else 0.1 * np.abs(last).max())


def test_the_tables_of_the_papers() -> None:
    assert_allclose(slopes(8), [2.0**-n for n in range(1, 9)])
    assert_allclose(slopes(16)[:3], [2**-0.5, 2**-1, 2**-1.5])
    assert_allclose(slopes(3), [2**-4, 2**-8, 2**-2])
    assert_allclose(ratios(8), [0.881, 0.914, 0.940, 0.958, 0.971, 0.979, 0.986, 0.990], atol=1e-3)
    assert_allclose(np.exp(decay(8, 1.0)), [0.4 / 1.4, 0.65 / 1.4, 0.9 / 1.4, 1.15 / 1.4])
    buckets = np.searchsorted(edges(32, 128), np.arange(300), side="right")
    assert_array_equal(buckets, [reference.t5_bucket(r) for r in range(300)])
    assert (buckets[15], buckets[16], buckets[112], buckets[113], buckets[299]) == (15, 16, 30, 31, 31)


def test_powers_of_a_permutation() -> None:
    table = permutations(HEADS, HEAD_DIM, 3)
    got = powers(table, 21)
    for h in range(HEADS):
        for n in range(21):
            assert_array_equal(got[h, n], reference.permute(np.arange(HEAD_DIM), table[h], n))
        assert_array_equal(reference.permute(np.arange(HEAD_DIM), table[h], period(table[h])), np.arange(HEAD_DIM))


# Positions


def test_shifts_are_drawn_for_each_sequence_in_training_and_fixed_in_evaluation() -> None:
    torch.manual_seed(0)
    places = Shifted(shifts=50, evaluation=50)
    drawn = places(64, 4, True, torch.device("cpu"))
    assert drawn.shape == (64, 4)
    assert len(drawn[:, 0].unique()) > 20
    assert (drawn[:, 0].min(), drawn[:, 0].max()) >= (0, 0)
    assert drawn[:, 0].max() < 50
    assert_array_equal(drawn.diff(dim=1), np.ones((64, 3)))
    assert_array_equal(places(64, 4, False, torch.device("cpu")), [[50, 51, 52, 53]])


@pytest.mark.parametrize(
    ("name", "given", "least", "most"),
    [("shape", {"shift": 7}, 0, 6), ("random_padding", {"rows": 20}, 0, 4), ("learned", {}, 0, 0)],
)
def test_training_shifts_over_all_that_the_parameters_allow(
    name: str, given: dict[str, Any], least: int, most: int
) -> None:
    places = part(name, **given).places
    begins = places(400, TRAINED, True, torch.device("cpu"))[:, 0]
    assert (begins.min(), begins.max()) == (least, most)


def test_drawn_positions_are_distinct_ascending_and_seeded_in_evaluation() -> None:
    torch.manual_seed(0)
    cpu = torch.device("cpu")
    drawn = Drawn(40, 0)(16, 12, True, cpu)
    assert (drawn.diff(dim=1) >= 1).all()
    assert drawn.min() >= 0
    assert drawn.max() < 40
    assert len(drawn.unique(dim=0)) > 10
    assert Drawn(12, 0)(2, 12, True, cpu).tolist() == [list(range(12))] * 2
    assert_array_equal(Drawn(40, 3)(5, 12, False, cpu), Drawn(40, 3)(1, 12, False, cpu))
    assert not torch.equal(Drawn(40, 3)(1, 12, False, cpu), Drawn(40, 4)(1, 12, False, cpu))


def test_drawn_floats_are_sorted_uniform_draws_seeded_in_evaluation() -> None:
    torch.manual_seed(0)
    cpu, uniform = torch.device("cpu"), np.random.default_rng([3, 12]).random(12).tolist()
    assert DrawnFloats(40, 3)(5, 12, False, cpu)[0].tolist() == pytest.approx(random_floats(uniform, 40.0), rel=1e-15)
    assert not torch.equal(DrawnFloats(40, 3)(1, 12, False, cpu), DrawnFloats(40, 4)(1, 12, False, cpu))
    drawn = DrawnFloats(40, 0)(400, 50, True, cpu)
    assert drawn.dtype == torch.float64
    assert (drawn.diff(dim=1) > 0).all()
    assert (drawn != drawn.round()).all()
    quantiles = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    torch.testing.assert_close(drawn.quantile(quantiles), 40 * quantiles, rtol=0, atol=0.4)


# Models


def model(name: str, **given: Any) -> EncodedForCausalLM:
    """A tiny model trained, it says, at TRAINED tokens."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
    declared = {"name": name, **dataclasses.asdict(methods.construct(name, given).filled(TRAINED))}
    config = EncodedConfig(**sizes, intermediate_size=40, max_position_embeddings=TRAINED, position_encoding=declared)
    built = EncodedForCausalLM(config).eval()
    for parameter in built.model.encoding.parameters():
        torch.nn.init.uniform_(parameter, 0.1, 1)  # not so small that nothing would be seen of it
    return built


@torch.no_grad()
def logits(network: Any, method: str, length: int, **given: Any) -> Tensor:
    ids = torch.arange(length)[None] * 7 % 64
    with applied(network, methods.construct(method, given), length):
        return network(input_ids=ids).logits


LONG = {name: None for name in NAMES} | {"learned": TRAINED}  # tokens that a model can read; None: any number


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_model_loads_through_transformers_and_says_the_same(name: str, tmp_path: Path) -> None:
    network = model(name)
    network.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert type(loaded) is EncodedForCausalLM
    assert_array_equal(logits(loaded, "none", TRAINED), logits(network, "none", TRAINED))
    assert TrainedWith.of(loaded.config) == TrainedWith.of(network.config)


@pytest.mark.parametrize("name", NAMES)
def test_in_bfloat16_as_in_float32_but_for_rounding(name: str) -> None:
    network, length = model(name), LONG[name] or 3 * TRAINED
    exact = logits(network, "none", length).softmax(-1)
    rounded = logits(network.to(torch.bfloat16), "none", length)
    assert rounded.dtype == torch.bfloat16
    assert (rounded.float().softmax(-1) - exact).abs().max() < 0.01 < exact.max()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "randomized"])
def test_a_prefix_does_not_depend_on_what_follows(name: str) -> None:
    network, length = model(name), LONG[name] or 3 * TRAINED
    whole = logits(network, "none", length)
    assert_allclose(logits(network, "none", length // 2), whole[:, : length // 2], atol=2e-6)
    assert not methods.METHODS[name]().depends_on_length


def test_randomized_positions_change_with_length_and_seed_and_say_so() -> None:
    network = model("randomized")
    assert methods.METHODS["randomized"]().depends_on_length
    short, long = logits(network, "none", 16), logits(network, "none", 32)[:, :16]
    assert (short - long).abs().max() > 1e-4
    assert_array_equal(logits(network, "randomized", 16), short)
    assert (logits(network, "randomized", 16, seed=1) - short).abs().max() > 1e-4
    assert_array_equal(logits(network, "none", 16), short)


def test_every_encoding_but_none_tells_positions_apart() -> None:
    found = {name: logits(model(name), "none", TRAINED) for name in NAMES}
    for name in NAMES:
        if name != "nope":
            assert (found[name] - found["nope"]).abs().max() > 1e-4, name


@torch.no_grad()
def inputs_of(network: EncodedForCausalLM, length: int) -> np.ndarray:
    """What the first layer reads."""
    seen = {}
    handle = network.model.layers[0].register_forward_pre_hook(lambda module, args: seen.update(hidden=args[0]))
    network(input_ids=torch.arange(length)[None])
    handle.remove()
    return seen["hidden"][0].double().numpy()


def test_absolute_positions_are_added_to_the_input() -> None:
    for name, shift in (("sinusoidal", 0), ("shape", 500)):
        network = model(name)
        embedded = network.model.embed_tokens.weight[:20].detach().double().numpy()
        wanted = math.sqrt(24) * embedded + [reference.sinusoid(n + shift, 24) for n in range(20)]
        assert_allclose(inputs_of(network, 20), wanted, atol=1e-5)
    network = model("learned")
    table, embedded = (
        e.weight.detach().double().numpy() for e in (network.model.encoding.table, network.model.embed_tokens)
    )
    assert_allclose(inputs_of(network, 16), embedded[:16] + table, atol=1e-6)


def test_interpolated_positions() -> None:
    factor = 4.0
    for name, method, given, base in (
        ("sinusoidal", "linear", {"factor": factor}, 1e4), ("sinusoidal", "abf", {"rope_theta": 5e4}, 5e4),
    ):  # fmt: skip
        network, stretch = model(name), factor if method == "linear" else 1.0
        with applied(network, methods.construct(method, given), 20) as patch:
            got = inputs_of(network, 20)
        recorded = [(one.path, one.inv_freq[-1]) for one in patch.installed]
        assert recorded == ([] if method == "linear" else [("model.encoding", pytest.approx(base ** (-22 / 24)))])
        embedded = network.model.embed_tokens.weight[:20].detach().double().numpy()
        wanted = math.sqrt(24) * embedded + [reference.sinusoid(n, 24, base, stretch) for n in range(20)]
        assert_allclose(got, wanted, atol=1e-5)
    network = model("learned")
    with applied(network, methods.construct("linear", {"factor": factor}), 64):
        got = inputs_of(network, 64)
    table, embedded = (
        e.weight.detach().double().numpy() for e in (network.model.encoding.table, network.model.embed_tokens)
    )
    rows = [np.interp(n / factor, np.arange(16), table[:, c]) for n in range(64) for c in range(24)]
    assert_allclose(got, embedded[:64] + np.reshape(rows, (64, 24)), atol=1e-6)
    q, k, v = inputs()
    numbers = [x[0].double().numpy() for x in (q, k, v)]
    for name, score in (
        ("alibi", reference.alibi(numbers[0], numbers[1], factor)),
        ("xpos", reference.xpos(numbers[0], numbers[1], 6.0, factor)),
    ):
        module = part(name, **({"decay_length": 6.0} if name == "xpos" else {}))
        module.stretch = factor
        assert_allclose(attended(module, q, k, v), reference.softmax_attention(*numbers, score), atol=2e-6)


@pytest.mark.parametrize(
    ("trained", "method", "given", "length", "message"),
    [
        ("alibi", "yarn", {}, 32, "method=yarn makes no sense on a model trained with alibi: it has slopes"),
        ("nope", "linear", {}, 32, "Allowed: native, none, nope."),
        ("alibi", "kerple", {}, 32, "makes no sense on a model trained with alibi"),
        ("learned", "none", {}, 17, "learned: ctx must be <= 16 tokens, the positions that the model has, got 17"),
        ("learned", "linear", {"factor": 2.0}, 33, "ctx must be <= 32 tokens"),
        ("random_padding", "none", {}, 129, "ctx must be <= 128 tokens"),
        ("randomized", "none", {}, 513, "ctx must be <= 512 tokens"),
        ("xpos", "xpos", {"decay_length": 64.0}, 16, "the model was trained with decay_length=512.0, got 64.0"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(
    trained: str, method: str, given: dict[str, Any], length: int, message: str
) -> None:
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        logits(model(trained), method, length, **given)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("shape", {"shift": 0}, "shape: shift must be >= 1 token, got 0"),
        ("shape", {"evaluation_shift": -1}, "evaluation_shift must be >= 0"),
        ("random_padding", {"rows": 1}, "rows must be >= 2"),
        ("randomized", {"base": "alibi"}, "Unknown randomized base 'alibi'"),
        ("randomized", {"draws": "float"}, "Unknown randomized draws 'float'. Did you mean 'floats'"),
        ("randomized", {"positions": 0}, "positions must be >= 2"),
        ("randomized", {"seed": -1}, "seed must be >= 0"),
        ("xpos", {"decay_length": 0.0}, "decay_length must be finite and > 0"),
        ("permuteformer", {"form": "hard"}, "Unknown permuteformer form 'hard'"),
        ("permuteformer", {"seed": -1}, "seed must be >= 0"),
        ("t5_bias", {"buckets": 3}, "buckets must be even"),
        ("t5_bias", {"max_distance": 16}, "max_distance must be > buckets / 2 = 16"),
        ("kerple", {"form": "exp"}, "Unknown kerple form 'exp'"),
        ("fire", {"width": 0}, "width must be >= 1"),
    ],
)
def test_parameters_out_of_range_are_errors(name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        methods.construct(name, given)


def test_tables_shorter_than_the_training_window_are_errors() -> None:
    for name, given in (("random_padding", {"rows": 8}), ("randomized", {"positions": 8})):
        with pytest.raises(UserError, match="must be >= 16, the window trained, got 8"):
            part(name, **given)


# Cells


@pytest.fixture
def encoded_place(place: Place, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Place]:
    """The place of `tests.sweeps`, its model one with an encoding."""

    def make(name: str) -> Place:
        torch.manual_seed(0)
        declared = {"name": name, **dataclasses.asdict(methods.construct(name, {}).filled(TRAINED))}
        config = EncodedConfig(
            vocab_size=VOCABULARY, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40,
            max_position_embeddings=TRAINED, position_encoding=declared,
        )  # fmt: skip
        network = EncodedForCausalLM(config)
        torch.nn.init.normal_(network.model.embed_tokens.weight, 0, 0.5)
        network.save_pretrained(place.model)
        return place

    return make


def nll_by_length(place: Place, lengths: tuple[int, ...], method: str) -> dict[int, float]:
    runner.run(place.prepared(*(f"method={method} ctx={length}" for length in lengths)))
    return store.load_results(place.results).groupby("ctx")["nll_sum"].sum().to_dict()


@pytest.mark.parametrize("name", ["alibi", "randomized"])
@pytest.mark.parametrize("method", ["none", "itself"])
def test_each_length_of_a_curve_is_as_if_computed_alone(
    encoded_place: Callable[[str], Place], name: str, method: str
) -> None:
    place, method = encoded_place(name), name if method == "itself" else method
    together = nll_by_length(place, (16, 40, 100), method)
    for length in (16, 40, 100):
        shutil.rmtree(place.results)
        assert nll_by_length(place, (length,), method)[length] == pytest.approx(together[length], rel=1e-6)


def test_cells_of_an_encoded_model_say_what_they_are(encoded_place: Callable[[str], Place]) -> None:
    place = encoded_place("alibi")
    runner.run(place.prepared("method=none ctx=32", "method=alibi ctx=32", "method=linear ctx=32"))
    rows = store.load_results(place.results)
    assert set(rows["original_max_position_embeddings"]) == {TRAINED}
    assert set(rows.loc[rows["method"] == "linear", "factor"]) == {2.0}
    by_method = rows.groupby("method")["nll_sum"].sum()
    assert by_method["none"] == by_method["alibi"] != by_method["linear"]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("method=yarn ctx=32", "method=yarn makes no sense on a model trained with alibi: it has slopes"),
        ("method=xpos ctx=32", "method=xpos makes no sense on a model trained with alibi"),
        ("method=none method.query_scale=log_n ctx=32", "are of rotary models; this one was trained with alibi"),
        ("method=none method.resonance=true ctx=32", "are of rotary models; this one was trained with alibi"),
        (
            "model.original_max_position_embeddings=32 ctx=32",
            "must be null or 16: a model trained with alibi says its own",
        ),
    ],
)
def test_a_cell_that_makes_no_sense_is_refused_before_the_model_is_loaded(
    encoded_place: Callable[[str], Place], cell: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        encoded_place("alibi").prepared(cell)


@pytest.mark.parametrize("name", NAMES)
def test_a_rotary_model_refuses_encodings(place: Place, name: str) -> None:
    with pytest.raises(UserError, match=f"method={name} is an encoding that a model must be trained with"):
        place.prepared(f"method={name} ctx=32")


def test_padding_is_refused_and_nothing_generates_without_a_cache():
    network = model("alibi")
    ids = torch.arange(8)[None]
    assert network(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.shape[1] == 8
    with pytest.raises(ValueError, match="windows cannot be padded"):
        network(input_ids=ids, attention_mask=torch.tensor([[0] * 3 + [1] * 5]))
    assert not network.can_generate()
