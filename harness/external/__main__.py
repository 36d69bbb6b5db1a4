"""``python -m harness.external prompts | read | fetch``: an engine's own losses as rows like ours."""

import sys
import uuid
from typing import TYPE_CHECKING, cast

from harness import cli
from harness.errors import UserError, unknown
from harness.external.settings import ACTIONS, Action, of

if TYPE_CHECKING:
    from omegaconf import DictConfig

_action: Action = "prompts"  # Hydra's own command line has no place for it


def main() -> None:
    """Take the action off the command line and compose conf/external.yaml."""
    global _action
    asks_help = any(a in ("--help", "-h", "--cfg", "-c", "--info", "--hydra-help") for a in sys.argv[1:])
    given = sys.argv[1] if len(sys.argv) > 1 else ""
    if given in ACTIONS:
        _action = cast(Action, sys.argv.pop(1))
    elif not asks_help:
        wrong = unknown("action", given, ACTIONS) if given and "=" not in given else None
        cli.exit_with(wrong or UserError(f"external needs an action first: {', '.join(ACTIONS)}, got {given!r}."))
    if {"-m", "--multirun"} & set(sys.argv):
        cli.exit_with(UserError("external takes several lengths as ctx=[512,2048] and runs without -m."))
    cli.run_app(_task, "external", "../conf")


def _task(composed: "DictConfig") -> None:
    from hydra.core.hydra_config import HydraConfig

    from harness.config.checks import plain

    overrides = list(HydraConfig.get().overrides.task)
    settings, configs = of(plain(composed), _action, overrides)

    from harness.cells.documents import Documents
    from harness.external import answers, cells, fetch, finish, prompts
    from harness.results import store
    from harness.runs.summary import figure_path, report

    found = answers.read(settings.path) if _action == "read" else {}
    if _action != "prompts":
        store.check_writable(configs[0].results_dir)
    prepared = cells.prepare(configs, settings, _action, uuid.uuid4().hex)
    documents = Documents()
    windows = [prompts.of(p, documents) for p in prepared]
    if _action == "prompts":
        count, tokens = prompts.write(settings.path, (p for own in windows for p in prompts.flat(own)))
        print(f"prompts  {settings.path}: {count} windows, {tokens} tokens")
        return
    if _action == "read":
        outcomes = finish.read(prepared, settings, documents, windows, found)
    else:
        outcomes = fetch.fetch(prepared, settings, documents, windows)
    report(outcomes, figure_path(prepared[0].cell.config), configs[0].format)
    if not all(outcome.is_done for outcome in outcomes):
        sys.exit(1)


if __name__ == "__main__":
    from harness.external.__main__ import main as imported  # nothing that Hydra looks up may live in __main__

    imported()
