"""Negative log-likelihood per token in bounded memory: logits for scored positions only, in slices.

Cost of one window of L tokens: 2 x matrix parameters x L FLOPs, plus 2 x layers x heads x head_dim x L^2 for causal
attention, plus 2 x hidden x vocabulary for each scored token. Beyond weights and activations it holds one slice of
float32 logits (LOGITS_PER_SLICE numbers), never L x vocabulary. Three modes, the first that proves itself equal to the
model's own forward on a probe is used: `layered` (layers one at a time, long windows in chunks, the last layer for
scored positions only), `sliced`, `plain`. Packed weights (float32 on a CPU) and compiled layers prove themselves, too.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers.modeling_outputs import BaseModelOutputWithPast

from harness.engine_spec import EngineSpec
from harness.errors import UserError
from harness.models.chunked import STATIC_SHAPES, Forwards, chunked, compiled, compiled_forwards
from harness.models.packed import Weights, pack, packed
from harness.models.route import is_routed

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

LOGITS_PER_SLICE = {"cpu": 2**23, "cuda": 2**28}  # float32 numbers held at once: 32 MiB, 1 GiB
# Mean difference that a probe may show, in nats a token. Half precision: two orders of the same sums differ by 0.07 on
# an 8B model with random weights, whose losses are all near ln(vocabulary).
PROBE_TOLERANCE = {torch.float32: 1e-4, torch.float16: 0.05, torch.bfloat16: 0.15}


@torch.inference_mode()
def token_nll(model: "PreTrainedModel", ids: Tensor, score_from: int, *, sliced: bool = True) -> Tensor:
    """Loss of the tokens at positions score_from .. L-1 of each row of `ids`, in nats, positive.

    ids: (batch, L) token ids; score_from >= 1, since the first position has no prediction. Returns float32
    (batch, L - score_from). With `sliced` the logits are made slice by slice from the last hidden states; without it
    the model's own forward makes them all, which any causal LM can do.
    """
    targets = ids[:, score_from:]
    if not sliced:
        logits = model(input_ids=ids, use_cache=False).logits[:, score_from - 1 : -1]
        return _loss(logits, targets)
    hidden = _body(model)(input_ids=ids, use_cache=False).last_hidden_state[:, score_from - 1 : -1]
    rows = max(1, LOGITS_PER_SLICE.get(ids.device.type, 2**24) // _vocabulary(model))
    width = max(1, rows // len(ids))
    with _head(model) as head:
        losses = [
            _loss(head(hidden[:, begin : begin + width]), targets[:, begin : begin + width])
            for begin in range(0, targets.shape[1], width)
        ]
    return torch.cat(losses, dim=1)


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    flat = cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
    return flat.view(targets.shape)


def _body(model: "PreTrainedModel") -> nn.Module:
    """The model without its language-model head."""
    return getattr(model, model.base_model_prefix)


def _vocabulary(model: "PreTrainedModel") -> int:
    return int(model.config.get_text_config().vocab_size)


class _Given(nn.Module):
    """Stands for the model's body and returns hidden states that were computed before."""

    hidden: Tensor

    def forward(self, *args: Any, **kwargs: Any) -> BaseModelOutputWithPast:
        return BaseModelOutputWithPast(last_hidden_state=self.hidden)


@contextmanager
def _head(model: "PreTrainedModel") -> Iterator[Callable[[Tensor], Tensor]]:
    """Hidden states -> logits, by the model's own forward: families scale, cap or bias their logits there."""
    given, prefix = _Given(), model.base_model_prefix
    body = getattr(model, prefix)
    ids = torch.zeros((1, 1), dtype=torch.long, device=model.device)

    def head(hidden: Tensor) -> Tensor:
        given.hidden = hidden
        return model(input_ids=ids, use_cache=False).logits

    setattr(model, prefix, given)
    try:
        yield head
    finally:
        setattr(model, prefix, body)


class Mode(NamedTuple):
    """A way of computing that is exact for a model."""

    sliced: bool  # logits for scored positions only, in slices
    layered: bool  # decoder layers one at a time, sequences that are long for the device in chunks


MODES = {"layered": Mode(True, True), "sliced": Mode(True, False), "plain": Mode(False, False)}
PROBE_LENGTH, PROBE_CHUNK, PROBE_FROM = 24, 7, (1, 11)
CPU_TOKENS_PER_BATCH, GPU_TOKENS_PER_BATCH = 2048, 32768
CPU_CHUNK, SMALLEST_CHUNK = 8192, 512
MEMORY_SHARE = 0.8  # of what the weights left free; the rest is for the allocator's gaps


class Engine:
    """A model with the fastest way of computing that proved itself on it.

    `tokens_per_batch` is what one call may hold; a call that runs out of memory is split and tried again, and the
    smaller size is kept.
    """

    def __init__(self, model: "PreTrainedModel", spec: EngineSpec) -> None:
        self.model, self.spec = model, spec
        self.mode = choose_mode(model, spec.mode)
        self.budget = Budget.of(model)
        self.tokens_per_batch = spec.tokens_per_batch or self.budget.tokens_per_batch()
        self.largest_chunk: int | None = None  # set when memory runs out
        self.weights: Weights = {}  # packed; none: the model's own
        self.forwards: Forwards = []  # of compiled layers; none: the model's own
        self._adopt_packed_weights()
        if spec.compile:
            self._adopt_compiled_layers()

    def _adopt_packed_weights(self) -> None:
        self.weights = pack(self.model)
        if self.weights and (reason := _difference(self.model, self._call)):
            self.weights = {}
            log.warning("%s cannot run with packed weights: %s", type(self.model).__name__, reason)

    def _adopt_compiled_layers(self) -> None:
        try:
            self.forwards = compiled_forwards(self.model)
            reason = _difference(self.model, self._call)
        except LookupError as error:
            reason = str(error)
        if reason is not None:
            self.forwards = []
            log.warning("%s cannot run with compiled layers: %s", type(self.model).__name__, reason)

    def token_nll(self, ids: Tensor, score_from: int) -> Tensor:
        """As `token_nll`, in as many calls as memory asks for."""
        rows = max(1, self.tokens_per_batch // ids.shape[1])
        if len(ids) > rows:
            return torch.cat([self.token_nll(part, score_from) for part in ids.split(rows)])
        try:
            return self._call(ids, score_from)
        except torch.OutOfMemoryError as error:
            self._shrink(ids, error)
        torch.cuda.empty_cache()
        return self.token_nll(ids, score_from)

    def _call(self, ids: Tensor, score_from: int) -> Tensor:
        is_layered = self.mode.layered and not is_routed(self.model)
        with ExitStack() as stack:
            stack.enter_context(packed(self.model, self.weights))
            if self.forwards:  # a last layer in pieces would be compiled for each of them
                forwards = self.forwards[:-1] if is_layered and score_from > 1 else self.forwards
                stack.enter_context(compiled(self.model, forwards))
            if is_layered:
                stack.enter_context(chunked(self.model, self.chunk(*ids.shape), score_from - 1))
            return token_nll(self.model, self._filled(ids), score_from, sliced=self.mode.sliced)[: len(ids)]

    def _filled(self, ids: Tensor) -> Tensor:
        """With layers compiled for one shape a smaller last batch is filled up with copies of its last row."""
        rows = max(1, self.tokens_per_batch // ids.shape[1])
        if not self.forwards or not STATIC_SHAPES[self.model.device.type] or len(ids) >= rows:
            return ids
        return torch.cat([ids, ids[-1:].expand(rows - len(ids), -1)])

    def chunk(self, rows: int, length: int) -> int:
        """Tokens of each row that a decoder layer takes at a time."""
        fitting = self.budget.chunk(rows, length)
        return fitting if self.largest_chunk is None else min(fitting, self.largest_chunk)

    def _shrink(self, ids: Tensor, error: BaseException) -> None:
        """Half the rows; at one row half the chunk; at the smallest chunk the error stands."""
        rows, length = ids.shape
        chunk = min(self.chunk(rows, length), length)
        if rows > 1:
            self.tokens_per_batch = rows // 2 * length
            log.warning("out of memory with %d windows at once, going on with %d", rows, rows // 2)
        elif self.mode.layered and chunk > SMALLEST_CHUNK:
            self.largest_chunk = max(SMALLEST_CHUNK, chunk // 2)
            log.warning("out of memory at %d tokens, going on in chunks of %d", length, self.largest_chunk)
        else:
            raise MemoryError(f"one window of {length} tokens does not fit into the memory of {ids.device}") from error


@dataclass(frozen=True)
class Budget:
    """What fits beside the weights, in bytes; on a CPU sizes that keep its caches busy."""

    free: int | None  # None: a CPU
    passing: int  # a token on its way through a layer: states, projections, the inside of the MLP
    staying: int  # a token as long as a layer runs: residual stream, keys and values, rotations

    @classmethod
    def of(cls, model: "PreTrainedModel") -> "Budget":
        """Measured on the model's device, after its weights are there."""
        config, size = model.config.get_text_config(), model.dtype.itemsize
        inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
        free = torch.cuda.mem_get_info(model.device)[0] if model.device.type == "cuda" else None
        return cls(free, size * (6 * config.hidden_size + 3 * inner), size * 4 * config.hidden_size)

    def tokens_per_batch(self) -> int:
        """Tokens of one call: no more than keep the device busy."""
        if self.free is None:
            return CPU_TOKENS_PER_BATCH
        fitting = int(MEMORY_SHARE * self.free) // (self.passing + self.staying)
        return max(1, min(GPU_TOKENS_PER_BATCH, fitting))

    def chunk(self, rows: int, length: int) -> int:
        """Tokens of each of `rows` sequences of `length` tokens that pass through a layer together."""
        if self.free is None:
            return CPU_CHUNK
        left = MEMORY_SHARE * self.free - rows * length * self.staying
        return max(SMALLEST_CHUNK, GPU_TOKENS_PER_BATCH // 2 // rows, int(left / self.passing / rows))


def choose_mode(model: "PreTrainedModel", wanted: str) -> Mode:
    """The fastest mode that equals the model's own forward on a probe; `wanted` auto | layered | sliced | plain.

    Says in the log where a model cannot run a mode. A mode asked for by name that fails is an error.
    """
    for name in MODES if wanted == "auto" else [wanted]:
        reason = _difference(model, partial(_in_mode, model, MODES[name]))
        if reason is None:
            return MODES[name]
        if wanted != "auto":
            raise UserError(f"engine.mode={name} cannot run {type(model).__name__}: {reason}.")
        log.warning("%s cannot run in mode %s: %s", type(model).__name__, name, reason)
    raise AssertionError("a model equals itself")


def _in_mode(model: "PreTrainedModel", mode: Mode, ids: Tensor, score_from: int) -> Tensor:
    with chunked(model, PROBE_CHUNK, score_from - 1) if mode.layered else nullcontext():
        return token_nll(model, ids, score_from, sliced=mode.sliced)


def _difference(model: "PreTrainedModel", nll: Callable[[Tensor, int], Tensor]) -> str | None:
    """Why losses by `nll` do not equal those of the model's own forward on random tokens; None where they do."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, _vocabulary(model), (2, PROBE_LENGTH), generator=generator).to(model.device)
    for score_from in PROBE_FROM:
        expected = token_nll(model, ids, score_from, sliced=False)
        try:
            got = nll(ids, score_from)
        except (AttributeError, LookupError, TypeError, RuntimeError, ValueError) as error:
            return f"{type(error).__name__}: {str(error).splitlines()[0]}"
        difference = (got - expected).abs().mean().item()
        if not difference <= PROBE_TOLERANCE[model.dtype]:
            return f"losses differ by {difference:.3g} nats a token"
    return None
