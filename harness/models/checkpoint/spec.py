"""Which model to evaluate, as configuration names it."""

import os
from dataclasses import dataclass
from typing import Literal

from harness.errors import UserError
from harness.storage.places import folders_above


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Where a model comes from and how it is read; nothing here says anything about its shape."""

    name: str  # short name in rows, figures and errors
    path: str | None = None  # directory or hub id
    gguf_file: str | None = None  # file inside the directory or package
    package: str | None = None  # installed Python package that carries the files, instead of a path
    revision: str | None = None  # of a hub id
    original_max_position_embeddings: int | None = None  # tokens; None: what the checkpoint says
    sliding_window: int | Literal["native"] | None = "native"  # tokens; None: attend to everything
    trust_remote_code: bool = False  # run Python files of the checkpoint
    allow_pickle: bool = False  # read weights that are not safetensors
    device_map: Literal["auto"] | None = None  # "auto": layers over all GPUs, and the CPU if they do not suffice

    @property
    def source(self) -> str:
        """What the weights are from: what tells two models of one name apart for a reader.

        A path below the working directory or a hub id as given, of any other path its last part: where it lies says
        much about a machine, and nothing about the model.
        """
        path = self.package if self.path is None else self._shown
        place = "/".join(part for part in (path, self.gguf_file) if part)
        window = "" if self.sliding_window == "native" else f" sliding_window={self.sliding_window}"
        return place + (f"@{self.revision}" if self.revision else "") + window

    @property
    def _shown(self) -> str:
        assert self.path is not None
        path = os.path.normpath(os.path.expanduser(self.path))
        is_elsewhere = os.path.isabs(path) or path.startswith(os.pardir)
        return os.path.basename(os.path.abspath(path)) if is_elsewhere else path

    @property
    def folder(self) -> str | None:
        """The last folders above what `source` says, which tell namesakes apart; None: not of a directory here."""
        if self.path is None or not os.path.isdir(path := os.path.abspath(os.path.expanduser(self.path))):
            return None
        return folders_above(path, shown=self._shown.count(os.sep) + 1)

    def __post_init__(self) -> None:
        window = self.sliding_window
        if not (window is None or window == "native" or (type(window) is int and window >= 1)):
            raise UserError(f"model.sliding_window must be native, null or an integer >= 1, got {window!r}.")
        trained = self.original_max_position_embeddings
        if trained is not None and (type(trained) is not int or trained < 2):
            raise UserError(f"model.original_max_position_embeddings must be null or an integer >= 2, got {trained!r}.")
        if self.device_map not in (None, "auto"):
            raise UserError(f"model.device_map must be null or auto, got {self.device_map!r}.")
        if not self.name.strip():
            raise UserError("model.name must say something: rows, files and figures are named by it.")
        if bool(self.path) == bool(self.package):
            given = "both" if self.path else "neither"
            raise UserError(f"model {self.name}: give model.path (directory or hub id) or model.package, got {given}.")
