"""From windows to numbers: perplexity with intervals, paired differences, effective context length, slope.

Works on the tidy table of windows (one row a window); knows no files and draws nothing. The document is the
sampling unit everywhere; windows that were sampled carry their weight, and the spread that sampling adds
within a document is part of the spread between documents that the intervals measure.
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from harness.errors import UserError, unknown
from harness.statistics import lines as curves
from harness.statistics.intervals import Array, Interval, interval

AGGREGATES = ("token", "window", "document", "mean_of_perplexities")
CELL = [
    "cell_id", "experiment", "model", "model_revision", "method", "method_params", "factor",
    "original_max_position_embeddings", "ctx", "protocol", "protocol_params", "stride", "dataset",
    "dataset_fingerprint", "dtype",
]  # fmt: skip
DOCUMENT = ["document_index", "document"]


class Ratios(NamedTuple):
    """Per document and cell: the ratio of sums is log perplexity, or perplexity itself if `log`."""

    numerator: Array  # (documents, cells)
    denominator: Array  # (documents, cells)
    log: bool  # the ratio is a perplexity, so its logarithm is what is combined


def summarize(rows: pd.DataFrame, aggregate: str = "token", confidence: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """One line a cell: what identifies it, perplexity with interval, counts, bits per byte.

    rows: the windows table. aggregate: `token` exp(sum nll / sum tokens), `window` exp of the mean of
    window means, `document` exp of the mean of document means, `mean_of_perplexities` the mean of the
    documents' perplexities. `low` and `high` are NaN below five documents; `sampled` says that only some
    windows were scored.
    """
    check(rows, aggregate, confidence)
    lines = [_line(cell, aggregate, confidence, seed) for _, cell in rows.groupby("cell_id", sort=False, dropna=False)]
    order = ["model", "dataset", "protocol", "protocol_params", "method", "method_params", "ctx", "cell_id"]
    return pd.DataFrame(lines).sort_values(order, ignore_index=True, kind="stable")


def _line(cell: pd.DataFrame, aggregate: str, confidence: float, seed: int) -> dict[Any, Any]:
    ratios = Ratios(*_columns(document_ratios(cell, aggregate)), log=aggregate == "mean_of_perplexities")
    estimate = perplexity(ratios, confidence, seed)
    nll = (cell["weight"] * cell["nll_sum"]).sum()
    num_bytes = (cell["weight"] * cell["num_bytes"]).sum()
    return {
        **cell.iloc[0][CELL].to_dict(),
        "aggregate": aggregate,
        "confidence": confidence,
        "perplexity": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "num_documents": len(ratios.numerator),
        "num_windows": len(cell),
        "num_scored": int(cell["num_scored"].sum()),
        "bits_per_byte": nll / np.log(2) / num_bytes if num_bytes > 0 else np.nan,
        "sampled": bool((cell["weight"] != 1).any()),
    }


def perplexity(ratios: Ratios, confidence: float, seed: int = 0) -> Interval:
    """Perplexity of one cell with its limits, formed on the logarithm so that they stay positive."""
    estimate = interval(ratios.numerator, ratios.denominator, log=ratios.log, confidence=confidence, seed=seed)
    return Interval(*(float(np.exp(bound)) for bound in estimate))


def point(cell: pd.DataFrame, aggregate: str) -> float:
    """Perplexity of one cell alone, without an interval."""
    sums = document_ratios(cell, aggregate).sum()
    ratio = float(sums["numerator"] / sums["denominator"])
    return ratio if aggregate == "mean_of_perplexities" else float(np.exp(ratio))


def check(rows: pd.DataFrame, aggregate: str, confidence: float) -> None:
    """Raise UserError for an unknown aggregate, a bad confidence, no rows, or losses that are no numbers."""
    if aggregate not in AGGREGATES:
        raise unknown("aggregate", aggregate, AGGREGATES)
    if not 0 < confidence < 1:
        raise UserError(f"confidence must lie between 0 and 1, got {confidence}.")
    if rows.empty:
        raise UserError("There are no results to summarise: the table of windows is empty.")
    bad = rows[~np.isfinite(rows["nll_sum"]) | (rows["num_scored"] < 1) | ~(rows["weight"] > 0)]
    if not bad.empty:
        row = bad.iloc[0]
        raise UserError(
            "Every window needs a finite nll_sum, num_scored >= 1 and weight > 0; "
            f"document {row['document']!r} window {row['window']} has nll_sum {row['nll_sum']}, "
            f"num_scored {row['num_scored']}, weight {row['weight']}."
        )


def document_ratios(cell: pd.DataFrame, aggregate: str) -> pd.DataFrame:
    """One line a document of one cell: numerator and denominator of its aggregate."""
    weight = cell["weight"].astype(np.float64)
    keys = [cell[name] for name in DOCUMENT]
    if aggregate == "window":
        numerator, denominator = weight * cell["nll_sum"] / cell["num_scored"], weight
    else:
        numerator, denominator = weight * cell["nll_sum"], weight * cell["num_scored"]
    sums = pd.DataFrame({"numerator": numerator, "denominator": denominator}).groupby(keys, sort=True).sum()
    if aggregate in ("document", "mean_of_perplexities"):
        mean = sums["numerator"] / sums["denominator"]
        sums["numerator"] = np.exp(mean) if aggregate == "mean_of_perplexities" else mean
        sums["denominator"] = 1.0
    return sums


def loss_by_position(positions: pd.DataFrame, confidence: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """Mean loss by position in the window, one line a cell and bin, with intervals over documents.

    positions: the positions table. Columns beside the cell's: `position` (geometric middle of the bin, tokens that
    precede), `nll` (nats a token), `low`, `high`, `num_documents`, `num_scored`.
    """
    check(positions.assign(window=positions["position_begin"]), "token", confidence)
    lines = []
    bins = positions.groupby(["cell_id", "position_begin", "position_end"], sort=True)
    for _, rows in bins:
        begin, end = rows["position_begin"].iloc[0], rows["position_end"].iloc[0]
        sums = document_ratios(rows, "token")
        estimate = interval(*_columns(sums), confidence=confidence, seed=seed)
        lines.append(
            {
                **rows.iloc[0][CELL].to_dict(),
                "position_begin": begin,
                "position_end": end,
                "position": float(np.sqrt(begin * (end - 1))),
                "nll": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
                "num_documents": len(sums),
                "num_scored": int(rows["num_scored"].sum()),
                "aggregate": "token",
                "confidence": confidence,
                "sampled": bool((rows["weight"] != 1).any()),
            }
        )
    return pd.DataFrame(lines)


def _columns(sums: pd.DataFrame) -> tuple[Array, Array]:
    """Numerators and denominators of one cell, each (documents, 1)."""
    return sums[["numerator"]].to_numpy(np.float64), sums[["denominator"]].to_numpy(np.float64)


def table(summary: pd.DataFrame) -> str:
    """Method x length as text: perplexity [low, high] a cell, one block a model, data set and protocol."""
    blocks = []
    for _, rows in curves.panels(curves.label(summary), "ctx", "curve"):
        named = curves.describe(rows, ["model", "dataset", "protocol", "protocol_params"])
        counts = sorted(rows["num_documents"].unique())
        note = ", ".join(
            [
                f"{rows['aggregate'].iloc[0]} aggregate",
                f"{100 * rows['confidence'].iloc[0]:g} % intervals over documents",
                f"{counts[0]} documents" if len(counts) == 1 else "documents in parentheses",
                *(["sampled windows"] if rows["sampled"].any() else []),
            ]
        )
        blocks.append(f"perplexity: {named}\n({note})\n{_grid(rows, len(counts) > 1)}")
    return "\n\n".join(blocks)


def _grid(rows: pd.DataFrame, with_counts: bool) -> str:
    """Methods down and lengths across, or the other way round where there are many lengths."""
    text = [_cell_text(row, with_counts) for row in rows.to_dict("records")]
    wide = rows.assign(text=text).pivot(index="curve", columns="ctx", values="text").fillna("")
    order = sorted(wide.index, key=lambda name: (name != "none", name))
    wide = wide.loc[order].rename(columns=curves.tokens).rename_axis(index="method", columns=None)
    return (wide if wide.shape[1] <= 8 else wide.T.rename_axis(index="ctx", columns=None)).to_string()


def _cell_text(row: dict[Any, Any], with_count: bool) -> str:
    limits = "" if row["low"] != row["low"] else f" [{curves.number(row['low'])}, {curves.number(row['high'])}]"
    count = f" ({row['num_documents']})" if with_count else ""
    return f"{curves.number(row['perplexity'])}{limits}{count}"
