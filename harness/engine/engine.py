"""A model with the fastest way of computing that proved itself on it, in as many calls as memory asks for.

Every mode proves itself on a probe against the model's own forward (harness.engine.modes); packed weights (float32 on a
CPU) and compiled layers do so, too.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor

from harness.engine.budget import SMALLEST_CHUNK, Budget, is_out_of_memory
from harness.engine.compiled import STATIC_SHAPES, Forwards, compiled, compiled_forwards
from harness.engine.exchange import Ranks
from harness.engine.kept import Keep, Kept
from harness.engine.layered import chunked
from harness.engine.modes import choose_mode, choose_shared
from harness.engine.nll import states_only, token_nll, with_top1
from harness.engine.packed import Weights, pack, packed
from harness.engine.ring_cost import Cost
from harness.engine.shared import shared_nll
from harness.engine.spec import EngineSpec
from harness.engine.streams import Segment
from harness.engine.stripes import Stripes
from harness.errors import UserError
from harness.models.attention.route import is_routed
from harness.models.parts import CausalLM
from harness.models.probe import check_causal, difference, probe_of
from harness.models.rotary.angles import rotated_by

log = logging.getLogger(__name__)


class Engine:
    """A model with the fastest way of computing that proved itself on it.

    `tokens_per_batch` is what one call may hold; a call that runs out of memory is split and tried again, and the
    smaller size is kept. With `over` every window is computed by all of these ranks, which make the same calls.
    """

    def __init__(self, model: CausalLM, spec: EngineSpec, over: Ranks | None = None) -> None:
        check_causal(model)
        self.model, self.spec, self.over = model, spec, over
        self.mode = choose_mode(model, spec.mode) if over is None else choose_shared(model, over)
        self.budget = Budget.of(model) if over is None else Budget.of(model).agreed(over)
        self.tokens_per_batch = spec.tokens_per_batch or self.budget.tokens_per_batch()
        self.largest_chunk: int | None = None  # set when memory runs out
        self.weights: Weights = {}  # packed; none: the model's own
        self.forwards: Forwards = []  # of compiled layers; none: the model's own
        self.dealt: set[Stripes] = set()  # windows over several ranks whose cost has been logged
        self.passed: set[int | None] = set()  # what harness.models.proved_attention.check_regions keeps of the model
        self.keep: Keep | None = None  # set for each cell; None: a window that is killed begins anew
        self._adopt_packed_weights()
        if spec.compile is True:
            self._adopt_compiled_layers()

    def _adopt_packed_weights(self) -> None:
        self.weights = pack(self.model)
        if self.weights and (
            reason := difference(self.model, self._call, probe_of(self.model), attends=self.mode.layered)
        ):
            self.weights = {}
            log.warning("%s cannot run with packed weights: %s", type(self.model).__name__, reason)

    def _adopt_compiled_layers(self) -> None:
        try:
            self.forwards = compiled_forwards(self.model)
            reason = difference(self.model, self._call, probe_of(self.model), attends=self.mode.layered)
        except LookupError as error:
            reason = str(error)
        if reason is not None:
            self.forwards = []
            log.warning("%s cannot run with compiled layers: %s", type(self.model).__name__, reason)
        if self.over is not None:  # all or none: ranks fill up their batches in the same way
            everyones = self.over.gathered(torch.tensor([len(self.forwards)], device=self.model.device))
            self.forwards = self.forwards if all(everyones) else []

    def token_nll(self, ids: Tensor, score_from: int, sets: Tensor | None = None, *, ahead: bool = False) -> Tensor:
        """As `nll.token_nll`, in as many calls as memory asks for: ids (batch, length) -> (batch, length - score_from).

        sets: (batch,), the frequencies that each row is rotated by where several are installed
        (harness.models.rotary.angles).
        """
        rows = max(1, self.tokens_per_batch // ids.shape[1])
        if len(ids) > rows:
            parts = [slice(begin, begin + rows) for begin in range(0, len(ids), rows)]
            return torch.cat(
                [self.token_nll(ids[p], score_from, None if sets is None else sets[p], ahead=ahead) for p in parts]
            )
        try:
            return self._call(ids, score_from, sets, self.over, ahead=ahead)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            self._shrink(ids, error)
        torch.cuda.empty_cache()
        return self.token_nll(ids, score_from, sets, ahead=ahead)

    def token_scores(self, ids: Tensor, score_from: int, *, ahead: bool = False) -> Tensor:
        """As `token_nll` with top1 beside each loss, (batch, length - score_from, 2), as `nll.with_top1` says."""
        with with_top1():
            return self.token_nll(ids, score_from, ahead=ahead)

    def token_states(self, ids: Tensor, score_from: int, *, ahead: bool = False) -> Tensor:
        """The final hidden states that the losses of `token_nll` are made of, (batch, length - score_from, hidden).

        Raises UserError for a model whose head is not apart from its body, and where ranks share windows.
        """
        if not self.mode.sliced or self.over is not None:
            raise UserError(f"base: {type(self.model).__name__} hands out no final hidden states in this mode.")
        with states_only():
            return self.token_nll(ids, score_from, ahead=ahead).to(self.model.dtype)

    def measure(self) -> None:
        """Look again at what fits, after another model came to the same device."""
        self.budget = Budget.of(self.model)
        if self.spec.tokens_per_batch is None:
            self.tokens_per_batch = min(self.tokens_per_batch, self.budget.tokens_per_batch())

    def _call(
        self, ids: Tensor, score_from: int, sets: Tensor | None = None, over: Ranks | None = None, ahead: bool = False
    ) -> Tensor:
        """One call; without `over`, as in probes that a rank may fail alone, no other rank takes part."""
        filled, is_layered = self._filled(ids, ids.shape[1]), self.mode.layered and not is_routed(self.model)
        sets = None if sets is None else self._filled(sets, ids.shape[1])
        with ExitStack() as stack:
            stack.enter_context(rotated_by(sets))
            stack.enter_context(packed(self.model, self.weights))
            if self.forwards:  # a last layer in pieces would be compiled for each of them
                in_pieces = is_layered and score_from > 1
                stack.enter_context(compiled(self.model, self.forwards[:-1] if in_pieces else self.forwards))
            if over is not None:
                assert not ahead, "refused by the configuration"
                return self._shared(filled, score_from, sets, over)[: len(ids)]
            if is_layered:
                return self._layered(filled, score_from, sets, ahead)[: len(ids)]
            return token_nll(self.model, filled, score_from, sliced=self.mode.sliced, ahead=ahead)[: len(ids)]

    def _layered(self, ids: Tensor, score_from: int, sets: Tensor | None, ahead: bool) -> Tensor:
        def compute(kept: Kept | None) -> Tensor:
            with chunked(self.model, self.chunk(*ids.shape), score_from - 1, kept=kept):
                return token_nll(self.model, ids, score_from, sliced=self.mode.sliced, ahead=ahead)

        return self._resumed(compute, ids, score_from, sets, [(0, ids.shape[1] - ahead)], None)

    def _shared(self, ids: Tensor, score_from: int, sets: Tensor | None, over: Ranks) -> Tensor:
        rows, length = ids.shape
        stripes = Stripes.of(length, over.size, self.budget.shared_chunk(rows, length, over.size))
        if over.rank == 0 and stripes not in self.dealt:
            self.dealt.add(stripes)
            log.info("%s", Cost.of(self.model, rows, stripes))
        segments = [(begin, stripes.size) for begin in stripes.all_begins(over.rank)]
        compute = partial(shared_nll, self.model, ids, score_from, stripes, over)
        return self._resumed(compute, ids, score_from, sets, segments, over)

    def _resumed(
        self,
        compute: Callable[[Kept | None], Tensor],
        ids: Tensor,
        score_from: int,
        sets: Tensor | None,
        segments: Sequence[Segment],
        over: Ranks | None,
    ) -> Tensor:
        """What `compute` gives, going on from what was kept of the same call."""
        kept = None if self.keep is None else self.keep.window(self.model, ids, sets, segments, over)
        if kept is None:
            return compute(None)
        before = kept.losses(score_from)
        if before is not None:
            return before
        nll = compute(kept)
        kept.finish(score_from, nll)
        return nll

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
