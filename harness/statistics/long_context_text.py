"""The table of `long_context` as text to print."""

import pandas as pd

from harness.statistics.lines import describe, label, tokens
from harness.statistics.long_context import is_evaluator
from harness.statistics.metric import Choice
from harness.statistics.metrics import METRICS
from harness.statistics.summary import Line
from harness.statistics.text import number

HEADS = {
    "perplexity": "perplexity",
    "longppl": "LongPPL",
    "far_copies": "far copies",
    "gain": "gain",
    "in_context_score": "in context",
}


def long_context_text(table: pd.DataFrame, choice: Choice) -> str:
    """A block a model, data set and length: methods down, metrics across, with what they count below.

    table: of `long_context`. The first line of a block is what the same tokens cost in short windows.
    """
    named = label(table.assign(mark=is_evaluator(table, choice).map({True: " *", False: ""})))
    groups = ["model", "model_revision", "dataset", "dataset_source", "dataset_fingerprint", "ctx"]
    blocks = [_block(rows) for _, rows in named.groupby(groups, dropna=False, sort=True)]
    return "\n\n".join(blocks)


def _block(rows: pd.DataFrame) -> str:
    title = describe(rows, ["model", "dataset", "dataset_source", "ctx"])
    heads = {name: head for name, head in HEADS.items() if name in rows}
    lines = [["short windows", *(_shared(rows, f"{name}_short_windows") for name in heads)]]
    order = sorted(rows.to_dict("records"), key=lambda row: (row["method"] != "none", row["curve"]))
    lines += [[f"{row['curve']}{row['mark']}", *(_value(row, name) for name in heads)] for row in order]
    grid = pd.DataFrame(lines, columns=["method", *heads.values()]).set_index("method").rename_axis(None)
    notes = [counted(rows, name) for name in heads if name != "perplexity"]
    marks = ["* chose key tokens by its own losses, and is favoured by LongPPL"] if (rows["mark"] != "").any() else []
    return "\n".join([f"use of context: {title}", grid.to_string(), *notes, *marks])


def _value(row: Line, name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return number(row[name]) + ("" if pd.isna(low) else f" [{number(low)}, {number(high)}]")


def _shared(rows: pd.DataFrame, column: str) -> str:
    """What all cells have in common; nothing where their short windows are their own."""
    if column not in rows:
        return ""
    values = rows[column].dropna().round(9).unique()
    return number(values[0]) if len(values) == 1 else "-"


def counted(table: pd.DataFrame, name: str) -> str:
    """What a metric counts: `LongPPL: key tokens by dca or yarn: 63 at 4k, in 4 documents`."""
    known = table.dropna(subset=[name])
    if known.empty:
        return f"{METRICS[name].title}: none of these cells has any"
    counts = known.groupby("ctx")[f"{name}_num_scored"].agg(_ends)
    lengths = ", ".join(
        f"{count} at {tokens(length)}" for length, count in zip(counts.index.tolist(), counts, strict=True)
    )
    documents = _ends(known[f"{name}_num_documents"])
    notes = " | ".join(sorted(known[f"{name}_note"].unique()))
    return f"{METRICS[name].title}: {notes}: {lengths}, in {documents} document{'s' * (documents != '1')}"


def _ends(counts: pd.Series) -> str:
    return " to ".join(f"{end:.0f}" for end in counts.agg(["min", "max"]).unique())
