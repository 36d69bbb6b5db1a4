"""The statistics of `divergence` as text to print, in the order of llama.cpp's perplexity tool."""

from collections.abc import Callable

import pandas as pd

from harness.statistics.divergence import PERCENTILES
from harness.statistics.lines import describe, label, panels, tokens
from harness.statistics.summary import Averaging, Line

Format = Callable[[float], str]


def _plain(value: float) -> str:
    return f"{value:.4f}"


def _nats(value: float) -> str:
    return f"{value:.6f}" if value == 0 or abs(value) >= 1e-3 else f"{value:.2e}"


def _percent(value: float) -> str:
    return f"{100 * value:.3f} %"


def _named(name: str) -> dict[str, str]:
    """Of a value's distribution: columns and what they are called, the largest first."""
    between = {f"{name}_p{share:g}": "median" if share == 50 else f"{share:g} %" for share in PERCENTILES}
    return {f"{name}_max": "maximum", **between, f"{name}_min": "minimum"}


STATISTICS: list[tuple[str, str, Format]] = [
    ("ppl", "perplexity", _plain),
    ("base_ppl", "perplexity of the base", _plain),
    ("correlation", "correlation of losses", _percent),
    ("ppl_log_ratio", "ln of their ratio", _nats),
    ("ppl_ratio", "ratio of perplexities", _plain),
    ("ppl_difference", "difference of perplexities", _plain),
    ("kl", "mean KL (nats)", _nats),
    *((column, f"KL {text}", _nats) for column, text in _named("kl").items()),
    ("delta_p", "mean delta p", _percent),
    *((column, f"delta p {text}", _percent) for column, text in _named("delta_p").items()),
    ("delta_p_rms", "RMS delta p", _percent),
    ("same_top", "same top", _percent),
]


def divergence_text(table: pd.DataFrame, averaging: Averaging) -> str:
    """A block a line and base: statistics down, lengths across, each with its interval in brackets.

    table: of `divergences`.
    """
    blocks = []
    for _, rows in panels(label(table), "ctx", "curve"):
        for curve, cells in rows.groupby("curve", sort=True):
            blocks.append(_block(str(curve), cells.sort_values("ctx"), averaging))
    return "\n\n".join(blocks)


def _block(curve: str, cells: pd.DataFrame, averaging: Averaging) -> str:
    named = describe(cells, ["dataset", "dataset_source", "dataset_fingerprint", "protocol"])
    known = [(column, text, form) for column, text, form in STATISTICS if column in cells]
    lines = cells.to_dict("records")
    grid = pd.DataFrame(
        [[_cell(line, column, form) for line in lines] for column, _, form in known],
        index=[text for _, text, _ in known],
        columns=[tokens(line["ctx"]) for line in lines],
    )
    counts = ", ".join(
        f"{line['num_scored']} tokens of {line['num_documents']} documents at {tokens(line['ctx'])}" for line in lines
    )
    intervals = f"{100 * averaging.confidence:g} % intervals over documents"
    how = f"{intervals}, {counts}" if cells["kl_low"].notna().any() else f"too few documents for intervals, {counts}"
    return f"KL({cells['base'].iloc[0]} || {cells['model'].iloc[0]} {curve}): {named}\n({how})\n{grid.to_string()}"


def _cell(line: Line, column: str, form: Format) -> str:
    if pd.isna(line[column]):
        return "-"
    low, high = line[f"{column}_low"], line[f"{column}_high"]
    return form(line[column]) + ("" if pd.isna(low) else f" [{form(low)}, {form(high)}]")
