"""SGLang: `--json-model-override-args` with the configuration's rope parameters, and `--context-length`.

Looked up in SGLang 0.5.23, `srt/layers/rotary_embedding/factory.py` (`get_rope`) with `yarn.py` and `rope_variant.py`,
`srt/configs/model_config.py` (`_derive_context_length`) and `srt/utils/hf_transformers/common.py`
(`get_context_length`): a longer --context-length than derived is refused; linear and dynamic multiply
max_position_embeddings by `factor`, types with an original length do not. yarn reads no attention_factor but
`attn_factor`, a multiplier of 0.1 ln(factor) + 1. "dynamic" is fixed at start, at factor^2 - factor + 1. longrope
reads `short_mscale` and `long_mscale`, no attention_factor; its switch looks at the positions of a batch, so that both
lists are written alike. Models that read `rope_scaling` get the same dictionary: with transformers 5 it is an alias.
"""

from harness.deployment.express import Expression, attention_scaling
from harness.deployment.settings import Parameters, RopeSettings
from harness.deployment.spelling import Spelling, as_json, command, common_notes, match_of
from harness.deployment.target import Target
from harness.methods.frequency.yarn import temperature

MSCALES = ("mscale", "mscale_all_dim")  # would count once more beside attn_factor


def spell(expression: Expression, target: Target) -> Spelling:
    """The command that serves the model so."""
    if not target.declared or target.is_latent:
        what = "multi-latent attention" if target.is_latent else "rotations from tables"
        note = f"{target.model_type} has {what}, whose scaling in SGLang was not looked up."
        return Spelling("sglang", "no", (), (note, *common_notes(expression, target)))
    settings = expression.settings
    overrides = as_json(target.overrides(parameters(settings, expression), settings))
    line = command(
        "python", "-m", "sglang.launch_server", "--model-path", target.model,
        "--json-model-override-args", overrides, "--context-length", str(target.ctx),
    )  # fmt: skip
    notes = list(common_notes(expression, target))
    if settings.rope_type == "longrope":
        notes.append("longrope in SGLang rotates halves (NeoX style) only: models that rotate neighbours are refused.")
    return Spelling("sglang", match_of(expression), (line,), tuple(notes))


def parameters(settings: RopeSettings, expression: Expression) -> Parameters:
    """The settings in SGLang's words."""
    given = settings.parameters()
    scaling = attention_scaling(expression.frequencies)
    if settings.rope_type == "longrope":
        given = {name: value for name, value in given.items() if name not in ("attention_factor", "factor")}
        return {**given, "short_mscale": scaling, "long_mscale": scaling}
    if settings.rope_type == "yarn" and settings.attention_factor is not None:
        assert settings.factor is not None
        given = {name: value for name, value in given.items() if name not in ("attention_factor", *MSCALES)}
        return {**given, "attn_factor": scaling / temperature(settings.factor)}
    return given
