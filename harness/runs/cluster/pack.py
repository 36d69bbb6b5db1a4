"""Cells on their way to another process: composed configurations, and what computing them there must come to."""

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass

from harness.cells import record as records
from harness.cells.prepare import Prepared, check_device, prepare
from harness.cells.record import Outcome, Record
from harness.config.schema import Config
from harness.results import store
from harness.runs.provenance import source

log = logging.getLogger(__name__)


class Changed(RuntimeError):
    """A model or a text is no longer what it was when the sweep was started."""


@dataclass(frozen=True)
class Pack:
    """Cells that one process computes."""

    configs: list[Config]
    records: list[Record]
    source: str  # digest of the code that sent it

    @staticmethod
    def of(prepared: Sequence[Prepared]) -> "Pack":
        """These cells, to be pickled."""
        return Pack([p.cell.config for p in prepared], [p.record for p in prepared], source())

    def compute(self) -> list[Outcome]:
        """Compute the cells here; a mistake that concerns all of them fails each of them in its own log."""
        from harness.runs import runner  # imports torch

        if source() != self.source:
            log.warning("the harness's code has changed since this sweep was started; going on with the present code")
        for results in {config.results_dir for config in self.configs}:
            store.check_writable(results)
        try:
            prepared = self.prepared()
        except Exception as error:
            message = f"{type(error).__name__}: {' '.join(str(error).split())}"
            text = "".join(traceback.format_exception(error))
            for record in self.records:
                records.write_failure(record, message, text)
            return [Outcome(record, "failed", message) for record in self.records]
        return runner.run(prepared)

    def prepared(self) -> list[Prepared]:
        """These cells, ready to run here. Raises Changed, and UserError for a mistake."""
        for config in {config.engine: config for config in self.configs}.values():
            check_device(config)
        prepared = prepare(self.configs, self.records[0].run_id, sweep=True)
        for p, sent in zip(prepared, self.records, strict=True):
            if p.record.place != sent.place:
                raise Changed(f"model or documents of {sent.label} changed after the sweep was started; start it again")
        return [p._replace(record=sent) for p, sent in zip(prepared, self.records, strict=True)]


def quiet_bars() -> None:
    """Progress bars that end in a log file: a line every half minute. Before tqdm is imported."""
    assert "tqdm" not in sys.modules
    os.environ.setdefault("TQDM_MININTERVAL", "30")
