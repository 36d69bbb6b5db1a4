"""``python -m harness.theory``: the methods, and where theory says that they break on a model."""

import itertools
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from harness import cli
from harness.errors import UserError, unknown
from harness.methods import METHODS, RopeGeometry
from harness.models.checkpoint.spec import ModelSpec

if TYPE_CHECKING:
    import pandas as pd

WIDTH = 100  # columns of a terminal


def main() -> None:
    """Print the table of methods; with a model and a length, its bounds, and draw the spectrum.

    With `config`, a checkpoint's or an engine's settings: which method they are, what it does, and what looks wrong.
    """
    cli.run_app(_task, "theory")


def _task(composed: DictConfig) -> None:
    from harness.config.checks import check_kinds, place, plain, section
    from harness.figures import files, spectrum
    from harness.scaling_laws import bounds

    values = plain(composed)
    check_kinds(values, {"ctx": int | None, "methods": list | None, "params": dict | None, "config": str | None})
    values["params"] = values["params"] or {}
    if values["config"] is not None:
        print(_declared(place(values, "config"), values.get("model")))
        return
    names = _names(values["methods"])
    if values.get("model") is None and values["ctx"] is None:
        table = bounds.methods_table()
        shown = table[table["method"].isin(names)].rename(columns={"depends_on_length": "by length"})
        print(f"{_narrow(shown)}\n\nby length: whether frequencies, or what attention does, change with the window")
        return
    if values.get("model") is None or values["ctx"] is None:
        raise UserError("theory: give both model=... and ctx=..., or neither for the table of methods.")
    ctx = values["ctx"]
    if type(ctx) is not int or ctx < 2:
        raise UserError(f"ctx must be an integer >= 2 (tokens), got {ctx!r}.")
    if values["methods"] is None:
        names = list(bounds.OF_ROTARY_MODELS)
    geometry = _geometry(section(ModelSpec, values, "model"))
    print(report(geometry, ctx, names, values["params"]))
    table = bounds.spectrum(geometry, ctx, names, values["params"])
    if table.empty:
        return  # no method named has frequencies of its own to draw
    for path in files.save(spectrum.draw(table, geometry, ctx), place(values, "plots_dir") / "spectrum"):
        print(path)


def _declared(path: Path, model: dict[str, Any] | None) -> str:
    """What the settings in a file are; `model`: the one that they are for, as it was trained."""
    from harness.deployment import declared, reading

    trained = None if model is None else _geometry(ModelSpec(**model))
    return reading.report(declared.read(path), path, trained)


def _names(given: Sequence[str] | None) -> list[str]:
    names = list(METHODS) if given is None else [str(name) for name in given]
    for name in names:
        if name not in METHODS:
            raise unknown("method", name, METHODS)
    return names


def _geometry(spec: ModelSpec) -> RopeGeometry:
    from harness.models.checkpoint import load  # imports torch

    geometry = load.load_geometry(spec)
    if geometry is None:
        raise UserError(f"model {spec.name} has no rotary embedding: the theory has nothing to say of it.")
    return geometry


def report(geometry: RopeGeometry, ctx: int, names: list[str], params: dict[str, Any]) -> str:
    """What the theory says of a model in words, then of each method in a table; lengths in tokens."""
    from harness.scaling_laws import base_bound, bounds

    trained = geometry.original_max_position_embeddings
    critical = bounds.critical_dimension(geometry.inv_freq, trained)
    small = bounds.small_bases(ctx)
    lines = [
        f"rotary_dim {geometry.rotary_dim}, rope_theta {geometry.rope_theta:g}, trained at {trained}, asked for {ctx}",
        f"critical dimension {critical}: {geometry.rotary_dim - critical} channels never complete a turn in training",
        f"fine-tuned at {ctx}: bases above {bounds.critical_base(geometry, ctx):.0f} extrapolate beyond it,"
        f"\nand small ones: {small.quarter:.0f}, {small.half:.0f}, {small.whole:.0f} (arXiv:2310.05209)",
    ]
    smallest = base_bound.smallest_base(geometry, ctx)
    found = "none reaches that far" if smallest is None else f"{smallest:.0f} is the first to reach that far"
    lines.append(f"base bound at {ctx} (arXiv:2405.14591): of 20 bases a decade {found}")
    table = bounds.table(geometry, ctx, names, params)
    shown = table.assign(**{name: table[name].map(write) for name, write in _FORMATS.items()})
    shown = shown.drop(columns=[] if shown["note"].any() else "note").rename(columns=_HEADINGS)
    return "\n".join([*lines, "", _narrow(shown), "", *_LEGEND])


def _narrow(table: "pd.DataFrame") -> str:
    """A table of at most WIDTH columns: the widest texts are wrapped. The last column has what the others leave."""
    rows = [list(table.columns), *table.astype(str).to_numpy().tolist()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    while sum(widths) + 2 * (len(widths) - 1) > WIDTH:
        widths[widths.index(max(widths))] -= 1
    lines = []
    for row in rows:
        cells = [textwrap.wrap(cell, width) for cell, width in zip(row, widths, strict=True)]
        for parts in itertools.zip_longest(*cells, fillvalue=""):
            lines.append("  ".join(part.ljust(width) for part, width in zip(parts, widths, strict=True)).rstrip())
    return "\n".join(lines)


def _whole(value: float | None) -> str:
    import pandas as pd

    return "" if pd.isna(value) else f"{value:.0f}"


def _short(value: float | None) -> str:
    import pandas as pd

    return "" if pd.isna(value) else f"{value:g}"


_FORMATS: dict[str, Callable[[float | None], str]] = {
    "factor": _short,
    "tuned_dimension": _whole,
    "extrapolation_bound": _whole,
    "trained_range_bound": _whole,
    "base_bound": _whole,
}
_HEADINGS = {
    "critical_dimension": "critical",
    "tuned_dimension": "tuned",
    "extrapolation_bound": "extrapolates",
    "trained_range_bound": "in range",
    "base_bound": "base bound",
}
_LEGEND = (
    "critical      channels that complete a turn within the trained length: the critical dimension",
    "tuned         channels that complete a turn within ctx under the method: fine-tuning sees those",
    "extrapolates  tokens that a model fine-tuned with these frequencies should reach",
    "in range      tokens up to which a model as trained meets trained angles (positions) only",
    "base bound    tokens, at most ctx, up to which a key like the query outscores a random one",
)


if __name__ == "__main__":
    from harness.theory import main as imported  # nothing that Hydra looks up may live in __main__

    imported()
