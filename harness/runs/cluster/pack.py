"""Cells on their way to another process: composed configurations, and what computing them there must come to."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.cells.device import check_device
from harness.cells.files import CellFiles
from harness.cells.prepare import Prepared, prepare
from harness.config.schema import Config
from harness.runs.provenance import source


class Changed(RuntimeError):
    """A model or a text is no longer what it was when the sweep was started."""


@dataclass(frozen=True)
class Pack:
    """Cells that one process computes."""

    configs: list[Config]
    cells: list[CellFiles]
    source: str  # digest of the code that sent it

    @staticmethod
    def of(prepared: Sequence[Prepared]) -> "Pack":
        """These cells, to be pickled."""
        return Pack([p.cell.config for p in prepared], [p.files for p in prepared], source())

    def prepared(self) -> list[Prepared]:
        """These cells, ready to run here. Raises Changed, and UserError for a mistake."""
        for engine, cluster in {config.engine: config.cluster for config in self.configs}.items():
            check_device(engine, cluster)
        prepared = prepare(self.configs, self.cells[0].run_id, sweep=True)
        for p, sent in zip(prepared, self.cells, strict=True):
            if p.files.place != sent.place:
                raise Changed(f"model or documents of {sent.label} changed after the sweep was started; start it again")
        return [p._replace(files=sent) for p, sent in zip(prepared, self.cells, strict=True)]
