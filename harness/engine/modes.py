"""Ways of computing, the fastest first, and their proof: a mode is taken where it equals the model's own forward.

`layered` runs layers one at a time, long windows in chunks, the last layer for scored positions only; `sliced` makes
the logits of scored positions slice by slice; `plain` is the model's own forward.
"""

import logging
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

from torch import Tensor

from harness.engine.exchange import Ranks
from harness.engine.layered import chunked
from harness.engine.nll import token_nll
from harness.engine.shared import shared_nll
from harness.engine.spec import ModeName
from harness.engine.stripes import Stripes
from harness.errors import UserError
from harness.models.parts import CausalLM
from harness.models.probe import difference, probe_of

log = logging.getLogger(__name__)

PROBE_CHUNK, PROBE_SHARE = 7, 4  # tokens, shorter than the probe


class Mode(NamedTuple):
    """A way of computing that is exact for a model."""

    sliced: bool  # logits for scored positions only, in slices
    layered: bool  # decoder layers one at a time, sequences that are long for the device in chunks


MODES = {"layered": Mode(True, True), "sliced": Mode(True, False), "plain": Mode(False, False)}


def choose_mode(model: CausalLM, wanted: ModeName) -> Mode:
    """The fastest mode that equals the model's own forward on a probe; `wanted` auto | layered | sliced | plain.

    Says in the log where a model cannot run a mode. A mode asked for by name that fails is an error.
    """
    probe = probe_of(model)
    for name in MODES if wanted == "auto" else [wanted]:
        reason = difference(model, partial(probed, model, MODES[name]), probe, attends=MODES[name].layered)
        if reason is None:
            return MODES[name]
        if wanted != "auto":
            raise UserError(f"engine.mode={name} cannot run {type(model).__name__}: {reason}.")
        log.warning("%s cannot run in mode %s: %s", type(model).__name__, name, reason)
    raise AssertionError("a model equals itself")


def choose_shared(model: CausalLM, over: Ranks) -> Mode:
    """The layered mode, where windows over these ranks equal the model's own forward on a probe, too.

    Raises UserError where it cannot run the model; by itself first, so that all ranks find out together.
    """

    def shared(ids: Tensor, score_from: int) -> Tensor:
        return shared_nll(model, ids, score_from, Stripes.of(ids.shape[1], over.size, PROBE_SHARE), over)

    mode = MODES["layered"]
    probe = probe_of(model)
    reason = difference(model, partial(probed, model, mode), probe) or difference(model, shared, probe)
    if reason is not None:
        raise UserError(f"engine.parallel=context cannot run {type(model).__name__}: {reason}.")
    return mode


def probed(model: CausalLM, mode: Mode, ids: Tensor, score_from: int = 1) -> Tensor:
    """Losses of a short probe (batch, L) from position `score_from` on in a mode, in chunks shorter than the probe."""
    with chunked(model, PROBE_CHUNK, score_from - 1) if mode.layered else nullcontext():
        return token_nll(model, ids, score_from, sliced=mode.sliced)
