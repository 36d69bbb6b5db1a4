"""What is known of a search before its model is loaded."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from harness.cells.cell import Identity
from harness.cells.device import check_device, placement
from harness.cells.prepare import identify
from harness.data import documents, needles
from harness.data.documents import Document, DocumentSet
from harness.data.lengths import check_lengths
from harness.data.needle_templates import Part
from harness.data.overlap import check_disjoint
from harness.data.sources import DataSpec
from harness.errors import UserError
from harness.longrope_search.config import NEEDLES, SearchConfig
from harness.longrope_search.space import Space
from harness.methods.base import RopeGeometry
from harness.models.checkpoint.header import Header, header

log = logging.getLogger(__name__)


class Known(NamedTuple):
    """What is known before the model is loaded."""

    header: Header
    geometry: RopeGeometry
    identity: Identity  # of the search set
    spaces: dict[int, Space]  # by length
    search_set: DocumentSet
    evaluation_set: DocumentSet
    judged: Mapping[int, Sequence[Document]]  # by length: what individuals are judged by
    evaluated: Mapping[int, Sequence[Document]]  # by length: what the winners are evaluated on, where that is possible


def know(config: SearchConfig) -> Known:
    """Everything that can be wrong before the weights are read."""
    known = header(config.model)
    if known.geometry is None:
        raise UserError(f"model {config.model.name} has no rotary embedding: there are no factors to search.")
    check_device(config.engine)
    spaces = {ctx: config.search.space(known.geometry, ctx) for ctx in config.ctx}
    sets = [
        documents.load(spec, known.tokenizer, known.tokenizer_fingerprint, config.seed)
        for spec in (config.search_data, config.data)
    ]
    check_disjoint(*sets)
    judged = {ctx: _judged(config, known, sets[0], config.search_data, ctx) for ctx in reversed(config.ctx)}
    evaluated = {}
    for ctx in config.ctx:
        try:
            evaluated[ctx] = _judged(config, known, sets[1], config.data, ctx)
        except UserError as error:
            log.warning("ctx %d: what is found will not be evaluated: %s", ctx, error)
    dtype = placement(config.engine).dtype
    identity = identify(known, sets[0].fingerprint, config.protocol, dtype)
    return Known(known, known.geometry, identity, spaces, sets[0], sets[1], judged, evaluated)


def _judged(config: SearchConfig, known: Header, of: DocumentSet, data: DataSpec, ctx: int) -> Sequence[Document]:
    """The documents, or needles in them, the right number alone: those of the search no evaluation has."""
    if config.search.objective == "needle":
        part: Part = "search" if data is config.search_data else "evaluation"
        hidden = dataclasses.replace(data, needles=data.needles or NEEDLES)
        made = needles.planted(of, hidden, known.tokenizer, ctx, config.seed, part)
        return [document for document in made.documents if document.needle is not None and document.needle.right]
    check_lengths(of, ctx)
    return of.documents
