"""What results files say of their making, for a reader."""

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from harness.errors import UserError
from harness.logs import progress
from harness.results import store
from harness.results.under import tables_under
from harness.statistics.lines import label
from harness.statistics.paired import cell_table


def provenance_texts(results: Path, rows: pd.DataFrame) -> list[tuple[str, str]]:
    """What the files say of their making: once what all of them say, then for each what it says beside that."""
    cells = label(cell_table(rows)).to_dict("records")
    words = "{model}, {curve}, ctx {ctx}, {dataset} ({cell_id})"
    titles = {cell["cell_id"]: words.format_map({str(key): value for key, value in cell.items()}) for cell in cells}
    said: list[tuple[str, dict[str, object]]] = []
    for file in progress(tables_under(results), "provenance", "file"):
        try:
            known = _flat(store.provenance(file)) | {"file": file.name}
        except UserError:
            continue  # no table, as was said when it was left out
        for cell_id in store.cells_of(file):
            named = cell_id if cell_id in titles else f"{cell_id}:{known.get('config.model.name')}"
            if named in titles:
                said.append((titles[named], known))
    common = dict(said[0][1]) if len(said) > 1 else {}
    for _, known in said:
        common = {key: value for key, value in common.items() if known.get(key, known) == value}
    own = [(title, {key: value for key, value in known.items() if key not in common}) for title, known in said]
    shared = [(f"what all {len(said)} cells have in common", common)] if common else []
    return [(title, json.dumps(known, indent=1, sort_keys=True)) for title, known in [*shared, *own]]


def _flat(tree: Mapping[str, object], above: str = "") -> dict[str, object]:
    """A tree of settings by their whole keys."""
    flat: dict[str, object] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{above}{key}.") if isinstance(value, dict) else {f"{above}{key}": value}
    return flat
