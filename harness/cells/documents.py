"""The documents of the cells of one process, each set read once and kept, and the windows that cells cut them into."""

from functools import partial

import numpy as np

from harness.cells.prepare import Prepared
from harness.data import documents, needles
from harness.data.documents import DocumentSet
from harness.data.lengths import check_lengths
from harness.data.windows import Window
from harness.engine.batches import plans
from harness.errors import UserError


class Documents:
    """Sets of documents by what identifies them, read when they are first asked for."""

    def __init__(self) -> None:
        self._sets: dict[str, DocumentSet] = {}
        self._planted: dict[tuple[str, int], DocumentSet] = {}  # by what they are made in, and their length

    def of(self, prepared: Prepared) -> DocumentSet:
        """The documents of a cell, every one as long as `data.shorter` asks. Raises UserError."""
        header, config, key = prepared.header, prepared.cell.config, prepared.cell.columns["dataset_fingerprint"]
        if key not in self._sets:
            found = documents.load_with(
                config.data, partial(getattr, header, "tokenizer"), header.tokenizer_fingerprint, config.seed
            )
            if found.fingerprint != key:
                raise UserError(
                    f"data={config.data.name}: its texts changed after the run was started; start it again."
                )
            self._sets[key] = found
        own = self._sets[key] if config.data.needles is None else self._with_needles(prepared, key)
        check_lengths(own, prepared.cell.ctx)
        _check_ids(own, prepared)
        if prepared.base is not None and prepared.base.cell.columns["dataset_fingerprint"] != key:
            _check_same(own, self.of(prepared.base), prepared)
        return own

    def _with_needles(self, prepared: Prepared, key: str) -> DocumentSet:
        config, ctx = prepared.cell.config, prepared.cell.ctx
        if (key, ctx) not in self._planted:
            self._planted[key, ctx] = needles.planted(
                self._sets[key], config.data, prepared.header.tokenizer, ctx, config.seed
            )
        return self._planted[key, ctx]

    def windows(self, prepared: Prepared) -> list[list[Window]]:
        """The windows of every document under a cell. Raises UserError as `of`."""
        cell = prepared.cell
        own = self.of(prepared)
        return plans(own.documents, cell.ctx, cell.protocol, cell.config.seed, cell.config.data.shorter)


def _check_ids(found: DocumentSet, prepared: Prepared) -> None:
    """Raise UserError for a token id that the model has no row of its embedding for."""
    header, rows = prepared.header, prepared.header.vocabulary
    largest = max(found.documents, key=lambda d: d.ids.max(initial=0))
    ids = {f"document {largest.name!r}": int(largest.ids.max(initial=0))}
    if prepared.cell.protocol.resolved_bos(header.adds_bos) != "none":
        lends = prepared.cell.protocol.lends_eos
        ids["its BOS token"] = (header.prefix_token_id if lends else header.bos_token_id) or 0
    for where, token in ids.items():
        if token >= rows:
            raise UserError(
                f"model {header.spec.name}: its tokenizer does not fit it: {where} has the token id {token}, and the "
                f"model knows ids below {rows}."
            )


def _check_same(own: DocumentSet, base: DocumentSet, prepared: Prepared) -> None:
    """Raise UserError where another tokenizer makes other tokens of the same documents."""
    for one, other in zip(own.documents, base.documents, strict=False):
        if not np.array_equal(one.ids, other.ids):
            config = prepared.cell.config
            raise UserError(
                f"base.model must have the tokenizer of model={config.model.name}: document {one.name!r} has other "
                "tokens under it."
            )
