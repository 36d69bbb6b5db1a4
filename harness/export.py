"""``python -m harness.export``: a method, or the best of measured ones, as the settings of an engine."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from harness import cli
from harness.errors import UserError, unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.deployment.express import Expression
    from harness.deployment.spelling import Spelling
    from harness.deployment.target import Target
    from harness.deployment.winner import Choice
    from harness.methods.base import Method
    from harness.models.checkpoint.spec import ModelSpec
    from harness.statistics.intervals import Interval


KINDS: dict[str, Any] = {  # of the keys of conf/export.yaml
    **dict.fromkeys(("best", "together", "aggregate"), str),
    **dict.fromkeys(
        ("to", "output", "results_dir", "evaluator_results", "dataset", "protocol", "experiment"), str | None
    ),
    **dict.fromkeys(("ctx", "near"), int | None),
    "evaluator": list | str,
    "order": int,
    "confidence": float,
    "method": dict,
}


def main() -> None:
    """Print what each engine needs, and write a checkpoint that needs nothing more where one is asked for."""
    cli.run_app(_task, "export")


def _task(composed: DictConfig) -> None:
    from harness.config.checks import check_kinds, place, plain, section
    from harness.deployment.engines import ENGINES
    from harness.deployment.express import express
    from harness.models.checkpoint.spec import ModelSpec

    values = plain(composed)
    check_kinds(values, KINDS)
    if values["to"] is not None and values["to"] not in ENGINES:
        raise unknown("engine", str(values["to"]), ENGINES)
    ctx = values["ctx"]
    if ctx is not None and (type(ctx) is not int or ctx < 2):
        raise UserError(f"ctx must be an integer >= 2 (tokens), got {ctx!r}.")
    spec = section(ModelSpec, values, "model")
    choice = None
    if values["results_dir"] is not None:
        choice, method, scaled, target = _winner(values, spec)
    else:
        method, scaled, target = _given(values, spec)
    if values["output"] is not None and spec.gguf_file is None:
        target = replace(target, model=str(values["output"]))
    print("\n".join([*_head(method, scaled, target), *_cache(choice, values), ""]))
    if method.kind == "native":
        _native(scaled, values["output"], target)
        return
    expression = express(method, target.geometry, target.ctx, scaled_queries=scaled, all_rotate=target.all_rotate)
    if expression.lost:
        print("\n".join([*_cost(choice, expression, target), ""]))
    for engine, spell in ENGINES.items():
        if values["to"] in (None, engine):
            print("\n".join(_section(spell(expression, target))))
    if values["output"] is not None:
        print(f"written  {_written(values['to'], spec, expression, target, place(values, 'output'))}")


def _native(scaled: bool, output: object, target: "Target") -> None:
    if output is not None:
        raise UserError("export: method=native is what the checkpoint declares already; there is nothing to write.")
    print(f"native is the checkpoint's own scaling: every engine reads it; set its length limit to {target.ctx}.")
    if scaled:
        print("not expressible: scaling of queries by position (method.query_scale).")


def _given(values: dict[str, Any], spec: "ModelSpec") -> "tuple[Method, bool, Target]":
    """The method that the command line names."""
    from harness import methods
    from harness.config.schema import method_spec
    from harness.deployment.target import Target, ctx_of
    from harness.methods.modifiers.resonance import Resonant

    named = method_spec(values["method"])
    constructed = methods.construct(named.name, named.params)
    trained = Target.of(spec, 2).geometry.original_max_position_embeddings
    factor = constructed.factor if constructed.kind == "frequency" else None
    target = Target.of(spec, ctx_of(factor, trained, values["ctx"]))
    method = constructed.resolved(target.geometry, target.ctx)
    return (Resonant(method=method) if named.resonance else method), named.query_scale is not None, target


def _winner(values: dict[str, Any], spec: "ModelSpec") -> "tuple[Choice, Method, bool, Target]":
    """The best method of the results, with what the pick is worth printed."""
    from harness.config.checks import folder, group
    from harness.config.metric import chosen_metric
    from harness.deployment.target import Target
    from harness.deployment.winner import check_known, choose, method_of
    from harness.results import store
    from harness.statistics.summary import Averaging

    if values["ctx"] is None:
        raise UserError("export: results_dir=... needs ctx=..., the length (tokens) at which the best is picked.")
    if values["method"].get("name") != "none":
        raise UserError("export: give either method=... or results_dir=..., from which the method is picked.")
    metric, options = chosen_metric({**values, "metric": values["best"]})
    averaging = Averaging(values["aggregate"], values["confidence"])
    rows = metric.rows(partial(store.load_results, folder(values, "results_dir")), options)
    filters = {name: wanted for name, wanted in group(values, "where").items() if wanted is not None}
    choice = choose(rows, metric, values["ctx"], spec.name, filters, averaging)
    target = Target.of(spec, values["ctx"])
    print("\n".join([*_pick(choice, averaging.confidence), *_favoured(choice, options.evaluators), ""]))
    check_known(choice.cell)
    method, scaled = method_of(choice.cell, target.geometry)
    return choice, method, scaled, target


def _pick(choice: "Choice", confidence: float) -> list[str]:
    """What was picked by which metric, and whether the documents tell it from the next."""
    from harness.statistics.text import number

    value, metric = choice.value, choice.metric
    lines = [
        f"best by {metric.title} at ctx {choice.cell['ctx']}: {choice.cell['curve']} {number(value.value)}"
        f"{_limits(value, '.4g')} ({100 * confidence:g} % over documents)"
    ]
    if choice.counted is not None:
        lines.append(f"counted are {choice.counted}")
    if not choice.rivals:
        return [*lines, "there is no other cell to compare it with."]
    following = choice.rivals[0]
    compared = "less it" if metric.scale == "difference" else "over it"
    phrase = (
        f"{following.cell['curve']}, {compared} {following.against_best.value:.4f}"
        f"{_limits(following.against_best, '.4f')}, paired on the same documents ({metric.neutral:g}: alike)"
    )
    if following.is_separated:
        return [*lines, f"separated from the next: {phrase}."]
    same = ", ".join(str(rival.cell["curve"]) for rival in choice.inseparable)
    return [*lines, f"NOT separated from the next: {phrase}.", f"not told apart on these documents: {same}."]


def _favoured(choice: "Choice", evaluators: "Sequence[str]") -> list[str]:
    """That the picked method chose the tokens by which it was picked."""
    cell = choice.cell
    if choice.metric.name != "longppl" or not {cell["method"], f"{cell['model']}/{cell['method']}"} & set(evaluators):
        return []
    return [f"{cell['method']} is an evaluator itself, which favours it: see what another one picks (evaluator=...)."]


def _limits(interval: "Interval", shown: str) -> str:
    if interval.low != interval.low:
        return " (too few documents for an interval)"
    return f" [{interval.low:{shown}}, {interval.high:{shown}}]"


def _head(method: "Method", scaled: bool, target: "Target") -> list[str]:
    from harness.deployment.engines import VERSIONS
    from harness.deployment.words import described

    geometry = target.geometry
    return [
        f"method   {described(method)}{', queries scaled by position' if scaled else ''}",
        f"model    {target.model}: rotary_dim {geometry.rotary_dim}, rope_theta {geometry.rope_theta:g}, trained at "
        f"{geometry.original_max_position_embeddings} tokens; for windows of up to {target.ctx}",
        "looked up in " + ", ".join(f"{engine} {version}" for engine, version in VERSIONS.items()),
    ]


def _cache(choice: "Choice | None", values: dict[str, Any]) -> list[str]:
    """What rounded keys and values, which the method was measured or asked with, are in an engine."""
    from harness.deployment.words import cache_note

    given = values["method"] if choice is None else json.loads(choice.cell["method_params"])
    return [cache_note(given["kv_cache"])] if given.get("kv_cache") else []


def _cost(choice: "Choice | None", expression: "Expression", target: "Target") -> list[str]:
    """What the nearest method costs, where the results hold it beside the one that was picked."""
    from harness.deployment.winner import measured
    from harness.deployment.words import described

    assert expression.nearest is not None, "what is lost has a nearest"
    near = described(expression.nearest)
    found = None if choice is None else measured(choice, expression.nearest, target.geometry)
    if found is None:
        return [f"nearest  {near}: what it costs is not measured (results_dir=... with a cell of it at this ctx does)"]
    compared = found.against_best
    what = f"{compared.value:.4f}{_limits(compared, '.4f')}"
    return [f"nearest  {near}: {what} of what was picked, measured on the same documents"]


def _section(spelling: "Spelling") -> list[str]:
    lines = [f"  {line}" for line in spelling.lines]
    notes = [f"  note: {note}" for note in spelling.notes]
    return [f"{spelling.engine}: {spelling.match}", *lines, *notes, ""]


def _written(to: str | None, spec: "ModelSpec", expression: "Expression", target: "Target", output: Path) -> Path:
    from harness.deployment import checkpoint

    if spec.gguf_file is not None:
        if to not in (None, "llama_cpp"):
            raise UserError(
                f"output of to={to}: the model's weights are in GGUF, which is written for llama_cpp alone."
            )
        return checkpoint.write_gguf(spec, expression, target, output)
    if to == "llama_cpp":
        raise UserError("output of to=llama_cpp needs a model in GGUF (model.gguf_file); this one has none.")
    if not target.declared:
        raise UserError(f"{target.model_type} has no rope_parameters: there is no config.json to write.")
    return checkpoint.write(spec, expression, target, output)


if __name__ == "__main__":
    from harness.export import main as imported  # nothing that Hydra looks up may live in __main__

    imported()
