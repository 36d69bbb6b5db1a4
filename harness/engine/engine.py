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
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers.modeling_outputs import MoeModelOutputWithPast

from harness.engine import shared as context
from harness.engine.layered import STATIC_SHAPES, Forwards, chunked, compiled, compiled_forwards
from harness.engine.packed import Weights, pack, packed
from harness.engine.spec import EngineSpec
from harness.errors import UserError
from harness.models.attention.route import is_routed
from harness.models.rotary.angles import turned_by

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
    return _losses(model, hidden, targets)


def _losses(model: "PreTrainedModel", hidden: Tensor, targets: Tensor) -> Tensor:
    """Losses of `targets` (rows, tokens) under the last hidden states before them, logits made slice by slice."""
    rows = max(1, LOGITS_PER_SLICE.get(targets.device.type, 2**24) // _vocabulary(model))
    width = max(1, rows // len(targets))
    with _head(model) as head:
        losses = [
            _loss(head(hidden[:, begin : begin + width]), targets[:, begin : begin + width])
            for begin in range(0, targets.shape[1], width)
        ]
    return torch.cat(losses, dim=1)


@torch.inference_mode()
def shared_nll(model: "PreTrainedModel", ids: Tensor, score_from: int, largest: int, ranks: context.Ranks) -> Tensor:
    """As `token_nll`, every window over all ranks, up to `largest` tokens a rank at a time; the same on each.

    Losses are computed where their tokens live, and exchanged as they are.
    """
    length = ids.shape[1]
    stripes = context.Stripes.of(length, ranks.size, largest)
    with context.spread(model, stripes, ranks):
        hidden = context.hidden_states(model, ids, stripes, ranks.rank)
    own = torch.zeros(hidden.shape[:2], dtype=torch.float32, device=ids.device)  # of the token behind each
    for number, begin in enumerate(stripes.all_begins(ranks.rank)):
        first, last = max(begin, score_from - 1), min(begin + stripes.size, length - 1)
        if first < last:
            place = slice(number * stripes.size + first - begin, number * stripes.size + last - begin)
            own[:, place] = _losses(model, hidden[:, place], ids[:, first + 1 : last + 1])
    return context.in_order(ranks.gathered(own), stripes)[:, score_from - 1 : -1]


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

    def forward(self, *args: Any, **kwargs: Any) -> MoeModelOutputWithPast:
        return MoeModelOutputWithPast(last_hidden_state=self.hidden)  # it has the fields that any family reads


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
PROBE_LENGTH, PROBE_CHUNK, PROBE_SHARE, PROBE_FROM = 24, 7, 4, (1, 11)
CPU_TOKENS_PER_BATCH, GPU_TOKENS_PER_BATCH = 2048, 32768
CPU_CHUNK, SMALLEST_CHUNK = 8192, 512
CPU_OUT_OF_MEMORY = ("DefaultCPUAllocator: can't allocate memory", "could not create a primitive")
MEMORY_SHARE = 0.8  # of what the weights left free; the rest is for the allocator's gaps


class Engine:
    """A model with the fastest way of computing that proved itself on it.

    `tokens_per_batch` is what one call may hold; a call that runs out of memory is split and tried again, and the
    smaller size is kept. With `over` every window is computed by all of these ranks, which make the same calls.
    """

    def __init__(self, model: "PreTrainedModel", spec: EngineSpec, over: context.Ranks | None = None) -> None:
        self.model, self.spec, self.over = model, spec, over
        self.mode = choose_mode(model, spec.mode) if over is None else choose_shared(model, over)
        self.budget = Budget.of(model) if over is None else Budget.of(model).agreed(over)
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
        if self.over is not None:  # all or none, lest ranks fill up their batches in different ways
            everyones = self.over.gathered(torch.tensor([len(self.forwards)], device=self.model.device))
            self.forwards = self.forwards if all(everyones) else []

    def token_nll(self, ids: Tensor, score_from: int, sets: Tensor | None = None) -> Tensor:
        """As `token_nll`, in as many calls as memory asks for.

        sets: (batch,), the frequencies that each row is rotated by where several are installed
        (harness.models.rotary.angles).
        """
        rows = max(1, self.tokens_per_batch // ids.shape[1])
        if len(ids) > rows:
            parts = [slice(begin, begin + rows) for begin in range(0, len(ids), rows)]
            return torch.cat([self.token_nll(ids[p], score_from, None if sets is None else sets[p]) for p in parts])
        try:
            return self._call(ids, score_from, sets, self.over)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            self._shrink(ids, error)
        torch.cuda.empty_cache()
        return self.token_nll(ids, score_from, sets)

    def _call(
        self, ids: Tensor, score_from: int, sets: Tensor | None = None, over: context.Ranks | None = None
    ) -> Tensor:
        """One call; without `over`, as in probes that a rank may fail alone, no other rank takes part."""
        filled, is_layered = self._filled(ids, ids.shape[1]), self.mode.layered and not is_routed(self.model)
        with ExitStack() as stack:
            stack.enter_context(turned_by(None if sets is None else self._filled(sets, ids.shape[1])))
            stack.enter_context(packed(self.model, self.weights))
            if self.forwards:  # a last layer in pieces would be compiled for each of them
                in_pieces = is_layered and score_from > 1 and over is None
                stack.enter_context(compiled(self.model, self.forwards[:-1] if in_pieces else self.forwards))
            if over is not None:
                largest = self.budget.shared_chunk(len(ids), ids.shape[1], over.size)
                return shared_nll(self.model, filled, score_from, largest, over)[: len(ids)]
            if is_layered:
                stack.enter_context(chunked(self.model, self.chunk(*ids.shape), score_from - 1))
            return token_nll(self.model, filled, score_from, sliced=self.mode.sliced)[: len(ids)]

    def _filled(self, given: Tensor, length: int) -> Tensor:
        """With layers compiled for one shape a smaller last batch is filled up with copies of its last row."""
        rows = max(1, self.tokens_per_batch // length)
        if not self.forwards or not STATIC_SHAPES.get(self.model.device.type) or len(given) >= rows:
            return given
        return torch.cat([given, given[-1:].expand(rows - len(given), *given.shape[1:])])

    def chunk(self, rows: int, length: int) -> int:
        """Tokens of each row that a decoder layer takes at a time."""
        fitting = self.budget.chunk(rows, length)
        return fitting if self.largest_chunk is None else min(fitting, self.largest_chunk)

    def _shrink(self, ids: Tensor, error: BaseException) -> None:
        """Half the rows; at one row half the chunk; at the smallest chunk, or with other ranks, the error stands."""
        rows, length = ids.shape
        chunk = min(self.chunk(rows, length), length)
        if self.over is not None:
            where = f"{self.over.size} x {ids.device.type}"
            raise MemoryError(
                f"{rows} windows of {length} tokens at once do not fit into the memory of {where}"
            ) from error
        if rows > 1:
            self.tokens_per_batch = rows // 2 * length
            log.warning("out of memory with %d windows at once, going on with %d", rows, rows // 2)
        elif self.mode.layered and chunk > SMALLEST_CHUNK:
            self.largest_chunk = max(SMALLEST_CHUNK, chunk // 2)
            log.warning("out of memory at %d tokens, going on in chunks of %d", length, self.largest_chunk)
        else:
            raise MemoryError(f"one window of {length} tokens does not fit into the memory of {ids.device}") from error


def _is_out_of_memory(error: RuntimeError) -> bool:
    """A GPU's allocator has an error of its own, a CPU's and oneDNN's do not."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in CPU_OUT_OF_MEMORY)


@dataclass(frozen=True)
class Budget:
    """What fits beside the weights, in bytes; on a CPU sizes that keep its caches busy."""

    free: int | None  # None: a CPU
    passing: int  # a token on its way through a layer: states, projections, the inside of the MLP
    staying: int  # a token as long as a layer runs: residual stream, keys and values, rotations

    @classmethod
    def of(cls, model: "PreTrainedModel") -> "Budget":
        """Measured on the model's devices, after its weights are there; the fullest counts."""
        config, size = model.config.get_text_config(), model.dtype.itemsize
        inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
        gpus = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
        free = min((torch.cuda.mem_get_info(gpu)[0] for gpu in gpus), default=None)
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

    def agreed(self, over: context.Ranks) -> "Budget":
        """That of the rank with the least free memory, lest ranks cut their windows in different ways."""
        if self.free is None:
            return self
        everyones = over.gathered(torch.tensor([self.free], device="cuda"))
        return replace(self, free=min(int(free) for free in everyones))

    def shared_chunk(self, rows: int, length: int, ranks: int) -> int:
        """Tokens of each of `rows` windows that pass through a layer together, on each of the ranks that share them.

        Half of what stays is the window's keys and values, which every rank holds; the other half is shared. What
        passes are also the keys and values that come from all ranks.
        """
        if self.free is None:
            return CPU_CHUNK
        left = MEMORY_SHARE * self.free - rows * length * self.staying * (1 + 1 / ranks) / 2
        return max(SMALLEST_CHUNK, int(left / (self.passing + ranks * self.staying / 2) / rows))


def choose_mode(model: "PreTrainedModel", wanted: str) -> Mode:
    """The fastest mode that equals the model's own forward on a probe; `wanted` auto | layered | sliced | plain.

    Says in the log where a model cannot run a mode. A mode asked for by name that fails is an error.
    """
    for name in MODES if wanted == "auto" else [wanted]:
        reason = _difference(model, partial(probed, model, MODES[name]))
        if reason is None:
            return MODES[name]
        if wanted != "auto":
            raise UserError(f"engine.mode={name} cannot run {type(model).__name__}: {reason}.")
        log.warning("%s cannot run in mode %s: %s", type(model).__name__, name, reason)
    raise AssertionError("a model equals itself")


def probed(model: "PreTrainedModel", mode: Mode, ids: Tensor, score_from: int = 1) -> Tensor:
    """Losses of a short probe (batch, L) from position `score_from` on in a mode, in chunks shorter than the probe."""
    with chunked(model, PROBE_CHUNK, score_from - 1) if mode.layered else nullcontext():
        return token_nll(model, ids, score_from, sliced=mode.sliced)


def choose_shared(model: "PreTrainedModel", over: context.Ranks) -> Mode:
    """The layered mode, where windows over these ranks equal the model's own forward on a probe, too.

    Raises UserError where it cannot run the model; by itself first, so that all ranks find out together.
    """

    def shared(ids: Tensor, score_from: int) -> Tensor:
        return shared_nll(model, ids, score_from, PROBE_SHARE, over)

    mode = MODES["layered"]
    reason = _difference(model, partial(probed, model, mode)) or _difference(model, shared)
    if reason is not None:
        raise UserError(f"engine.parallel=context cannot run {type(model).__name__}: {reason}.")
    return mode


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
        finite = expected.isfinite()
        if not finite.any():
            log.warning("%s: every loss of the probe is NaN or infinite, nothing to compare", type(model).__name__)
            return None
        difference = (got - expected)[finite].abs().mean().item()
        if not difference <= PROBE_TOLERANCE[model.dtype]:
            return f"losses differ by {difference:.3g} nats a token"
    return None
