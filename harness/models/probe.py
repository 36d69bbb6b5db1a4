"""Random tokens that a model's own forward and other ways of computing are compared on.

A way of computing is exact where it equals the model's own forward while everything that limits what attention sees is
shorter than the probe, and where it lies nearer to that than to the forward of a model without the limit.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from harness.errors import UserError, first_line, one_line
from harness.models.attention.shortened import SHORT, fixed_reach, shortened
from harness.models.checkpoint.families import WINDOW_FIELDS
from harness.models.checkpoint.geometry import text_config
from harness.models.checkpoint.sliding_window import EVERYTHING, limits, no_window
from harness.models.parts import CausalLM, vocabulary
from harness.models.positions import last_position
from harness.models.swap import swapped

log = logging.getLogger(__name__)

# Mean difference that a probe may show, in nats a token. Half precision: two orders of the same sums differ by 0.07 on
# an 8B model with random weights, whose losses are all near ln(vocabulary).
TOLERANCE = {torch.float32: 1e-4, torch.float16: 0.05, torch.bfloat16: 0.15}
FUTURE_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}  # of a changed token's own effect; halves round more
HALF_FUTURE_TOLERANCE = 3e-2
PROBE_LENGTH, PROBE_FROM = 24, (1, 11)  # tokens of a probe; the first scored position
LONGEST = 1024  # tokens of a probe of what cannot be shortened
FAILURES = (AttributeError, LookupError, TypeError, RuntimeError, ValueError)

NLL = Callable[[Tensor, int], Tensor]  # ids (batch, length), score_from -> losses (batch, length - score_from)


@dataclass(frozen=True)
class Probe:
    """Tokens, and what the model itself makes of them."""

    ids: Tensor  # (2, length)
    own: Tensor  # losses (2, length - 1), float32, every limit of attention SHORT
    without: dict[str, Tensor] = field(default_factory=dict)  # by limit: losses of the model without this one
    unseen: dict[str, int] = field(default_factory=dict)  # limits, in tokens, too long to be seen on these tokens


@torch.inference_mode()
def probe_of(model: CausalLM) -> Probe:
    """A probe that sees every limit of the model's attention: on all of them shortened, or else long enough.

    A limit acts where the model's losses change by shortening it. One that does not is spanned by a longer probe; one
    that is too long for that stays unseen. Raises UserError where two forwards of the same tokens differ.
    """
    long = {name: length for name, length in limits(text_config(model.config)).items() if length > SHORT}
    probe = _seeing(model, long, 2 * fixed_reach(model) + PROBE_LENGTH)
    length = 2 * max(probe.unseen.values(), default=0) + PROBE_LENGTH
    if probe.unseen and length <= min(LONGEST + PROBE_LENGTH, last_position(model) or LONGEST + PROBE_LENGTH):
        probe = replace(_seeing(model, long, length), unseen={})
    if _apart(_losses(model, probe.ids, {}), probe.own) > TOLERANCE.get(model.dtype, TOLERANCE[torch.float32]):
        raise UserError(f"{type(model).__name__} gives other losses each time: its forward draws random numbers.")
    if not probe.own.isfinite().any():
        log.warning("%s: every loss of the probe is NaN or infinite, nothing to compare", type(model).__name__)
    return probe


def _seeing(model: CausalLM, long: dict[str, int], length: int) -> Probe:
    ids = _tokens(model, length)
    own = _losses(model, ids, {})
    without = {name: _losses(model, ids, {name: limit}) for name, limit in long.items()}
    felt = {name: losses for name, losses in without.items() if not torch.equal(losses, own)}
    return Probe(ids, own, felt, {name: limit for name, limit in long.items() if name not in felt})


def difference(model: CausalLM, nll: NLL, probe: Probe, *, attends: bool = True) -> str | None:
    """Why losses by `nll` do not equal those of the model's own forward on a probe; None where they do.

    Over both rows of the probe and over one, from the first position and from a later one. `attends`: `nll` brings
    attention of its own, so that it must be seen to respect every limit.
    """
    if attends and probe.unseen:
        name, length = next(iter(probe.unseen.items()))
        return f"{name} ({length} tokens) is too long to be proved on a probe"
    for rows, score_from in ((2, PROBE_FROM[0]), (2, PROBE_FROM[1]), (1, PROBE_FROM[0])):
        scored = (slice(rows), slice(score_from - 1, None))
        try:
            with shortened(model):
                got = nll(probe.ids[:rows], score_from)
        except FAILURES as error:
            return _why(error)
        expected = probe.own[scored]
        if not expected.isfinite().any():
            return None
        found = _apart(got, expected)
        if not found <= TOLERANCE.get(model.dtype, TOLERANCE[torch.float32]):
            return f"losses differ by {found:.3g} nats a token"
        lost = [name for name, other in probe.without.items() if _apart(got, other[scored]) < found]
        if lost:
            return f"losses are those of a model without {lost[0]}"
    return None


def _why(error: Exception) -> str:
    """What stopped a forward: in our words, or in those of a family's code that asked for something else."""
    if isinstance(error, UserError) or type(error) is LookupError:
        return first_line(error).removesuffix(".")
    said = one_line(error) if first_line(error).endswith(":") else first_line(error)
    return f"its layers stop with {type(error).__name__}: {said.removesuffix('.')}"


@torch.inference_mode()
def check_causal(model: CausalLM) -> None:
    """Raise UserError where what a model predicts depends on tokens that come later.

    By forwards that differ in the last token, or in the second half of them.
    """
    ids = _tokens(model, PROBE_LENGTH)[:1]
    try:
        before = model(input_ids=ids, use_cache=False).logits[0].float()
    except torch.OutOfMemoryError:
        raise
    except FAILURES as error:
        raise UserError(
            f"{type(model).__name__} cannot score text from its tokens alone: {first_line(error)}"
        ) from error
    for begin in (PROBE_LENGTH - 1, PROBE_LENGTH // 2):
        other = ids.clone()
        other[:, begin:] = (other[:, begin:] + 1) % vocabulary(model)
        moved = (model(input_ids=other, use_cache=False).logits[0].float() - before).abs()
        earlier, own = (part[part.isfinite()].mean() for part in (moved[:begin], moved[begin:]))
        if earlier > FUTURE_TOLERANCE.get(model.dtype, HALF_FUTURE_TOLERANCE) * own:
            raise UserError(
                f"{type(model).__name__} is no causal language model: what it predicts depends on later tokens."
            )


@torch.inference_mode()
def check_window(model: CausalLM, tokens: int) -> None:
    """Raise UserError where a window of so many tokens that was set in a model's configuration changes nothing."""
    ids = _tokens(model, PROBE_LENGTH)
    short, all_seen = (_losses(model, ids, dict.fromkeys(WINDOW_FIELDS.values(), n)) for n in (SHORT, EVERYTHING))
    if torch.equal(short, all_seen):
        raise no_window(text_config(model.config), tokens)


@torch.inference_mode()
def check_attention(model: CausalLM) -> None:
    """Raise UserError where the attention that a model was loaded with gives other losses than transformers' choice.

    Rows and identities do not say which it was, since it does not matter where it is right.
    """
    text = text_config(model.config)
    asked, usual = text._attn_implementation, model.get_correct_attn_implementation(None)
    if asked == usual:
        return
    ids = _tokens(model, PROBE_LENGTH)
    found = _losses(model, ids, {})
    with swapped(text, "_attn_implementation", usual):
        apart = _apart(found, _losses(model, ids, {}))
    if not apart <= TOLERANCE.get(model.dtype, TOLERANCE[torch.float32]):
        raise UserError(
            f"engine.attention={asked} gives other losses than {usual}, which transformers chooses for "
            f"{type(model).__name__} ({apart:.3g} nats a token on a probe); leave it at auto."
        )


def _tokens(model: CausalLM, length: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, vocabulary(model), (2, length), generator=generator).to(model.device)


def _losses(model: CausalLM, ids: Tensor, tokens: Mapping[str, int]) -> Tensor:
    """Losses (rows, length - 1) of the model's own forward, its limits as in `tokens` and otherwise shortened."""
    with shortened(model, tokens):
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    return cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(len(ids), -1)


def _apart(some: Tensor, others: Tensor) -> float:
    """Mean absolute difference where `others` are finite; NaN where `some` are not."""
    finite = others.isfinite()
    return float((some - others)[finite].abs().mean())
