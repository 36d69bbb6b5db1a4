"""``python -m harness.plot``: figures from finished cells or from papers' numbers; nothing is computed again."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from harness import cli
from harness.errors import UserError, unknown

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def main() -> None:
    """Compose conf/plot.yaml, draw, and print tables and paths."""
    from harness import published

    store = ConfigStore.instance()
    for paper in ["none", *published.papers()]:
        chosen = {"paper": None if paper == "none" else paper, "table": None, "dataset": None, "overlay": False}
        store.store(group="published", name=paper, node=chosen | {"tokenizers": {}})
    cli.run_app(task, "plot")


def task(composed: DictConfig) -> None:
    """Draw what the configuration asks for. Raises UserError for anything that cannot be drawn."""
    from harness.config.checks import plain
    from harness.figures import curves as figures

    values = plain(composed)
    if values["columns"] is not None and not isinstance(values["columns"], list):
        values["columns"] = [values["columns"]]
    figures.check_formats(values["formats"])
    chosen = values["published"]
    if chosen["paper"] is not None and not chosen["overlay"]:
        drawn = {f"published-{chosen['paper']}": _published(chosen)}
    else:
        drawn = _measured(values)
    for name, figure in drawn.items():
        stem = Path(values["plots_dir"]).expanduser() / (values["name"] if values["name"] and len(drawn) == 1 else name)
        for path in figures.save(figure, stem, values["formats"]):
            print(f"figure   {path}")


def _published(chosen: dict[str, Any]) -> "Figure":
    from harness import published
    from harness.figures import curves as figures

    return figures.published(published.select(chosen["paper"], chosen["table"], chosen["dataset"]))


@dataclass(frozen=True)
class Source:
    """The cells to draw from, and how to average them."""

    values: dict[str, Any]

    def load(self, table: str = "windows") -> "pd.DataFrame":
        """Rows of a table under `results_dir` that fit `where`."""
        from harness.results import store

        rows = store.load_results(Path(self.values["results_dir"]).expanduser(), table)
        for column, wanted in self.values["where"].items():
            if wanted is not None:
                kept = rows[rows[column].isin(wanted if isinstance(wanted, list) else [wanted])]
                if kept.empty:
                    raise unknown(f"{column} (where.{column})", str(wanted), rows[column].dropna().astype(str).unique())
                rows = kept
        return rows

    @property
    def averaging(self) -> dict[str, Any]:
        """Aggregate, confidence and seed, as the statistics take them."""
        return {name: self.values[name] for name in ("aggregate", "confidence", "seed")}


def _measured(values: dict[str, Any]) -> dict[str, "Figure"]:
    wanted = values["figure"]
    if wanted not in (*KINDS, "all"):
        raise unknown("figure", str(wanted), [*KINDS, "all"])
    source = Source(values)
    return {name: KINDS[name](source) for name in (KINDS if wanted == "all" else [wanted])}


def _perplexity(source: Source) -> "Figure":
    from harness.figures import curves as figures
    from harness.statistics import paired as contrasts
    from harness.statistics import summary as statistics

    values, rows = source.values, source.load()
    summary = statistics.summarize(rows, **source.averaging)
    print(statistics.table(summary) + "\n")
    if summary["ctx"].nunique() > 1:
        kept = contrasts.effective_context_length(rows, values["tolerance"], **source.averaging)
        print(contrasts.effective_text(kept) + "\n")
    under = _overlay(summary, values["published"]) if values["published"]["overlay"] else None
    return figures.perplexity(summary, values["x"], values["hue"], values["columns"], under)


def _overlay(summary: "pd.DataFrame", chosen: dict[str, Any]) -> "pd.DataFrame":
    """The comparable published lines; the others are named with the reason. None comparable is an error."""
    from harness import published

    if chosen["paper"] is None:
        raise UserError("published.overlay=true needs a paper: published=yarn, published=pi, ...")
    rows = published.select(chosen["paper"], chosen["table"], chosen["dataset"])
    fitting, refused = published.comparable(summary, rows, published.TOKENIZERS | chosen["tokenizers"])
    if fitting.empty:
        raise UserError("No published line may lie under the measured ones: " + "; ".join(refused) + ".")
    for reason in refused:
        print(f"not laid under: {reason}")
    return fitting


def _ratio(source: Source) -> "Figure":
    from harness.figures import curves as figures
    from harness.statistics import paired as contrasts

    values = source.values
    pairs = contrasts.paired(source.load(), values["baseline"], **source.averaging)
    return figures.ratio(pairs, values["x"], values["hue"], values["columns"])


def _position(source: Source) -> "Figure":
    from harness.figures import curves as figures
    from harness.statistics import summary as statistics

    values = source.values
    losses = statistics.loss_by_position(source.load("positions"), values["confidence"], values["seed"])
    return figures.position(losses, values["hue"], values["columns"])


def _heatmap(source: Source) -> "Figure":
    from harness.figures import curves as figures
    from harness.statistics import summary as statistics

    values = source.values
    return figures.heatmap(statistics.summarize(source.load(), **source.averaging), values["hue"], values["columns"])


KINDS: dict[str, Callable[[Source], "Figure"]] = {
    "perplexity": _perplexity,
    "position": _position,
    "ratio": _ratio,
    "heatmap": _heatmap,
}

if __name__ == "__main__":
    from harness.plot import main as imported  # Hydra looks the task up by its module, which may not be __main__

    imported()
