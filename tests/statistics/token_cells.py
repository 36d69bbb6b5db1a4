"""Made-up cells with token rows: losses as given, a list a document; nan: the token has no loss."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from harness.results import schema, store
from tests.synthetic import identifying

Losses = Sequence[Sequence[float]]
Tables = dict[str, pd.DataFrame]
LONG = {"protocol": "single_pass", "protocol_params": json.dumps({"bos": "none", "max_windows": None}), "stride": None}

KEY = ["model", "method", "method_params", "dataset", "dataset_fingerprint", "protocol", "ctx", "stride"]


def cell(
    losses: Losses, ids: Sequence[Sequence[int]] | None = None, width: int = 1, weight: float = 1.0, **columns: object
) -> Tables:
    """One cell in which a document is one window; tokens are `width` bytes each."""
    names = {"model": "tiny", "method": "none", "dataset": "books", "dataset_source": "books", "dtype": "float32"}
    sizes = {"ctx": max(map(len, losses)), "factor": None, "original_max_position_embeddings": 8}
    known = identifying(**LONG | names | sizes | columns)
    known["cell_id"] = "-".join(str(known[key]) for key in KEY)
    tokens, windows = [], []
    for index, own in enumerate(losses):
        name = f"book-{index}"
        numbers = ids[index] if ids is not None else range(1000, 1000 + len(own))
        scored = [place for place, loss in enumerate(own) if not math.isnan(loss)]
        place = {"cell_id": known["cell_id"], "document": name, "document_index": index, "window": 0}
        tokens += [
            place | {
                "token": i, "nll": own[i], "top1": False, "token_id": numbers[i],
                "previous_id": numbers[i - 1] if i else -1, "byte_begin": width * i, "byte_end": width * (i + 1),
            }
            for i in scored
        ]  # fmt: skip
        windows.append(
            known | place | {
                "begin": 0, "end": len(own), "score_from": scored[0], "bos": False, "num_scored": len(scored),
                "nll_sum": math.fsum(own[i] for i in scored), "weight": weight, "num_bytes": width * len(scored),
                "num_words": None, "num_top1": None, "depth": None, "repeat": None, "right": None,
            }
        )  # fmt: skip
    return {"windows": pd.DataFrame(windows), "tokens": pd.DataFrame(tokens)}


def short(losses: Losses, ctx: int = 6, stride: int = 2, **columns: Any) -> Tables:
    """A cell of short windows; the first ctx - stride tokens of a document have fewer before them."""
    params = json.dumps({"bos": "none", "max_windows": None, "stride": stride})
    return cell(losses, **{"ctx": ctx, "stride": stride, "protocol": "sliding", "protocol_params": params} | columns)


def write(folder: Path, *cells: Tables) -> None:
    """Store these cells as a run would; columns that they lack are null."""
    for one in cells:
        columns = one["windows"].iloc[0][schema.cell_columns()].to_dict()
        tables = {name: completed(rows, name) for name, rows in one.items() if not rows.empty}
        store.write(folder, columns, tables, {})


def completed(rows: pd.DataFrame, table: str) -> pd.DataFrame:
    """The rows with every column that is not of the cell."""
    lacking = [c.name for c in schema.columns(table) if not c.of_cell and c.name not in rows]
    return rows.assign(**dict.fromkeys(lacking))


def load(*cells: Tables) -> Callable[[str], pd.DataFrame]:
    """The tables of these cells, as a metric reads them."""
    return {name: pd.concat([one[name] for one in cells], ignore_index=True) for name in cells[0]}.__getitem__
