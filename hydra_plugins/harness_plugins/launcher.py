"""The launcher: composes every cell of a sweep now, checks it, and hands all of them to the harness."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from harness.config.composed import Composer

if TYPE_CHECKING:
    from harness.config.schema import Config


class HarnessLauncher(Launcher):
    """Runs all cells together, where the group `cluster` says: they share models, documents and passes.

    Configurations are composed here and travel as data, so that a file edited later changes no queued cell.
    """

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what composing a cell needs."""
        self.composer = composer_of(hydra_context, config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Any:
        """Compose and check every cell, then run them."""
        configs = compose(self.composer, job_overrides)

        from harness.runs import sweep  # pandas, which a mistake need not wait for

        return sweep.main(configs, sweep=True)


def composer_of(context: HydraContext, config: DictConfig) -> Composer:
    """Composes the cells of a sweep."""
    loader = context.config_loader
    return Composer(partial(loader.load_sweep_config, config), lambda key: bool(loader.get_group_options(key)))


def compose(composer: Composer, cells: Sequence[Sequence[str]]) -> "list[Config]":
    """The configuration of every cell, and behind them of the short windows that they ask for.

    Raises UserError that says which cell is wrong, by what sets it apart.
    """
    from harness.config.schema import config_of
    from harness.errors import UserError
    from harness.logs import progress

    made = []
    common = set(cells[0]).intersection(*cells) if len(cells) > 1 else set()
    for overrides in progress(cells, "composing", "cell"):
        try:
            made.append(config_of(composer.values(overrides), overrides))
        except UserError as error:
            apart = " ".join(o for o in overrides if o not in common)
            raise UserError(f"{error} [{apart}]" if len(cells) > 1 else str(error)) from error
    asking = ((one, one.short_windows) for one in made if one.protocol.name == "single_pass")
    beside = dict.fromkeys(tuple(short.overrides(one.overrides)) for one, short in asking if short is not None)
    return [*made, *(config_of(composer.values(overrides), overrides) for overrides in beside)]


@dataclass
class LauncherConfig:
    """hydra/launcher=harness_local."""

    _target_: str = "hydra_plugins.harness_plugins.launcher.HarnessLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="harness_local", node=LauncherConfig, provider="harness")
