"""The documents of the cells of one process, each set read once and kept."""

from harness.cells.prepare import Prepared
from harness.data import documents
from harness.data.documents import DocumentSet


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
