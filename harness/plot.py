"""``python -m harness.plot``: figures from finished cells or from papers' numbers; nothing is computed again."""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from harness import cli
from harness.config.metric import chosen_metric
from harness.errors import UserError, unknown

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from harness.figures.source import Source


KINDS: dict[str, Any] = {  # of the keys of conf/plot.yaml
    **dict.fromkeys(("figure", "metric", "together", "x", "hue", "aggregate", "baseline"), str),
    "formats": list,
    "evaluator": list | str,
    **dict.fromkeys(("evaluator_results", "name"), str | None),
    **dict.fromkeys(("order", "seed"), int),
    **dict.fromkeys(("confidence", "tolerance"), float),
    "columns": list | str | None,
    "near": int | None,
    "last": bool,
    "where": dict | None,
    "published": dict,
}


KINDS_PUBLISHED: dict[str, Any] = {
    **dict.fromkeys(("published.paper", "published.table", "published.dataset"), str | None),
    "published.overlay": bool,
    "published.tokenizers": dict,
}


def main() -> None:
    """Compose conf/plot.yaml, draw, and print tables and paths."""
    offer_papers()
    cli.run_app(task, "plot")


def offer_papers() -> None:
    """Make the config group `published` of the papers that there are."""
    from harness import published

    store = ConfigStore.instance()
    for paper in ["none", *published.papers()]:
        chosen = {"paper": None if paper == "none" else paper, "table": None, "dataset": None, "overlay": False}
        store.store(group="published", name=paper, node=chosen | {"tokenizers": {}})


def task(composed: DictConfig) -> None:
    """Draw what the configuration asks for. Raises UserError for anything that cannot be drawn."""
    from harness.config.checks import check_kinds, place, plain
    from harness.figures import files
    from harness.statistics.format_names import beside, check_format

    values = plain(composed)
    for key in ("columns", "formats"):
        values[key] = [values[key]] if isinstance(values[key], str) else values[key]
    check_kinds(values, KINDS)
    check_kinds({f"published.{key}": value for key, value in values["published"].items()}, KINDS_PUBLISHED)
    values["where"] = values["where"] or {}
    files.check_formats(values["formats"])
    values["format"] = check_format(values["format"])
    chosen = values["published"] = {"paper": None, "table": None, "dataset": None} | values["published"]
    if chosen["paper"] is not None and not chosen["overlay"]:
        drawn = {f"published-{chosen['paper']}": _published(chosen)}
    else:
        drawn = _measured(values)
    for name, figure in drawn.items():
        stem = place(values, "plots_dir") / (values["name"] if values["name"] and len(drawn) == 1 else name)
        for path in files.save(figure, stem, values["formats"]):
            print(f"figure   {path}", file=beside(values["format"]))


def _published(chosen: dict[str, Any]) -> "Figure":
    from harness import published
    from harness.figures.published import paper

    return paper(published.select(chosen["paper"], chosen["table"], chosen["dataset"]))


def _measured(values: dict[str, Any]) -> dict[str, "Figure"]:
    """The figures by name; what stands beside one as text is printed."""
    from harness.figures import FIGURES
    from harness.figures.canvas import Layout

    wanted, chosen = values["figure"], values["published"]
    if wanted not in (*FIGURES, "all"):
        raise unknown("figure", str(wanted), [*FIGURES, "all"])
    names = list(FIGURES) if wanted == "all" else [wanted]
    source = _source(values).by_needles()
    metric = source.metric
    layout = Layout(values["x"], values["hue"], values["columns"])
    if "perplexity" in names:
        _print_table(source, values)
        layout = replace(layout, under=_overlay(source.summary, chosen) if chosen["overlay"] else None)
    if chosen["overlay"] and metric.name != "perplexity":
        raise UserError(f"published.overlay=true lies under metric=perplexity only, got metric={metric.name}.")
    elif chosen["overlay"] and "perplexity" not in names:
        raise UserError(f"published.overlay=true lies under figure=perplexity only, got figure={wanted}.")
    drawn = {}
    for name in names:
        try:
            drawn[_file(name, metric.name)] = FIGURES[name].figure(source, layout)
        except UserError as error:
            if wanted != "all":
                raise
            print(f"not drawn: {name}: {error}")
    return drawn


def _source(values: dict[str, Any]) -> "Source":
    """The tables of the selected cells."""
    from harness.config.checks import place
    from harness.figures.source import Source
    from harness.results.selection import Selection, around, fitting, load
    from harness.statistics.summary import Averaging

    averaging = Averaging(values["aggregate"], values["confidence"], values["seed"])
    metric, choice = chosen_metric(values)

    selection, results = Selection(values["where"], bool(values["last"])), place(values, "results_dir")
    if choice.judge is None and values["where"].get("model") is not None:  # the evaluator may be another model
        choice = replace(choice, judge=partial(load, results))
    return Source(
        partial(load, results, selection=selection), averaging, values["baseline"], metric, choice,
        partial(load, results, selection=around(selection)),
        partial(fitting, results=results, table="windows", selection=selection),
    )  # fmt: skip


def _file(figure: str, metric: str) -> str:
    """What a figure's files are called: of another metric than perplexity with its name."""
    from harness.statistics.metrics import named

    alone = figure == "long_context" or (figure == "position" and not named(metric).of_positions)
    if metric == "perplexity" or alone:
        return figure
    return metric if figure == "perplexity" else f"{figure}-{metric}"


def _print_table(source: "Source", values: dict[str, Any]) -> None:
    """The metric by method and length, with ratios to the baseline, the best, and how far each line holds."""
    from harness.statistics.decision import Terms, decide
    from harness.statistics.divergence_text import divergence_text
    from harness.statistics.format_names import beside
    from harness.statistics.formats import formatted

    terms = Terms(source.averaging, source.metric, source.baseline, values["tolerance"])
    print(formatted(decide(source.measured, terms), values["format"]))
    if source.metric.name == "kl":
        print("\n" + divergence_text(source.divergences, source.averaging), file=beside(values["format"]))
    print(file=beside(values["format"]))


def _overlay(summary: "pd.DataFrame", chosen: dict[str, Any]) -> "pd.DataFrame":
    """The comparable published lines; the others are named with the reason. None comparable is an error."""
    from harness import published
    from harness.published import overlay

    if chosen["paper"] is None:
        raise UserError("published.overlay=true needs a paper: published=yarn, published=pi, ...")
    rows = published.select(chosen["paper"], chosen["table"], chosen["dataset"])
    fitting, refused = overlay.comparable(summary, rows, overlay.TOKENIZERS | chosen["tokenizers"])
    if fitting.empty:
        raise UserError("No published line may lie under the measured ones: " + "; ".join(refused) + ".")
    for reason in refused:
        print(f"not laid under: {reason}")
    return fitting


if __name__ == "__main__":
    from harness import plot  # Hydra looks the task up by its module, which may not be __main__

    plot.main()
