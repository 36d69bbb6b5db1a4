"""Made-up windows tables for tests of statistics and figures: seeded, in the shape that runs write."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.results import schema, store

TRAINED = 512


def identifying(**given: object) -> dict[str, Any]:
    """The columns of a made-up cell: those given, and a plain value for every other one of the schema."""
    plain = {schema.TEXT: "{}", schema.INTEGER: 32, schema.REAL: 1.0}
    columns = {c.name: plain[c.type] for c in schema.COLUMNS if c.of_cell} | {
        "stride": None,
        "shorter": None,
        "dataset_params": None,
        "dataset_folder": None,
        "model_folder": None,
        "base": "",
    }
    assert given.keys() <= columns.keys()
    return columns | given


def loss(method: str, ctx: int) -> float:
    """A plausible mean loss in nats: unscaled models collapse beyond the trained length."""
    over = max(0.0, np.log2(ctx / TRAINED))
    slope = {"none": 1.1, "linear": 0.45, "ntk": 0.32, "yarn": 0.05}[method]
    return 3.16 - 0.04 * np.log2(ctx / 256) + slope * over


def cell(
    method: str, ctx: int, num_documents: int = 8, num_windows: int = 3, seed: int = 0, **columns: object
) -> pd.DataFrame:
    """The windows of one cell; documents keep their difficulty across cells of one seed."""
    difficulty = np.random.default_rng(seed).gamma(2.0, 0.08, num_documents)
    noise = np.random.default_rng([seed, ctx, *method.encode()]).normal(0, 0.01, (num_documents, num_windows))
    factor = max(1.0, ctx / TRAINED) if method != "none" else None
    rows = []
    for document in range(num_documents):
        for window in range(num_windows):
            scored = ctx - 1 if window == 0 else 256 + 8 * document
            mean = loss(method, ctx) + difficulty[document] + noise[document, window]
            rows.append(
                {
                    "cell_id": f"{method}-{factor}-{ctx}-{num_documents}",
                    "experiment": "test", "model": "reference", "model_revision": "abc",
                    "model_source": "somewhere/reference", "model_fingerprint": "beef", "method": method,
                    "method_params": json.dumps({} if factor is None else {"factor": factor}),
                    "factor": factor, "original_max_position_embeddings": TRAINED, "ctx": ctx,
                    "protocol": "sliding", "protocol_params": json.dumps({"stride": 256}), "stride": 256,
                    "bos": False, "weight": 1.0, "dataset": "sotu", "dataset_fingerprint": "f00d",
                    "dataset_source": "sotu", "dataset_params": None, "identity_version": 2,
                    "dataset_folder": None, "model_folder": None,
                    "base": "", "base_cell_id": "",
                    "document": f"speech-{document}", "document_index": document, "window": window,
                    "begin": 256 * window, "end": 256 * window + ctx,
                    "score_from": 1 if window == 0 else 256 * window + ctx - scored,
                    "num_scored": scored, "num_bytes": 4 * scored, "num_words": scored, "nll_sum": mean * scored,
                    "num_top1": None, "dtype": "float32", "shorter": None,
                    "depth": None, "repeat": None, "right": None,
                }
                | columns
            )  # fmt: skip
    return pd.DataFrame(rows)


def sweep(
    methods: tuple[str, ...] = ("none", "linear", "ntk", "yarn"),
    lengths: tuple[int, ...] = (256, 512, 1024, 2048, 4096),
    num_documents: int = 8,
) -> pd.DataFrame:
    """All windows of a method x length grid."""
    return pd.concat([cell(method, ctx, num_documents) for method in methods for ctx in lengths], ignore_index=True)


def exact(means: dict[int, float], method: str = "yarn") -> pd.DataFrame:
    """Cells whose every document has exactly the given mean loss at each length."""
    cells = []
    for ctx, mean in means.items():
        rows = cell(method, ctx)
        cells.append(rows.assign(nll_sum=mean * rows["num_scored"]))
    return pd.concat(cells, ignore_index=True)


def at(rows: pd.DataFrame, method: str, ctx: int) -> pd.Series:
    """Which rows are of one cell."""
    return (rows["method"] == method) & (rows["ctx"] == ctx)


def scaled(rows: pd.DataFrame, method: str, ctx: int, ratio: float) -> pd.DataFrame:
    """The rows with the perplexity of one cell multiplied by `ratio`, on every document alike."""
    shift = np.where(at(rows, method, ctx), np.log(ratio) * rows["num_scored"], 0.0)
    return rows.assign(nll_sum=rows["nll_sum"] + shift)


def positions(rows: pd.DataFrame) -> pd.DataFrame:
    """A positions table for the cells of a windows table: loss falls up to the trained length, then rises."""
    out = []
    for (_, _), cells in rows.groupby(["cell_id", "document_index"], sort=False):
        first = cells.iloc[0]
        edges = np.unique(np.round(2 ** np.arange(0, np.log2(first["ctx"]) + 0.25, 0.5)).astype(int))
        for begin, end in itertools.pairwise(edges):
            middle = (begin * (end - 1)) ** 0.5
            beyond = max(0.0, np.log2(middle / TRAINED)) * {"none": 1.5, "yarn": 0.03}.get(first["method"], 0.5)
            count = 3 * int(end - begin)
            mean = 2.6 + 2.0 * middle**-0.3 + beyond + 0.1 * (first["document_index"] % 4)
            place = {"position_begin": begin, "position_end": end, "num_scored": count, "nll_sum": mean * count}
            out.append(first.to_dict() | place)
    drop = [
        "window",
        "begin",
        "end",
        "score_from",
        "bos",
        "num_bytes",
        "num_words",
        "num_top1",
        "depth",
        "repeat",
        "right",
    ]
    return pd.DataFrame(out).drop(columns=drop)


def write(rows: pd.DataFrame, results: Path) -> None:
    """Store the cells of a windows table, with their positions, as a run would."""
    for _, cell_rows in rows.groupby("cell_id"):
        columns = cell_rows.iloc[0][schema.cell_columns()].to_dict()
        provenance = {"config": {"ctx": int(columns["ctx"])}, "versions": {"harness": "0"}, "seconds": 1.5}
        store.write(results, columns, {"windows": cell_rows, "positions": positions(cell_rows)}, provenance)
