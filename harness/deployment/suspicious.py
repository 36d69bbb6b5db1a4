"""What looks wrong in declared rope settings: one check a mistake that people make."""

from collections.abc import Callable, Iterator

from harness.deployment.declared import Declared
from harness.deployment.recognise import is_ntk_fixed
from harness.deployment.settings import WITH_ORIGINAL, RopeSettings
from harness.methods.base import RopeGeometry
from harness.models.checkpoint.families import LATENT_ROTARY_DIM

BASES = (10_000.0, 500_000.0, 1_000_000.0)  # of training, before anything is scaled: most, Llama 3, Qwen and Mistral
CLOSE = 0.01  # relative: two numbers that are meant to be the same
QUERY_SCALE = {"ministral3": "llama_4_scaling_beta", "mistral4": "llama_4_scaling_beta"}  # a rope parameter
GGUF_QUERY_SCALE = ("llama4", "mistral3", "mistral4")  # architectures that read attention.temperature_scale
GGUF_LATENT = ("deepseek2", "deepseek32")  # read rope.scaling.yarn_log_multiplier

Trained = RopeGeometry | None  # of the model that the settings are for, where it is known
Check = Callable[[Declared, RopeSettings, Trained], Iterator[str]]


def looks_wrong(declared: Declared, trained: Trained = None) -> list[str]:
    """Every mistake that the settings look like, in words; `trained`: the model before any scaling, where known."""
    settings = declared.settings()
    return [f"{name}: {said}" for name, check in CHECKS.items() for said in check(declared, settings, trained)]


def _factor_twice(declared: Declared, settings: RopeSettings, trained: Trained) -> Iterator[str]:
    yield from declared.doubled
    factor, original, maximum = settings.factor, declared.original, declared.max_position_embeddings
    if factor and factor > 1 and original and maximum and _is_close(maximum, original * factor**2):
        yield f"max_position_embeddings {maximum} is {original} x {factor:g} x {factor:g}; once would be enough."


def _original_missing(declared: Declared, settings: RopeSettings, trained: Trained) -> Iterator[str]:
    if settings.rope_type in WITH_ORIGINAL and declared.original is None:
        yield (
            f"rope_type {settings.rope_type} has no original_max_position_embeddings: transformers and llama.cpp take "
            f"max_position_embeddings ({declared.max_position_embeddings}) for it, vLLM stops."
        )


def _theta_and_factor(declared: Declared, settings: RopeSettings, trained: Trained) -> Iterator[str]:
    factor, theta = settings.factor or 1.0, settings.rope_theta
    if settings.rope_type == "default" or factor <= 1 or is_ntk_fixed(settings, trained):
        return
    known = BASES if trained is None else (trained.rope_theta,)
    if trained is not None and theta > trained.rope_theta * (1 + CLOSE):
        yield f"rope_theta is {theta:g}, {trained.rope_theta:g} in training, and factor {factor:g} scales on top of it."
        return
    dims = declared.rotary_dim or 128
    for base in known:
        raised = (base * factor ** (dims / (dims - 2)), base * factor)
        if dims > 2 and theta not in BASES and any(_is_close(theta, value) for value in raised):
            yield f"rope_theta {theta:g} is {base:g} raised for factor {factor:g}, and factor scales on top of it."
            return


def _already_extended(declared: Declared, settings: RopeSettings, trained: Trained) -> Iterator[str]:
    factor, maximum = settings.factor or 1.0, declared.max_position_embeddings
    if factor <= 1 or is_ntk_fixed(settings, trained):
        return
    original = declared.original
    known = trained.original_max_position_embeddings if trained else original
    if settings.rope_type in ("linear", "dynamic") and known and maximum and maximum > known:
        yield (
            f"max_position_embeddings {maximum} is beyond the trained {known}: under {settings.rope_type} vLLM and "
            f"SGLang multiply it by factor once more ({maximum * factor:g})"
            + (", and transformers scales beyond it only." if settings.rope_type == "dynamic" else ".")
        )
    if settings.rope_type in WITH_ORIGINAL and original and known and original > known:
        yield f"original_max_position_embeddings {original} is beyond the trained {known}."


def _softmax_factor(declared: Declared, settings: RopeSettings, trained: Trained) -> Iterator[str]:
    given = (declared.number("mscale"), declared.number("mscale_all_dim"))
    if (given[0] is None) != (given[1] is None):
        yield f"mscale {given[0]} and mscale_all_dim {given[1]}: one without the other is ignored."
    if declared.kind == "GGUF":
        if declared.model_type in GGUF_LATENT and settings.rope_type == "yarn" and not given[1]:
            yield "yarn on multi-latent attention without rope.scaling.yarn_log_multiplier: its softmax scale stays."
        return
    if given[1] and declared.model_type and LATENT_ROTARY_DIM not in declared.beside:
        yield (
            f"mscale_all_dim {given[1]:g} takes the temperature from cos and sin for a softmax scale that gives it "
            f"back; {declared.model_type} does not change its softmax scale."
        )


def _query_scale(declared: Declared, settings: RopeSettings, trained: Trained) -> Iterator[str]:
    kind, beside = declared.model_type, declared.beside
    if beside.get("use_logn_attn"):
        yield "use_logn_attn is set: no engine here scales queries by log n; they drop it without a word."
    if kind in QUERY_SCALE and settings.rope_type != "default" and QUERY_SCALE[kind] not in declared.rope:
        yield f"{kind} scales queries by position; without {QUERY_SCALE[kind]} among the rope parameters it does not."
    if kind.startswith("llama4") and beside.get("attn_temperature_tuning") in (False, 0):
        yield "attn_temperature_tuning is off: Llama 4 scales queries by position where it does not rotate them."
    needed = f"{kind}.attention.temperature_scale"
    scaled = declared.kind == "GGUF" and kind in GGUF_QUERY_SCALE and settings.rope_type != "default"
    if scaled and needed not in beside:
        yield f"{kind} scales queries by position; without {needed} it does not."


def _lengths(declared: Declared, settings: RopeSettings, trained: Trained) -> Iterator[str]:
    factor, original, maximum = settings.factor, declared.original, declared.max_position_embeddings
    if settings.rope_type == "yarn" and factor and original and maximum:  # Llama 3.1 itself goes beyond factor
        reach = original * factor
        if maximum > reach * (1 + CLOSE) and not _is_close(maximum, original * factor**2):
            yield f"max_position_embeddings {maximum} is beyond {original} x {factor:g} = {reach:g}."
    for name in ("short_factor", "long_factor"):
        values = getattr(settings, name)
        if values is not None and declared.rotary_dim and len(values) != declared.rotary_dim // 2:
            yield f"{name} has {len(values)} numbers, {declared.rotary_dim // 2} frequencies need one each."


def _is_close(one: float, other: float) -> bool:
    return abs(one - other) <= CLOSE * abs(other)


CHECKS: dict[str, Check] = {
    "factor applied twice": _factor_twice,
    "original length missing": _original_missing,
    "theta and factor both raised": _theta_and_factor,
    "length already extended": _already_extended,
    "mscale_all_dim without its softmax factor": _softmax_factor,
    "position scale of queries dropped": _query_scale,
    "lengths do not fit": _lengths,
}
