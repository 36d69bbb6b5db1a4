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


def distinct(prepared: Iterable[Prepared]) -> list[Prepared]:
    """Each place once, in the order of the first that asks for it: of several the one that asks for most tables.

    Cells that differ in nothing that a number depends on (batch size, mode, what else is kept) have one place.
    """
    places: dict[Path, list[Prepared]] = {}
    for p in prepared:
        places.setdefault(p.files.place, []).append(p)
    return [max(same, key=lambda p: (p.files.force, len(p.files.tables))) for same in places.values()]


def passes(prepared: Iterable[Prepared]) -> list[Pass]:
    """Cells by the pass that serves them, in the order of the first of each; one that is asked for twice comes once.

    One cell under two names, or in two results directories, is in a pass twice: computed once, written to both places.
    """
    groups: dict[str, list[Prepared]] = {}
    for p in distinct(prepared):
        groups.setdefault(p.cell.pass_id, []).append(p)
    return [Pass(tuple(sorted(group, key=lambda p: -p.cell.ctx))) for group in groups.values()]
