"""Launchers: where the cells of a sweep run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class HarnessLauncher(Launcher):
    """Runs all cells in this process, so that they share models, documents and passes."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what composing a cell needs."""
        self.hydra_context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Any:
        """Compose and check every cell, then run them."""
        from harness import config, runner
        from harness.errors import UserError

        cells = []
        for overrides in job_overrides:
            composed = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
            try:
                cells.append(config.parse(composed))
            except UserError as error:
                raise UserError(f"{error} [{' '.join(overrides)}]") from error
        return runner.main(cells)


@dataclass
class LauncherConfig:
    """hydra/launcher=harness_local."""

    _target_: str = "hydra_plugins.harness_plugins.launcher.HarnessLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="harness_local", node=LauncherConfig, provider="harness")
