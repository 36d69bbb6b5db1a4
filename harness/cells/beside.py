"""A cell and its base in one process: whether they share their weights, and whether both are in memory at once."""

from harness.cells.prepare import Prepared
from harness.engine.budget import fits
from harness.engine.spec import EngineSpec
from harness.models.checkpoint.shape import shape
from harness.models.checkpoint.spec import ModelSpec

Key = tuple[ModelSpec, EngineSpec, str]


def weights_of(prepared: Prepared) -> Key:
    """What two cells have in common that run on one loaded model."""
    return prepared.cell.config.model, prepared.cell.config.engine, prepared.header.fingerprint


def share_weights(own: Prepared, base: Prepared) -> bool:
    """Whether a cell and its base are one model, under two methods."""
    return weights_of(own) == weights_of(base)


def at_once(own: Prepared, base: Prepared) -> bool:
    """Whether both models are in memory together: as the user says, or where they leave room for their windows."""
    asked = own.cell.config.base
    if asked is not None and asked.at_once is not None:
        return asked.at_once
    if share_weights(own, base):
        return True
    weights = sum(shape(each.header, each.placement.dtype).weight_bytes for each in (own, base))
    return fits(weights, own.placement.device)
