"""Methods that change attention, proved where the answer is known: regions that count the true distances."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from harness.errors import UserError
from harness.methods.attention.base import AttentionMethod
from harness.methods.attention.regions import Region, far, near, positions
from harness.methods.base import RopeFrequencies, RopeGeometry
from harness.models.attention import by_regions
from harness.models.attention.shortened import fixed_reach
from harness.models.checkpoint.geometry import text_config
from harness.models.parts import CausalLM
from harness.models.probe import LONGEST, PROBE_LENGTH, difference, probe_of

NEAR = 7  # tokens, longer than a shortened window and shorter than a probe


class TrueDistances(AttentionMethod):
    """Direct extrapolation, written as two regions."""

    name: ClassVar[str] = "true distances"

    def regions(self, length: int) -> tuple[Region, ...]:
        """Keys fewer than NEAR tokens back, and all others, at their true distance; arrays of (length,)."""
        return near(length, NEAR), far(length, NEAR, positions(length), positions(length))

    def limit(self, geometry: RopeGeometry) -> int | None:
        """Never asked for."""
        return None


def check_regions(model: CausalLM, trained: int | None = None, passed: set[int | None] | None = None) -> None:
    """Raise UserError, by name, where attention in regions is not the attention that a model computes itself.

    Regions that count the true distances are compared with the model's own attention under the same frequencies, on a
    probe that sees every window, chunk and top-k: what a family does to masks, scores or weights must hold in both.
    That holds for every method and length: `passed` keeps the `trained` lengths with which this model has passed.
    """
    if passed is not None and trained in passed:
        return

    def nll(ids: Tensor, score_from: int) -> Tensor:
        with by_regions.applied(model, TrueDistances(), ids.shape[1], trained):
            logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
        losses = cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        return losses.view(len(ids), -1)[:, score_from - 1 :]

    with torch.inference_mode():
        with _unscaled(model, trained):
            probe = probe_of(model)
        reason = difference(model, nll, probe)
    if reason is not None:
        name, why = text_config(model.config).model_type, reason.rpartition("since ")[2]
        raise UserError(f"{name}: methods that change attention cannot run on it, since {why}.")
    if passed is not None:
        passed.add(trained)


@contextmanager
def _unscaled(model: CausalLM, trained: int | None) -> Iterator[None]:
    """Until the block ends, the model's own attention rotates as attention in regions does."""
    sources = by_regions.sources(model, trained)
    longest = LONGEST + 2 * fixed_reach(model) + PROBE_LENGTH
    with ExitStack() as stack:
        for rotary in {id(source.rotary): source.rotary for source in sources}.values():
            wanted = {
                one.layer_type: (one.geometry, [RopeFrequencies(one.geometry.inv_freq, one.declared_scaling)])
                for one in sources
                if one.rotary is rotary
            }
            stack.enter_context(rotary.rotated(wanted, longest))
        yield
