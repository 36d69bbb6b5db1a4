"""A model on its device with its engine: what sweeps and searches compute losses with."""

from typing import TYPE_CHECKING, Any, NamedTuple

from harness.cells.device import Placement
from harness.engine.spec import EngineSpec
from harness.methods.base import RopeGeometry
from harness.models.checkpoint.spec import ModelSpec

if TYPE_CHECKING:
    from harness.engine.engine import Engine
    from harness.engine.shared import Ranks


class Ready(NamedTuple):
    """A model whose losses can be computed."""

    engine: "Engine"
    geometry: RopeGeometry | None  # None: no rotary embedding
    device: str


def ready(model: ModelSpec, engine: EngineSpec, where: Placement, ranks: "Ranks | None" = None) -> Ready:
    """Load a model and let its engine prove itself; `ranks` share every window. Raises UserError as loading does."""
    import torch
    import transformers

    from harness.engine.engine import Engine
    from harness.models.checkpoint.load import load

    transformers.utils.logging.disable_progress_bar()
    attention = None if engine.attention == "auto" else engine.attention
    loaded = load(model, getattr(torch, where.dtype), where.device, attention)
    network: Any = loaded.model
    return Ready(Engine(network, engine, ranks), loaded.geometry, where.device)
