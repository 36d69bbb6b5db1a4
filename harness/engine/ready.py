"""The door to a model that is ready: on its device, with the engine that proved itself on it."""

from typing import NamedTuple

import torch

from harness.engine.engine import Engine
from harness.engine.exchange import Ranks
from harness.engine.spec import EngineSpec
from harness.errors import UserError
from harness.models.checkpoint.load import load
from harness.models.checkpoint.spec import ModelSpec
from harness.models.probe import check_attention


class Ready(NamedTuple):
    """A model whose losses can be computed."""

    engine: Engine
    trained: int | None  # tokens, original_max_position_embeddings; None: no rotary embedding
    device: str  # that token ids go to


def ready(
    model: ModelSpec,
    engine: EngineSpec,
    device: str,
    dtype: str,
    ranks: Ranks | None = None,
    *,
    identified: str | None = None,
) -> Ready:
    """Load a model and let its engine prove itself; every window is shared by `ranks` where they are given.

    device: cpu | cuda | cuda:N; dtype: float32 | float16 | bfloat16, as torch names it; neither is `auto` any more.
    identified: the fingerprint (`Header.fingerprint`) under which losses will be kept. Raises UserError where files are
    missing, where they are not those that were identified, and where the model cannot run what the spec asks for, or
    runs it to other losses.
    """
    attention = None if engine.attention == "auto" else engine.attention
    loaded = load(model, getattr(torch, dtype), device, attention)
    if identified not in (None, loaded.fingerprint):
        raise UserError(f"model {model.name} changed after the run was started; start it again.")
    if attention is not None:
        check_attention(loaded.model)
    trained = None if loaded.geometry is None else loaded.geometry.original_max_position_embeddings
    return Ready(Engine(loaded.model, engine, ranks), trained, device)
