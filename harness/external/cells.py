"""Cells whose losses are an engine's: their identity says so, and no weights are needed here."""

import shlex
from collections.abc import Sequence
from dataclasses import replace

from harness.cells.cell import cell
from harness.cells.device import Placement
from harness.cells.files import CellFiles
from harness.cells.naming import label
from harness.cells.prepare import Prepared, identify
from harness.config.schema import Config
from harness.data import documents
from harness.external.settings import Action, Settings
from harness.models.checkpoint.geometry import text_config
from harness.models.checkpoint.header import Header, of_config, of_tokenizer
from harness.models.checkpoint.load import load_config, load_geometry, load_tokenizer
from harness.models.checkpoint.spec import ModelSpec
from harness.results import store
from harness.storage.cache import digest


def header(spec: ModelSpec, settings: Settings) -> Header:
    """What is known of the model without its weights, which need not be here. Raises UserError."""
    config, tokenizer = load_config(spec), load_tokenizer(spec)
    return Header(
        spec=spec,
        geometry=load_geometry(spec),
        fingerprint=f"engine-{digest(settings.identity)}",  # that of a model here has no such beginning
        vocabulary=int(text_config(config).vocab_size),
        encoding=of_config(config),
        **of_tokenizer(tokenizer),
    )


def prepare(configs: Sequence[Config], settings: Settings, action: Action, run_id: str) -> list[Prepared]:
    """The cells of these configurations as the engine's, named as the user names them. Raises UserError."""
    known = header(configs[0].model, settings)
    fingerprint = documents.fingerprint(
        configs[0].data, lambda: known.tokenizer, known.tokenizer_fingerprint, configs[0].seed
    )
    named = replace(configs[0].model, name=settings.name or configs[0].model.name)
    prepared = []
    for config in configs:
        identity = identify(known, fingerprint, config.protocol, settings.dtype)
        made = cell(replace(config, model=named), identity)
        made = replace(made, columns=made.columns | {"model_source": settings.computed_by})
        files = CellFiles(
            place=store.place(config.results_dir, made.columns),
            tables=tuple(made.tables),
            label=label(made),
            command=shlex.join(["python", "-m", "harness.external", action, *config.overrides]),
            run_id=run_id,
            force=config.force,
        )
        prepared.append(Prepared(known, made, files, Placement("engine", settings.dtype)))
    return prepared
