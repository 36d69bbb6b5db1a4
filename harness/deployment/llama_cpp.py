"""llama.cpp: flags of llama-server and its kin, and metadata of a GGUF file.

Looked up in llama.cpp as it comes with llama-cpp-python 0.3.36: `common/arg.cpp` (flags), `src/llama-context.cpp`
(what they become), `src/llama-model.cpp` (keys), `ggml/src/ggml-cpu/ops.cpp` (`rope_yarn`), `src/models/*.cpp` (which
architecture loads what), `tools/server/server-context.cpp`; names of keys are those of gguf 0.19. Frequencies can be
any in a GGUF with a tensor `rope_freqs.weight`, which angles are divided by. Under yarn `--yarn-attn-factor` is
computed anew and has no effect: the key `rope.scaling.attn_factor` multiplies 0.1 ln(factor) + 1. The betas' keys are
read by few architectures, their flags by all. The server caps a context at the key `context_length` unless yarn
raises it. Corners of yarn are always rounded. Nothing follows the length of a prompt.
"""

from harness.deployment.express import Expression, attention_scaling, rescale_factors
from harness.deployment.gguf_file import TENSOR, Key, Metadata
from harness.deployment.settings import RopeSettings
from harness.deployment.spelling import Spelling, as_json, command, common_notes, match_of
from harness.deployment.target import Target
from harness.methods.frequency.yarn import temperature

ARCHITECTURES = {"mistral": "llama", "mixtral": "llama", "llama4_text": "llama4", "gpt_neox": "gptneox", "phi": "phi2"}
FACTOR_TENSOR = (  # load rope_freqs.weight, one for all layers
    "apertus", "arcee", "deci", "exaone", "exaone4", "falcon-h1", "granite", "granitemoe", "llada", "llama", "llama4",
    "minicpm", "mistral3", "refact",
)  # fmt: skip


def spell(expression: Expression, target: Target) -> Spelling:
    """Flags where they suffice, and keys."""
    arch = architecture(target)
    notes = list(common_notes(expression, target))
    if target.windows:
        notes.append("model.sliding_window is no flag of llama.cpp: the file's own attention window stays.")
    if target.is_latent:
        note = f"{target.model_type} has multi-latent attention, whose scaling in llama.cpp was not looked up."
        return Spelling("llama_cpp", "no", (), (note, *notes))
    lines = []
    flags = flags_of(expression.settings, target, arch)
    if flags is not None:
        lines.append(command("llama-server", "-m", "MODEL.gguf", *flags))
    if flags is None and arch not in FACTOR_TENSOR:
        notes.insert(0, f"architecture {arch} loads no tensor {TENSOR}, and flags know none, linear and yarn only.")
        return Spelling("llama_cpp", "no", (), tuple(notes))
    if flags is not None and arch not in FACTOR_TENSOR and _needs_tensor(expression.settings):
        return Spelling("llama_cpp", match_of(expression), tuple(lines), tuple(notes))
    metadata = metadata_of(expression, target, arch)
    lines.append(f"GGUF keys: {as_json(metadata.keys)}")
    if metadata.factors is not None:
        lines.append(f"GGUF tensor {TENSOR} (float32): {as_json(list(metadata.factors))}")
        notes.append("output=DIR with a model in GGUF (model.gguf_file) writes the file with this tensor.")
    return Spelling("llama_cpp", match_of(expression), tuple(lines), tuple(notes))


def architecture(target: Target) -> str:
    """What llama.cpp calls the kind of model: as its GGUF file says, otherwise as conversion names most of them."""
    return target.architecture or ARCHITECTURES.get(target.model_type, target.model_type)


def flags_of(settings: RopeSettings, target: Target, arch: str) -> list[str] | None:
    """Flags for a file whose metadata say nothing of scaling; None where flags do not suffice."""
    base = [] if settings.rope_theta == target.geometry.rope_theta else ["--rope-freq-base", repr(settings.rope_theta)]
    start = ["-c", str(target.ctx)]
    limit = ["--override-kv", f"{arch}.context_length=int:{target.ctx}"]
    if settings.rope_type == "default":
        return [*start, "--rope-scaling", "none", *base, *limit]
    if settings.rope_type == "linear":
        return [*start, "--rope-scaling", "linear", "--rope-scale", repr(settings.factor), *base, *limit]
    if settings.rope_type != "yarn" or settings.truncate is False or settings.mscale is not None:
        return None
    flags = [*start, "--rope-scaling", "yarn", "--rope-scale", repr(settings.factor), *base]
    flags += ["--yarn-orig-ctx", str(settings.original_max_position_embeddings)]
    flags += ["--yarn-beta-fast", repr(settings.beta_fast)] if settings.beta_fast is not None else []
    flags += ["--yarn-beta-slow", repr(settings.beta_slow)] if settings.beta_slow is not None else []
    if settings.attention_factor is not None:
        flags += ["--override-kv", f"{arch}.rope.scaling.attn_factor=float:{_beside_yarn(settings):.8g}"]
    return flags


def metadata_of(expression: Expression, target: Target, arch: str) -> Metadata:
    """Keys, named by the gguf package, and the tensor of factors where keys do not suffice."""
    from gguf import Keys

    settings, rope = expression.settings, Keys.Rope
    keys: dict[str, Key] = {
        Keys.LLM.CONTEXT_LENGTH: target.ctx,
        rope.FREQ_BASE: settings.rope_theta,
        rope.SCALING_TYPE: "none",
    }
    factors = None
    if _needs_tensor(settings):
        keys[rope.FREQ_BASE] = target.geometry.rope_theta
        keys[rope.SCALING_ATTN_FACTOR] = attention_scaling(expression.frequencies)
        keys[rope.SCALING_ORIG_CTX_LEN] = target.geometry.original_max_position_embeddings
        factors = tuple(rescale_factors(target.geometry, expression.frequencies).tolist())
    elif settings.factor is not None:
        keys[rope.SCALING_TYPE], keys[rope.SCALING_FACTOR] = settings.rope_type, settings.factor
    if settings.rope_type == "yarn" and factors is None:
        keys[rope.SCALING_ORIG_CTX_LEN] = target.geometry.original_max_position_embeddings
        keys[rope.SCALING_ATTN_FACTOR] = _beside_yarn(settings)
    return Metadata({name.format(arch=arch): value for name, value in keys.items()}, factors)


def _needs_tensor(settings: RopeSettings) -> bool:
    if settings.rope_type in ("default", "linear"):
        return False
    plain = settings.beta_fast is None and settings.beta_slow is None and settings.truncate is None
    return settings.rope_type != "yarn" or not plain or settings.mscale is not None


def _beside_yarn(settings: RopeSettings) -> float:
    """What is left of the attention scaling beside 0.1 ln(factor) + 1, which llama.cpp computes itself."""
    assert settings.factor is not None
    usual = temperature(settings.factor)
    return (usual if settings.attention_factor is None else settings.attention_factor) / usual
