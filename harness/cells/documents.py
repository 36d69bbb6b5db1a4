"""The documents of the cells of one process, each set read once and kept, and the windows that cells cut them into."""

from harness.cells.prepare import Prepared
from harness.data import documents
from harness.data.documents import DocumentSet
from harness.data.windows import Window
from harness.engine.batches import plans


class Documents:
    """Sets of documents by what identifies them, read when they are first asked for."""

    def __init__(self) -> None:
        self._sets: dict[str, DocumentSet] = {}

    def of(self, prepared: Prepared) -> DocumentSet:
        """The documents of a cell, every one long enough. Raises UserError."""
        header, config, key = prepared.header, prepared.cell.config, prepared.cell.columns["dataset_fingerprint"]
        if key not in self._sets:
            self._sets[key] = documents.load(config.data, header.tokenizer, header.tokenizer_fingerprint, config.seed)
        documents.check_lengths(self._sets[key], prepared.cell.ctx)
        return self._sets[key]

    def windows(self, prepared: Prepared) -> list[list[Window]]:
        """The windows of every document under a cell. Raises UserError as `of`."""
        cell = prepared.cell
        return plans(self.of(prepared).documents, cell.ctx, cell.protocol, cell.config.seed)
