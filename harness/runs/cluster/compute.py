"""A pack of cells computed by the process that received it."""

import logging
import traceback

from harness.cells.files import Outcome
from harness.errors import one_line
from harness.results import store
from harness.runs import runner
from harness.runs.cluster.pack import Pack
from harness.runs.provenance import source

log = logging.getLogger(__name__)


def compute(pack: Pack) -> list[Outcome]:
    """Compute the cells here; a mistake that concerns all of them fails each of them in its own log."""
    if source() != pack.source:
        log.warning("the harness's code has changed since this sweep was started; going on with the present code")
    for results in {config.results_dir for config in pack.configs}:
        store.check_writable(results)
    try:
        prepared = pack.prepared()
    except Exception as error:
        message = f"{type(error).__name__}: {one_line(error)}"
        text = "".join(traceback.format_exception(error))
        for files in pack.cells:
            files.write_failure(message, text)
        return [Outcome(files, "failed", message) for files in pack.cells]
    return runner.run(prepared)
