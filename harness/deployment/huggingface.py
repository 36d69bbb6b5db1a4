"""transformers: `rope_parameters` of config.json, and `rope_scaling` of versions before 5.0.

Looked up in transformers 5.23.0, `modeling_rope_utils.py`: ROPE_INIT_FUNCTIONS, `standardize_rope_params`,
`dynamic_rope_update`. Any frequencies at all are a longrope with equal lists: inv_freq / factor, times
`attention_factor`. "dynamic" grows with the longest window seen and shrinks only for windows within the trained length,
so that a window between the two is scaled by the longest before it; our method scales each by its own length.
"""

from harness.deployment.express import Expression, rescaled
from harness.deployment.settings import RopeSettings
from harness.deployment.spelling import Spelling, as_json, common_notes, match_of
from harness.deployment.target import Target

LONGROPE_ONLY = ("phi3", "phi4_multimodal")  # their configurations refuse every other type


def spell(expression: Expression, target: Target) -> Spelling:
    """The configuration's part on rotations."""
    if not target.declared:
        note = f"{target.model_type} looks rotations up in tables that its configuration does not scale."
        return Spelling("transformers", "no", (), (note, *common_notes(expression, target)))
    settings = settings_for(expression, target)
    switches = expression.by_length is not None and settings == expression.by_length
    lines = [
        f'"rope_parameters": {as_json(target.rope_parameters(settings.parameters()))}',
        f'"max_position_embeddings": {target.max_positions(settings)}',
    ]
    if target.main is None:
        lines.append(f'before 5.0: "rope_theta": {settings.rope_theta!r}, "rope_scaling": {as_json(settings.older())}')
    notes = list(common_notes(expression, target, switches=switches))
    if settings.rope_type == "dynamic":
        notes.append(
            "transformers scales by the longest window seen so far, down again only within the trained length: load "
            "the model anew, or keep to one length, where windows differ."
        )
    return Spelling("transformers", match_of(expression, switches=switches), tuple(lines), tuple(notes))


def settings_for(expression: Expression, target: Target) -> RopeSettings:
    """What transformers is to read: the switching type where it has one."""
    settings = expression.by_length or expression.settings
    if target.model_type in LONGROPE_ONLY and settings.rope_type not in ("default", "longrope"):
        return rescaled(target.geometry, expression.frequencies, target.ctx)
    if settings.truncate is False and target.main is not None:  # read beside the layer types, not inside them
        return rescaled(target.geometry, expression.frequencies, target.ctx)
    return settings
