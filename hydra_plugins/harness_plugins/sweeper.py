"""The sweeper: composes and checks every cell of the grid before the first one runs, then runs them together."""

from dataclasses import dataclass, field
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser

from hydra_plugins.harness_plugins.launcher import HarnessLauncher


class HarnessSweeper(BasicSweeper):
    """Hydra's grid of comma-separated choices, validated as a whole."""

    def __init__(self, params: dict[str, str] | None = None) -> None:
        super().__init__(max_batch_size=None, params=params)

    def sweep(self, arguments: list[str]) -> Any:
        """Run every cell of the grid; exit code 2 for a mistake in any of them, 1 where a cell failed."""
        assert self.launcher is not None
        cells = self._cells(arguments)
        self.validate_batch_is_legal(cells)
        if isinstance(self.launcher, HarnessLauncher):
            return self.launcher.launch(cells, initial_job_idx=0)
        return [self.launcher.launch(cells, initial_job_idx=0)]  # a stock launcher: one task a cell

    def _cells(self, arguments: list[str]) -> list[list[str]]:
        """The overrides of every cell; what the command line names replaces the preset's own sweep."""
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        given = {a.split("=", 1)[0].lstrip("+~") for a in arguments}
        preset = [p for p in self._parse_config() if p.split("=", 1)[0] not in given]
        (batch,) = self.split_arguments(parser.parse_overrides([*preset, *arguments]), None)
        return [list(cell) for cell in batch]


@dataclass
class SweeperConfig:
    """hydra/sweeper=harness."""

    _target_: str = "hydra_plugins.harness_plugins.sweeper.HarnessSweeper"
    params: dict[str, str] = field(default_factory=dict)


ConfigStore.instance().store(group="hydra/sweeper", name="harness", node=SweeperConfig, provider="harness")
