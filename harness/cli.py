"""The command line: composes with Hydra, runs cells, and reports mistakes in one line. Light: torch is not imported."""

import functools
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import NoReturn

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from harness import console, torchrun
from harness.config import composing, own_files, shared_keys
from harness.errors import UserError, one_line, unknown
from harness.logs import configure_logging
from harness.methods import METHODS
from harness.runs.interrupts import keep_interrupts

INTERRUPTED = {  # what Ctrl-C leaves behind, by command
    "config": "interrupted; finished cells are kept, the same command goes on from here",
    **dict.fromkeys(("search", "train"), "interrupted; the same command goes on from what was saved"),
}


def main() -> None:
    """``python -m harness``: one cell, or with -m a sweep; under torchrun by all its processes together."""
    if torchrun.size() == 1:
        return run_app(_task, "config")
    from harness.runs.ranks import lead

    configure_logging()
    lead.run(lambda: run_app(_task, "config"))


def _task(composed: DictConfig) -> None:
    """One cell. A sweep does not come here: the harness sweeper runs its cells together."""
    from harness.config.schema import parse

    hydra_config = HydraConfig.get()
    overrides = list(hydra_config.overrides.task)
    is_cell_of_sweep = hydra_config.mode == RunMode.MULTIRUN  # under a launcher that is not ours
    if hydra_config.sweeper.params and not is_cell_of_sweep:
        raise _needs_m("this experiment is a sweep", overrides)
    parsed = parse(composed, overrides)

    from harness.runs import sweep  # pandas, which a mistake need not wait for

    if is_cell_of_sweep:
        sweep.one_cell(parsed)
        return
    if parsed.short_windows is not None:
        raise _needs_m("short_windows are cells beside this one", overrides)
    if parsed.cluster.name != "local":
        raise _needs_m(f"cluster={parsed.cluster.name} runs sweeps", overrides)
    if not str(hydra_config.launcher._target_).startswith("hydra_plugins.harness_plugins."):
        raise _needs_m("hydra/launcher is of use for sweeps", overrides)
    sweep.main([parsed], sweep=False)


def _needs_m(reason: str, overrides: Sequence[str]) -> UserError:
    return UserError(f"{reason}; run it with -m: {shlex.join(['python', '-m', 'harness', '-m', *overrides])}")


BASE = re.compile(r"(\+*)base\.(model|method)=(.*)")


def with_base_groups(arguments: Sequence[str]) -> list[str]:
    """`base.model=NAME` as Hydra says it, `model@base.model=NAME`; the same of methods."""
    return [BASE.sub(r"\1\2@base.\2=\3", a) if BASE.fullmatch(a) else a for a in arguments]


def run_sweep(overrides: Sequence[str]) -> DictConfig:
    """What `python -m harness -m` does with these overrides, in this process; returns the configuration before them.

    Raises UserError for a mistake, and SystemExit(1) where a cell failed.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"
    configure_logging()
    before = sys.argv
    sys.argv = [
        "harness",
        "-m",
        *with_base_groups(overrides),
    ]  # where keys wait, and what results say of the command that made them
    shared_keys.hold()
    own_files.guard()
    try:
        with hydra.initialize_config_module("harness.conf", **_version_base()):
            app = GlobalHydra.instance().hydra
            assert app is not None
            app.multirun("config", _never, sys.argv[2:], with_log_configuration=False)
            return app.compose_config("config", [], run_mode=RunMode.RUN, with_log_configuration=False)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(said_by(error)) from error
    except Exception as error:
        if isinstance(error, UserError) or (mistake := composing.mistake(error)) is None:
            raise
        raise UserError(mistake) from error
    finally:
        sys.argv = before


def _never(_composed: DictConfig) -> None:
    raise AssertionError("the harness sweeper runs its cells together")


def _version_base() -> dict[str, str]:
    return {"version_base": "1.3"} if int(version("hydra-core").split(".")[1]) < 4 else {}  # from 1.4 on deprecated


def _with_format(arguments: Sequence[str]) -> list[str]:
    """Arguments with `--format NAME`, as compare takes it, as the override that Hydra understands."""
    words = list(arguments)
    for place, word in enumerate(words):
        if word == "--format" and place + 1 < len(words):
            words[place : place + 2] = [f"format={words[place + 1]}"]
        elif word.startswith("--format="):
            words[place] = word.removeprefix("--")
    return words


def run_app(task: Callable[[DictConfig], object], config_name: str, conf: str = "conf") -> None:
    """Run a Hydra app over conf/<config_name>.yaml; a user's mistake becomes one line and exit code 2.

    `conf`: the folder of configuration, from that of the task's module.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions reach us instead of being printed by Hydra
    options = {"config_path": conf, "config_name": config_name, **_version_base()}
    with console.guarded(INTERRUPTED.get(config_name, "interrupted")):
        configure_logging()
        keep_interrupts()
        sys.argv[1:] = with_base_groups(_with_format(sys.argv[1:]))
        if torchrun.size() > 1 and config_name != "config":
            exit_with(UserError(f"python -m harness.{config_name} runs in one process: run it without torchrun."))
        if config_name == "config":
            shared_keys.hold()
        own_files.guard()
        try:
            hydra.main(**options)(_reported_at_once(task))()
        except (UserError, HydraException, OmegaConfBaseException) as error:
            exit_with(error)
        except Exception as error:
            if (mistake := composing.mistake(error)) is None:
                raise
            exit_with(UserError(mistake))


def _reported_at_once(task: Callable[[DictConfig], object]) -> Callable[[DictConfig], object]:
    """The task with a user's mistake reported at once: Hydra would put a line of its own in front."""

    @functools.wraps(task)
    def reporting(composed: DictConfig) -> object:
        try:
            return task(composed)
        except (UserError, OmegaConfBaseException) as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise  # to a launcher that is not ours
            exit_with(error)

    return reporting


def exit_with(error: Exception) -> NoReturn:
    """Print a user's mistake in one line and leave with exit code 2."""
    print(f"error: {said_by(error)}", file=sys.stderr)
    sys.exit(2)


def said_by(error: Exception) -> str:
    """What is wrong, what is allowed, what was given; Hydra's many lines in one."""
    if isinstance(error, UserError):
        return one_line(error)
    if isinstance(error, MissingConfigException) and error.options is not None and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        if group == "method" and name in METHODS:
            return f"conf/method/{name}.yaml is missing: write it, with the line `name: {name}`"
        return str(unknown(group or "config", name, error.options))
    text = one_line(error)
    if found := re.search(r"Could not override '([^']+)'", text):
        return _unknown_key(found[1], error.__cause__)
    if isinstance(error, OverrideParseException):
        text = re.sub(r"Error when parsing index: .*\]\. ", "", text)  # Hydra 1.4 repeats the whole command
        reason = text.split("See https")[0].strip()
        return f"override {error.override!r} is not of the form key=value: {reason}{_quoted(error.override)}"
    if isinstance(error, ConfigCompositionException) and error.__cause__ is not None:
        return f"{text} ({one_line(error.__cause__)})"
    return text


def _quoted(override: str) -> str:
    """How a name of a file goes past Hydra's grammar, which gives a meaning to `=`, brackets and more."""
    key, _, value = override.partition("=")
    if not re.search(r"[/=.]", value) or '"' in value:
        return ""
    return "; quote a value that is a name: " + shlex.quote(f'{key}="{value}"')


def _unknown_key(key: str, cause: BaseException | None) -> str:
    """That a key does not exist, and which do beside it under the groups that were chosen."""
    if now := shared_keys.renamed(key):
        return now
    beside = getattr(cause, "parent_node", None)
    if not isinstance(beside, DictConfig) or not len(beside):
        return f"key {key!r} does not exist: {key.rpartition('.')[0]} is a value"
    group = beside._get_full_key(None)
    names = [str(name) for name in beside if name != "hydra"]
    return str(unknown("key", key, [f"{group}.{name}" for name in names] if group else names))
