"""Two sets of results, before and after: which cells can be compared, and which got worse."""

import json
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from harness.errors import UserError
from harness.logs import progress
from harness.statistics import words
from harness.statistics.by_cell import Sums, by_cell
from harness.statistics.lines import label, tokens
from harness.statistics.metric import PERPLEXITY, Metric
from harness.statistics.paired import cell_table, pair_of
from harness.statistics.summary import DEFAULT, Averaging, Line, check, value_of
from harness.statistics.windows_differ import Windows

Side = Literal["baseline", "candidate"]
Verdict = Literal["same", "better", "worse", "different"]
FAULTS: tuple[Verdict, ...] = ("worse", "different")  # verdicts that fail a comparison

PAIR = ["model", "method", "method_params", "ctx", "protocol", "dataset", "base"]  # what makes two cells the same cell
EXACT = [*PAIR, "protocol_params", "dataset_fingerprint", "dtype"]
_JUDGED = ["before", "after", "ratio", "low", "high", "num_documents", "num_improved", "verdict", "note"]
_ORDER = ["model", "dataset", "protocol", "curve", "ctx"]


class Judgement(NamedTuple):
    """One cell before and after. Without limits and counts where other tokens were scored."""

    before: float  # perplexities, or values of another metric
    after: float
    ratio: float  # paired, after over before; or after less before
    verdict: Verdict
    note: str
    low: float = np.nan
    high: float = np.nan
    num_documents: float = np.nan
    num_improved: float = np.nan


class Comparison(NamedTuple):
    """Compared cells, one line each, and what could not be compared, in words."""

    cells: pd.DataFrame  # identifying columns, before, after, ratio, low, high, num_*, verdict, note
    refused: list[str]
    missing: dict[Side, list[str]]  # by side: cells that only the other side has
    tolerance: float
    metric: Metric = PERPLEXITY

    @property
    def faults(self) -> int:
        """Cells that got worse or are no longer the same measurement."""
        return int(self.cells["verdict"].isin(FAULTS).sum())

    @property
    def exit_code(self) -> int:
        """1: a cell got worse; 2: a cell had to be refused, or there is none to compare; else 0."""
        return 1 if self.faults else 2 if self.refused or self.cells.empty else 0


def compare(
    baseline: pd.DataFrame,
    candidate: pd.DataFrame,
    tolerance: float = 0.001,
    averaging: Averaging = DEFAULT,
    metric: Metric = PERPLEXITY,
) -> Comparison:
    """Pair the cells of two windows tables (or of a metric's rows) and judge each pair.

    A cell is `worse` where the lower limit of the paired ratio of perplexities, after over before, exceeds
    1 + tolerance, `better` where the upper limit is below 1 - tolerance; below five documents, where there are no
    limits, the ratio itself decides. Metrics of which more is better are judged the other way round, those that are
    compared by their difference by that. It is `different` where fingerprints agree and yet other tokens were scored.
    Cells whose documents or protocol parameters differ are refused.
    """
    if not tolerance >= 0:
        raise UserError(f"tolerance must be >= 0 (0.001: a tenth of a per cent), got {tolerance}.")
    sides: dict[Side, pd.DataFrame] = {"baseline": baseline, "candidate": candidate}
    for rows in sides.values():
        check(rows, metric)
    tables = {side: _one_each(cells, side) for side, cells in _by_checkpoint(sides).items()}
    windows = {side: Windows(rows, metric.count) for side, rows in sides.items()}
    sums = {side: by_cell(rows, averaging, metric) for side, rows in sides.items()}

    def differ(old: Line, new: Line) -> str | None:
        return windows["baseline"].differ(old["cell_id"], windows["candidate"], new["cell_id"])

    pairs, refused = _pairs(tables["baseline"], tables["candidate"], differ)
    labels = label(tables["baseline"]).drop_duplicates("cell_id").set_index("cell_id")["curve"]
    lines = []
    for old, new in progress(pairs, "comparing", "cell"):
        before, after = sums["baseline"][old["cell_id"]], sums["candidate"][new["cell_id"]]
        judged = _judge(before, after, differ(old, new), tolerance, averaging, metric)
        judged = judged._replace(note="; ".join(part for part in (judged.note, _changed(old, new)) if part))
        lines.append(
            {column: old[column] for column in PAIR}
            | {"dataset_source": new["dataset_source"], "curve": labels[old["cell_id"]]}
            | judged._asdict()
        )
    seen = pd.DataFrame([old for old, _ in pairs] + [cell for cell, _ in refused], columns=PAIR)
    missing: dict[Side, list[str]] = {
        "candidate": _absent(tables["baseline"], seen),
        "baseline": _absent(tables["candidate"], seen),
    }
    columns = [*PAIR, "dataset_source", "curve", *_JUDGED]
    reasons = [f"{name(cell)}: {reason}" for cell, reason in refused]
    cells = pd.DataFrame(lines, columns=columns).sort_values(_ORDER, ignore_index=True)
    return Comparison(cells, reasons, missing, tolerance, metric)


def name(cell: Line) -> str:
    """A cell in one phrase: reference yarn ctx 2k sliding sotu."""
    params = {key: value for key, value in json.loads(cell["method_params"]).items() if value is not None}
    given = f" {json.dumps(params, sort_keys=True)}" if params else ""
    return f"{cell['model']} {cell['method']}{given} ctx {tokens(cell['ctx'])} {cell['protocol']} {cell['dataset']}"


def _by_checkpoint(sides: dict[Side, pd.DataFrame]) -> dict[Side, pd.DataFrame]:
    """The cells of both sides; models of one name on one side with what they were read from behind their name."""
    tables = {side: cell_table(rows) for side, rows in sides.items()}
    known = [table for table in tables.values() if "model_source" in table]
    namesakes = {key for table in known for key in _several(table, ["model", "model_source"], "model_fingerprint")}
    places = [_placed(table, namesakes) for table in known]
    several = {name for table in places for name in _several(table, ["model"], "place")}
    for table, placed in zip(known, places, strict=True):
        named = table["model"].isin(several) & table["model_source"].notna()
        table.loc[named, "model"] = table["model"] + " (" + placed["place"].astype(str) + ")"
    return tables


def _several(table: pd.DataFrame, by: list[str], what: str) -> list[object]:
    """Values of `by` (one of a single column) with several values of `what`."""
    counts = table.groupby(by if len(by) > 1 else by[0])[what].nunique()
    return list(counts.index[counts > 1])


def _placed(table: pd.DataFrame, namesakes: set[object]) -> pd.DataFrame:
    """With a column `place`: what weights were read from, for namesakes with their folder and revision."""
    return table.assign(
        place=[
            words.placed(line) if (line["model"], line["model_source"]) in namesakes else line["model_source"]
            for line in table.to_dict("records")
        ]
    )


def _one_each(table: pd.DataFrame, side: Side) -> pd.DataFrame:
    twice = table[table.duplicated(EXACT, keep=False)]
    if not twice.empty:
        ids = ", ".join(twice["cell_id"].iloc[:2])
        raise UserError(f"The {side} holds {name(twice.iloc[0].to_dict())} more than once (cells {ids}); keep one.")
    return table


def _pairs(
    old: pd.DataFrame, new: pd.DataFrame, differ: Callable[[Line, Line], str | None]
) -> tuple[list[tuple[Line, Line]], list[tuple[Line, str]]]:
    """Cells to compare, exact matches first; and cells whose counterpart measures something else, with the reason."""
    exact = old.merge(new[[*EXACT, "cell_id"]], on=EXACT, suffixes=("", "_new"))
    old_by_id, new_by_id = _by_id(old), _by_id(new)
    pairs = [(old_by_id[a], new_by_id[b]) for a, b in zip(exact["cell_id"], exact["cell_id_new"], strict=True)]
    rest_old = old[~old["cell_id"].isin(exact["cell_id"])]
    rest_new = new[~new["cell_id"].isin(exact["cell_id_new"])]
    refused = []
    for _, loose in rest_old.merge(rest_new[[*PAIR, "cell_id"]], on=PAIR, suffixes=("", "_new")).groupby("cell_id"):
        before = old_by_id[loose["cell_id"].iloc[0]]
        reasons = {i: _refusal(before, new_by_id[i], differ) for i in loose["cell_id_new"]}
        fitting = [i for i, reason in reasons.items() if reason is None]
        if len(fitting) == 1:
            pairs.append((before, new_by_id[fitting[0]]))
        elif fitting:
            refused.append((before, f"it has {len(fitting)} counterparts of another identity: {', '.join(fitting)}"))
        else:
            refused.append((before, next(reason for reason in reasons.values() if reason is not None)))
    return pairs, refused


def _by_id(table: pd.DataFrame) -> dict[str, Line]:
    return {cell["cell_id"]: cell for cell in table.to_dict("records")}


def _refusal(before: Line, after: Line, differ: Callable[[Line, Line], str | None]) -> str | None:
    """Why two cells measure different things; under other versions of identity the windows say whether documents do."""
    if before["protocol_params"] != after["protocol_params"]:
        return f"its protocol differs: {before['protocol_params']} before, {after['protocol_params']} after"
    if identity_version(before) != identity_version(after):
        reason = differ(before, after)
        return f"its documents differ: {reason}" if reason else None
    if before["dataset_fingerprint"] != after["dataset_fingerprint"]:
        return f"its documents differ: {before['dataset_fingerprint']} before, {after['dataset_fingerprint']} after"
    return None


def _changed(old: Line, new: Line) -> str:
    """What else is not as it was, and yet no reason to refuse."""
    changed = [column for column in ("model_revision", "dtype") if old[column] != new[column]]
    notes = [f"{column} {old[column]} before, {new[column]} after" for column in changed]
    versions = identity_version(old), identity_version(new)
    if versions[0] != versions[1]:
        notes.append(f"identity of version {versions[0]} before, {versions[1]} after: paired by names and parameters")
    return "; ".join(notes)


def identity_version(cell: Line) -> int:
    """Of what its `cell_id` hashes; cells of before there was a second one do not say it."""
    given = cell["identity_version"]
    return 1 if pd.isna(given) else int(given)


def _judge(
    before: Sums, after: Sums, difference: str | None, tolerance: float, averaging: Averaging, metric: Metric
) -> Judgement:
    """Values (perplexities), their paired ratio, and the verdict on one pair; `difference`: of their windows."""
    old, new = (value_of(sums.ratio, averaging.aggregate, metric) for sums in (before, after))
    if difference:
        return Judgement(old, new, new - old if metric.scale == "difference" else new / old, "different", difference)
    ratio = pair_of(before, after, averaging, metric)
    alone = np.isnan(ratio.low)
    low, high = (ratio.ratio, ratio.ratio) if alone else (ratio.low, ratio.high)
    best, worst = sorted((metric.change(low), metric.change(high)))
    verdict: Verdict = "worse" if best > tolerance else "better" if worst < -tolerance else "same"
    note = "too few documents for an interval" if alone else ""
    return Judgement(
        old, new, ratio.ratio, verdict, note, ratio.low, ratio.high, ratio.num_documents, ratio.num_improved
    )


def _absent(table: pd.DataFrame, seen: pd.DataFrame) -> list[str]:
    keys = set(seen[PAIR].itertuples(index=False, name=None))
    return [name(cell) for cell in table.to_dict("records") if tuple(cell[column] for column in PAIR) not in keys]
