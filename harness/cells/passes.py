"""Passes over the documents: which cells one computation of losses can serve."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.cells.prepare import Prepared


@dataclass(frozen=True)
class Pass:
    """Cells that are computed together: the losses of the longest, cut, are those of the others.

    Under `single_pass` the losses of the first l tokens of a longer window are those of a window of l tokens, as long
    as nothing in the method depends on the length: equal resolved parameters and `depends_on_length` False. Every
    other cell is a pass of its own.
    """

    cells: tuple[Prepared, ...]  # the longest first

    @property
    def longest(self) -> Prepared:
        """The cell that is computed."""
        return self.cells[0]

    @property
    def checkpoint(self) -> Path:
        """Folder of the finished documents: they are kept under the name of the longest cell."""
        return self.longest.files.checkpoint

    @property
    def title(self) -> str:
        """The pass in a progress bar: model, method and lengths, ascending."""
        config = self.longest.cell.config
        return f"{config.model.name} {config.method.name} ctx={','.join(str(p.cell.ctx) for p in reversed(self.cells))}"


def passes(prepared: Iterable[Prepared]) -> list[Pass]:
    """Cells by the pass that serves them, in the order of the first of each; one that is asked for twice comes once."""
    groups: dict[str, list[Prepared]] = {}
    for p in {p.cell.cell_id: p for p in prepared}.values():
        groups.setdefault(p.cell.pass_id, []).append(p)
    return [Pass(tuple(sorted(group, key=lambda p: -p.cell.ctx))) for group in groups.values()]
