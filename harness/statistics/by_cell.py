"""Sums of every cell's documents, made in one pass over the rows: thousands of cells are compared in seconds."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.errors import UserError
from harness.statistics.apart import Apart
from harness.statistics.intervals import Array
from harness.statistics.metric import PERPLEXITY, Metric
from harness.statistics.summary import Averaging, Ratios, document_ratios, is_logarithm


class Sums(NamedTuple):
    """Of one cell: what `document_ratios` makes of its documents, in their order."""

    indices: NDArray[np.int64]  # of its documents, (documents,)
    names: NDArray[Any]  # theirs, (documents,)
    numerator: Array  # (documents,)
    denominator: Array  # (documents,)
    log: bool  # as in `Ratios`
    shares: bool  # as there
    sampled: bool  # only some windows were scored

    @property
    def ratio(self) -> float:
        """Of all documents."""
        return float(self.numerator.sum() / self.denominator.sum())

    def has_documents_of(self, other: "Sums") -> bool:
        """Whether both are of the same documents."""
        return np.array_equal(self.indices, other.indices) and np.array_equal(self.names, other.names)


def by_cell(rows: pd.DataFrame, averaging: Averaging, metric: Metric = PERPLEXITY) -> dict[str, Sums]:
    """The sums of each cell by its id. Raises UserError as `document_ratios`."""
    apart = Apart(rows, ["cell_id"])
    sums = document_ratios(apart.rows, averaging.aggregate, metric, [apart.groups])
    groups, indices, names = (sums.index.get_level_values(level).to_numpy() for level in range(3))
    numerator, denominator = (sums[name].to_numpy(np.float64) for name in ("numerator", "denominator"))
    ends = np.searchsorted(groups, np.arange(len(apart.ends)), side="right")
    found, begin, log = {}, 0, is_logarithm(averaging, metric)
    for place, (end, cell_id) in enumerate(zip(ends, apart.rows["cell_id"].iloc[apart.begins], strict=True)):
        own = slice(begin, end)
        sampled = bool((apart.of(place, "weight") != 1).any())
        found[str(cell_id)] = Sums(
            indices[own], names[own], numerator[own], denominator[own], log, metric.of_shares, sampled
        )
        begin = end
    return found


def same_documents(cells: Sequence[Sums]) -> Ratios:
    """The sums of several cells, arrays (documents, cells). Raises UserError unless all have the same documents."""
    for one in cells[1:]:
        if not one.has_documents_of(cells[0]):
            (ours, theirs) = (set(zip(cell.indices.tolist(), cell.names, strict=True)) for cell in (cells[0], one))
            apart = sorted(ours ^ theirs)
            raise UserError(
                f"Cells can be compared on the same documents only; {len(apart)} are in one and not in the other, "
                f"the first of them {apart[0][1]!r}."
            )
    numerator, denominator = (
        np.column_stack([getattr(cell, name) for cell in cells]) for name in ("numerator", "denominator")
    )
    return Ratios(numerator, denominator, cells[0].log, cells[0].shares)
