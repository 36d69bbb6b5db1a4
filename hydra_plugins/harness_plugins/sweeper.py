"""The sweeper: composes and checks every cell of the grid before the first one runs, then runs them together."""

import logging
from dataclasses import dataclass, field
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser

from harness.config import grid, shared_keys
from harness.config.composed import Composer
from harness.errors import one_line
from hydra_plugins.harness_plugins.launcher import HarnessLauncher, compose, composer_of

log = logging.getLogger(__name__)


class HarnessSweeper(BasicSweeper):
    """Hydra's grid of comma-separated choices, validated as a whole."""

    def __init__(self, params: dict[str, str] | None = None) -> None:
        super().__init__(max_batch_size=None, params=params)

    def sweep(self, arguments: list[str]) -> Any:
        """Run every cell of the grid; exit code 2 for a mistake in any of them, 1 where a cell failed."""
        assert self.launcher is not None
        cells = self._cells(shared_keys.release(arguments))
        if isinstance(self.launcher, HarnessLauncher):
            return self.launcher.launch(cells, initial_job_idx=0)
        return self._elsewhere(cells)

    def _elsewhere(self, cells: list[list[str]]) -> None:
        """Under another launcher, one task a cell; the end is read from files, whatever the launcher returns."""
        from harness.runs import sweep

        assert self.launcher is not None
        sweep.check_launcher(type(self.launcher).__module__)
        configs = compose(self._composer(), cells)
        launch = self.launcher.launch

        def run(missing: list[int]) -> None:
            try:
                launch([list(configs[i].overrides) for i in missing], initial_job_idx=0)
            except Exception as error:
                log.error("the launcher ended with %s: %s", type(error).__name__, one_line(error))

        sweep.elsewhere(configs, run)

    def _composer(self) -> Composer:
        if isinstance(self.launcher, HarnessLauncher):
            return self.launcher.composer
        assert self.hydra_context is not None
        assert self.config is not None
        return composer_of(self.hydra_context, self.config)

    def _cells(self, arguments: list[str]) -> list[list[str]]:
        """The overrides of every cell; what the command line names replaces the preset's own sweep."""
        assert self.hydra_context is not None
        assert self.config is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        given = {a.split("=", 1)[0].lstrip("+~") for a in arguments}
        preset = [p for p in self._parse_config() if p.split("=", 1)[0] not in given]
        overrides = parser.parse_overrides([*preset, *arguments])
        grid.check(overrides)
        (batch,) = self.split_arguments(overrides, None)
        cells, lines = shared_keys.applied(batch, self._composer().tree)
        for line in lines:
            log.warning("%s", line)
        return cells


@dataclass
class SweeperConfig:
    """hydra/sweeper=harness."""

    _target_: str = "hydra_plugins.harness_plugins.sweeper.HarnessSweeper"
    params: dict[str, str] = field(default_factory=dict)


ConfigStore.instance().store(group="hydra/sweeper", name="harness", node=SweeperConfig, provider="harness")
