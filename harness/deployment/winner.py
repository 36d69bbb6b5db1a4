"""Which method to deploy: the best cell of a length by a stated metric, and whether it is separated from the next."""

import json
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import pandas as pd

from harness import methods
from harness.errors import UserError
from harness.methods.base import Method, RopeGeometry
from harness.methods.modifiers.resonance import Resonant
from harness.statistics.intervals import Interval
from harness.statistics.lines import PANEL, label
from harness.statistics.metric import NOTE, Metric
from harness.statistics.paired import cell_table, pair
from harness.statistics.summary import Averaging, check, document_ratios, perplexity, together

Cell = dict[Hashable, Any]  # what identifies a cell, by column
UNKNOWN_TO_ENGINES = ("layers", "remove_query_scale")  # modifiers


class Rival(NamedTuple):
    """Another cell beside the best."""

    cell: Cell
    value: Interval
    against_best: Interval  # paired on the same documents: a quotient, or a difference as the metric says
    is_separated: bool


class Choice(NamedTuple):
    """The best cell, and how sure that is."""

    metric: Metric
    cell: Cell
    value: Interval
    rivals: tuple[Rival, ...]  # from the next best to the worst
    counted: str | None = None  # which tokens the metric counts, and how many; None: all that were scored

    @property
    def inseparable(self) -> tuple[Rival, ...]:
        """Those that the documents do not tell from the best."""
        return tuple(rival for rival in self.rivals if not rival.is_separated)


def choose(
    rows: pd.DataFrame, metric: Metric, ctx: int, model: str, filters: Mapping[str, str], averaging: Averaging
) -> Choice:
    """The best cell of `model` at `ctx` tokens by a metric; rows: the metric's.

    `filters`: values of columns that cells must have (dataset, protocol). Raises UserError where no cell fits, and
    where cells of several panels do.
    """
    check(rows, metric)
    cells = _comparable(label(cell_table(rows)).drop_duplicates("cell_id"), ctx, {"model": model, **filters})
    by_id = {str(name): of_cell for name, of_cell in rows.groupby("cell_id")}
    values = {name: _value(by_id[name], averaging, metric) for name in cells["cell_id"]}
    sign = -1 if metric.higher_is_better else 1
    ranked = sorted(cells.to_dict("records"), key=lambda cell: (sign * values[cell["cell_id"]].value, cell["cell_id"]))
    first, *others = ranked
    rivals = [_rival(metric, by_id, first, other, values[other["cell_id"]], averaging) for other in others]
    return Choice(metric, first, values[first["cell_id"]], tuple(rivals), _counted(by_id[first["cell_id"]]))


def _counted(rows: pd.DataFrame) -> str | None:
    if NOTE not in rows:
        return None
    return f"{rows[NOTE].iloc[0]}: {rows['num_scored'].sum()} in {rows['document'].nunique()} documents"


def _value(rows: pd.DataFrame, averaging: Averaging, metric: Metric) -> Interval:
    return perplexity(
        together([document_ratios(rows, averaging.aggregate, metric)], averaging, metric), averaging, metric
    )


def check_known(cell: Cell) -> None:
    """Raise UserError where a cell ran with what no engine has a setting for."""
    for key, value in json.loads(cell["method_params"]).items():
        if key in UNKNOWN_TO_ENGINES:
            value = str(value).lower()
            raise UserError(
                f"export: the best cell, {cell['curve']}, ran with method.{key}={value}: no engine has that."
            )


def method_of(cell: Cell, geometry: RopeGeometry) -> tuple[Method, bool]:
    """The method that a cell ran, resolved, and whether queries were scaled by their position."""
    params = json.loads(cell["method_params"])
    resonance = params.pop("resonance", False)
    for key in ("kv_cache", *UNKNOWN_TO_ENGINES):  # for the first engines have a flag of their own
        params.pop(key, None)
    scaled_queries = params.pop("logn", False) or params.pop("query_scale", None) is not None
    made = methods.build(cell["method"], params, geometry, int(cell["ctx"]))
    return (Resonant(method=made) if resonance else made), scaled_queries


def measured(choice: Choice, nearest: Method, geometry: RopeGeometry) -> Rival | None:
    """The rival that runs exactly this method and scales no queries: what it costs is its comparison with the best."""
    found = (rival for rival in choice.rivals if _is_plain(rival.cell, nearest, geometry))
    return next(found, None)


def _is_plain(cell: Cell, method: Method, geometry: RopeGeometry) -> bool:
    beside = {"kv_cache", *UNKNOWN_TO_ENGINES} & set(json.loads(cell["method_params"]))
    return not beside and method_of(cell, geometry) == (method, False)


def _rival(
    metric: Metric, by_id: Mapping[str, pd.DataFrame], first: Cell, other: Cell, value: Interval, averaging: Averaging
) -> Rival:
    compared = pair(by_id[first["cell_id"]], by_id[other["cell_id"]], averaging, metric)
    limits = Interval(compared.ratio, compared.low, compared.high)
    known = limits.low == limits.low  # NaN: too few documents
    return Rival(other, value, limits, known and not limits.low <= metric.neutral <= limits.high)


def _comparable(cells: pd.DataFrame, ctx: int, wanted: Mapping[str, str]) -> pd.DataFrame:
    """The cells of one panel at one length; UserError that says what there is instead."""
    for column, value in wanted.items():
        found = cells[cells[column] == value]
        if found.empty:
            raise UserError(f"no cell with {column}={value} in the results; they hold {_listed(cells[column])}.")
        cells = found
    lengths = cells[cells["ctx"] == ctx]
    if lengths.empty:
        raise UserError(f"no cell at ctx={ctx} in the results; they hold ctx {_listed(cells['ctx'])}.")
    apart = [name for name in PANEL if lengths[name].nunique(dropna=False) > 1]
    if apart:
        what = "; ".join(f"{name} {_listed(lengths[name])}" for name in apart)
        raise UserError(f"cells of one kind can be compared only; at ctx={ctx} these differ: {what}.")
    return lengths


def _listed(values: pd.Series) -> str:
    return ", ".join(str(value) for value in sorted(values.unique(), key=str))
