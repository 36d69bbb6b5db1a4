"""Declared settings in words: which method they are, what it does at which length, and what looks wrong."""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from harness.deployment.declared import Declared
from harness.deployment.recognise import geometry_of, recognise
from harness.deployment.settings import RopeSettings
from harness.deployment.suspicious import looks_wrong
from harness.deployment.words import described
from harness.errors import UserError
from harness.methods.base import Method, RopeGeometry
from harness.methods.frequency.abf import Abf
from harness.methods.frequency.ntk_fixed import NtkFixed
from harness.statistics.lines import tokens

NOTHING = "nothing looks wrong"


def report(declared: Declared, path: Path, trained: RopeGeometry | None = None) -> str:
    """Everything in lines to print; `trained`: the model that the settings are for, before any scaling."""
    if trained is not None and declared.rotary_dim is None:
        declared = replace(declared, rotary_dim=trained.rotary_dim)
    settings = declared.settings()
    method = recognise(settings, declared.max_position_embeddings, trained or _own(declared))
    lines = [
        f"config   {path} ({declared.kind}{f', {declared.model_type}' if declared.model_type else ''})",
        f"method   {described(method)}",
        f"model    {_model(declared, settings, trained)}",
        "",
        *_effect(declared, settings, method, trained),
        "",
    ]
    wrong = looks_wrong(declared, trained)
    return "\n".join([*lines, *(f"looks wrong  {said}" for said in wrong), *([] if wrong else [NOTHING])])


def _own(declared: Declared) -> RopeGeometry | None:
    """The model as the file itself declares it, its base as it stands there."""
    if declared.rotary_dim is None:
        return None
    return RopeGeometry(
        rotary_dim=declared.rotary_dim,
        rope_theta=declared.rope_theta,
        original_max_position_embeddings=declared.original or declared.max_position_embeddings or 2,
    )


def _model(declared: Declared, settings: RopeSettings, trained: RopeGeometry | None) -> str:
    dims = declared.rotary_dim or (trained.rotary_dim if trained else None)
    said = {
        "rotary_dim": dims,
        "rope_theta": f"{settings.rope_theta:g}",
        "original length": declared.original,
        "max_position_embeddings": declared.max_position_embeddings,
    }
    return ", ".join(f"{name} {'not said' if value is None else value}" for name, value in said.items())


def _effect(declared: Declared, settings: RopeSettings, method: Method, trained: RopeGeometry | None) -> list[str]:
    """What cos and sin, and the first, middle and last frequency, are multiplied and divided by, window by window."""
    dims = declared.rotary_dim or (trained.rotary_dim if trained else None)
    known = declared.original or (trained.original_max_position_embeddings if trained else None)
    length = known or declared.max_position_embeddings
    if dims is None or length is None:
        return ["what they do is not known without the size of a head and the trained length: give model=... as well."]
    if trained is not None and trained.rotary_dim != dims:
        raise UserError(f"the settings are for rotary_dim {dims}, the model has {trained.rotary_dim}.")
    scaled = trained if trained is not None and isinstance(method, Abf | NtkFixed) else _own(declared)
    scaled = scaled or geometry_of(settings, dims, length)
    rows = [_at(trained or scaled, scaled, method, one) for one in _lengths(declared, method, length)]
    table = pd.DataFrame(rows).to_string(index=False, justify="left")
    return [f"{_switching(method)}; by the length of a window:", *table.splitlines()]


def _at(unscaled: RopeGeometry, scaled: RopeGeometry, method: Method, length: int) -> dict[str, str]:
    frequencies = method.resolved(scaled, length)(scaled, length)
    divided = unscaled.inv_freq / frequencies.inv_freq
    shown = {"first": divided[0], "middle": divided[len(divided) // 2], "last": divided[-1]}
    return {
        "tokens": tokens(length),
        "cos and sin times": f"{frequencies.attention_scaling:.4f}",
        **{f"{name} frequency divided by": f"{value:.4g}" for name, value in shown.items()},
    }


def _lengths(declared: Declared, method: Method, trained: int) -> list[int]:
    reach = round(trained * (method.factor or 1))
    ends = {trained // 2, trained, 2 * trained, reach, declared.max_position_embeddings or trained}
    return sorted(length for length in ends if length >= 2)


def _switching(method: Method) -> str:
    if method.depends_on_length:
        return "transformers follows the length of the window; vLLM, SGLang and llama.cpp fix one scaling at start"
    return "unscaled" if method.name == "none" else "the same at every length: short prompts are scaled as well"
