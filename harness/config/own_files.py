"""YAML files of the user's own: as Hydra reads them, but for those that grow without end as aliases are followed.

a: &a [x, x, x]
b: &b [*a, *a, *a]      and so on: a dozen lines, a billion values
"""

import os
from pathlib import Path

import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource as Files
from hydra._internal.sources_registry import SourcesRegistry
from hydra.plugins.config_source import ConfigResult

from harness.errors import UserError

MOST_VALUES = 100_000
MOST_BYTES = 10_000_000


def guard() -> None:
    """From here on Hydra reads files through `FileConfigSource` of this module."""
    SourcesRegistry.instance().types[FileConfigSource.scheme()] = FileConfigSource


class FileConfigSource(Files):
    """Hydra's source of files; the name is that by which it is registered."""

    def load_config(self, config_path: str) -> ConfigResult:
        """As Hydra's. Raises UserError for a file that is too large."""
        check(Path(os.path.realpath(os.path.join(self.path, self._normalize_file_name(config_path)))))
        return super().load_config(config_path)


def check(file: Path) -> None:
    """Raise UserError for a file of more values than any configuration has; what else is wrong is left to Hydra."""
    try:
        size, read = file.stat().st_size, file.open("rb")
    except OSError:
        return
    with read as stream:
        if size > MOST_BYTES:
            raise UserError(f"{file}: a configuration may have at most {MOST_BYTES} bytes, got {size}.")
        try:
            values = _values(yaml.compose(stream, Loader=yaml.SafeLoader), {})
        except (yaml.YAMLError, RecursionError, ValueError):
            return
    if values > MOST_VALUES:
        raise UserError(f"{file}: a configuration may have at most {MOST_VALUES} values; aliases make more of these.")


def _values(node: yaml.Node | None, known: dict[int, int]) -> int:
    """Values below a node when every alias is followed; a node within itself counts as too many."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in known:
        known[id(node)] = MOST_VALUES + 1  # until it is known: of a node that is met within itself
        below = [part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,))]
        known[id(node)] = 1 + sum(_values(part, known) for part in below)
    return known[id(node)]
