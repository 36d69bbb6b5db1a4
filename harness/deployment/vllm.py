"""vLLM: `--hf-overrides` with the configuration's rope parameters, and `--max-model-len`.

Looked up in vLLM 0.33.0, `model_executor/layers/rotary_embedding/` (`get_rope` and its classes) and `config/model.py`
(`_get_and_verify_max_len`): a longer --max-model-len than max_position_embeddings is refused; linear and dynamic
multiply that by `factor`, yarn, llama3 and longrope do not. yarn has positions below original length x factor only.
longrope takes the long list whenever --max-model-len exceeds the original length, reads `short_mscale` and
`long_mscale` and no attention_factor, and rotates halves (NeoX style) only. "dynamic" with `factor` is fixed at start
and without `max_trained_positions` scales nothing, so that dynamic methods are written as a base. `factor` must be
written with a decimal point: linear takes a whole number for a list.
"""

from harness.deployment.express import Expression, attention_scaling
from harness.deployment.settings import Parameters, RopeSettings
from harness.deployment.spelling import Spelling, as_json, command, common_notes, match_of
from harness.deployment.target import Target


def spell(expression: Expression, target: Target) -> Spelling:
    """The command that serves the model so."""
    if not target.declared or target.is_latent:
        what = "multi-latent attention" if target.is_latent else "rotations from tables"
        note = f"{target.model_type} has {what}, whose scaling in vLLM was not looked up."
        return Spelling("vllm", "no", (), (note, *common_notes(expression, target)))
    settings = expression.settings
    overrides = as_json(target.overrides(parameters(settings, expression), settings))
    line = command("vllm", "serve", target.model, "--hf-overrides", overrides, "--max-model-len", str(target.ctx))
    notes = [*common_notes(expression, target), *_notes(settings, target)]
    return Spelling("vllm", match_of(expression), (line,), tuple(notes))


def parameters(settings: RopeSettings, expression: Expression) -> Parameters:
    """The settings in vLLM's words."""
    given = settings.parameters()
    if settings.rope_type == "longrope":
        given = {name: value for name, value in given.items() if name not in ("attention_factor", "factor")}
        scaling = attention_scaling(expression.frequencies)
        return {**given, "short_mscale": scaling, "long_mscale": scaling}
    return given


def _notes(settings: RopeSettings, target: Target) -> list[str]:
    if settings.rope_type == "longrope":
        return ["longrope in vLLM rotates halves (NeoX style) only: models that rotate neighbours are refused."]
    reach = round((settings.original_max_position_embeddings or 0) * (settings.factor or 1))
    if settings.rope_type == "yarn" and target.ctx > reach:
        return [
            f"vLLM's yarn has positions below {reach} (original length x factor) only, fewer than ctx={target.ctx}."
        ]
    return []
