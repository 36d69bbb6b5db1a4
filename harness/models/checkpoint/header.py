"""What is known of a model before its weights are read: enough to name its cells and to tokenize its documents."""

import copy
from pathlib import Path
from typing import NamedTuple

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from harness.methods.base import RopeGeometry
from harness.models.checkpoint.files import directory, model_fingerprint
from harness.models.checkpoint.fits import rows_of_embedding
from harness.models.checkpoint.load import load_config, load_geometry, load_tokenizer
from harness.models.checkpoint.sliding_window import set_window
from harness.models.checkpoint.spec import ModelSpec
from harness.models.checkpoint.tokenizer_state import tokenizer_fingerprint


class Header(NamedTuple):
    """A model without its weights."""

    spec: ModelSpec
    config: PretrainedConfig
    geometry: RopeGeometry | None  # None: no rotary embedding
    tokenizer: PreTrainedTokenizerBase
    fingerprint: str  # of every file that its weights and configuration are read from
    vocabulary: int  # token ids that it knows
    tokenizer_fingerprint: str
    revision: str  # of a hub id: the commit; else empty

    @property
    def bos_token_id(self) -> int | None:
        """The token that a BOS policy puts in front."""
        return self.tokenizer.bos_token_id

    @property
    def prefix_token_id(self) -> int | None:
        """The BOS; where there is none, the EOS that `protocol=rolling` takes for it."""
        return self.tokenizer.eos_token_id if self.bos_token_id is None else self.bos_token_id

    @property
    def adds_bos(self) -> bool:
        """Whether the tokenizer puts a BOS in front of a text by itself: what `protocol.bos=auto` follows."""
        return self.bos_token_id is not None and self.tokenizer("a")["input_ids"][:1] == [self.bos_token_id]


def header(spec: ModelSpec) -> Header:
    """Read everything but the weights.

    Raises UserError for anything missing, for a model that is no causal language model, and for weights that do not fit
    the configuration.
    """
    fingerprint = model_fingerprint(spec)  # first: it knows of an adapter alone, and of what may not be read
    config, tokenizer = load_config(spec), load_tokenizer(spec)
    if not isinstance(spec.sliding_window, str):
        set_window(copy.deepcopy(config), spec.sliding_window)  # refused before any cell
    vocabulary = rows_of_embedding(spec, config)
    return Header(
        spec=spec,
        config=config,
        geometry=load_geometry(spec),
        tokenizer=tokenizer,
        fingerprint=fingerprint,
        vocabulary=vocabulary,
        tokenizer_fingerprint=tokenizer_fingerprint(tokenizer),
        revision=_revision(directory(spec)),
    )


def _revision(folder: Path) -> str:
    """The commit of a snapshot in the hub's local cache (.../snapshots/<commit>)."""
    return folder.name if folder.parent.name == "snapshots" else ""
