"""A worker of cluster=gpus: reads its cells from standard input, and ends when the process that started it does.

Exit code 0: every cell is finished or has failed. Anything else: cells are left to others.
"""

import os
import pickle
import sys
import threading
from typing import IO

from harness.logs import configure_logging, quiet_bars

CELLS_LEFT = 75


def main() -> None:
    """Compute the cells that come in."""
    quiet_bars()
    configure_logging()
    from harness.runs.cluster.compute import compute  # imports torch and tqdm

    with open(0, "rb", buffering=0, closefd=False) as stream:
        pack = pickle.loads(_read(stream, int.from_bytes(_read(stream, 8), "little")))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    outcomes = compute(pack)
    sys.exit(CELLS_LEFT if any(o.status == "missing" for o in outcomes) else 0)


def _read(stream: IO[bytes], size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = stream.read(size - len(data))
        if not part:
            sys.exit("started without cells")
        data += part
    return data


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)  # leases and temporary files are taken over and removed by whoever goes on


if __name__ == "__main__":
    main()
