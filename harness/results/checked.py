"""Tables that were read while they were checked: who reads them next need not read them again."""

from pathlib import Path
from threading import Lock

import pyarrow as pa

from harness.results import parquet
from harness.results.parquet import Footer


class Checked:
    """Tables that were read while they were checked, for the one who asks for them next."""

    def __init__(self, most: int) -> None:
        self.free = most  # bytes
        self._lock = Lock()
        self._read: dict[tuple[Path, tuple[int, ...]], tuple[Footer, pa.Table]] = {}

    def keep(self, file: Path, state: tuple[int, ...], found: tuple[Footer, pa.Table]) -> None:
        """Remember what was read of a file in a state of it, where there is room."""
        with self._lock:
            if found[1].nbytes <= self.free:
                self.free -= found[1].nbytes
                self._read[file, state] = found

    def take(self, file: Path) -> tuple[Footer, pa.Table] | None:
        """What was read of the file, if it is as it was; forgotten with that. Raises as `parquet.state`."""
        state = parquet.state(file)
        with self._lock:
            found = self._read.pop((file, state), None)
            self.free += found[1].nbytes if found else 0
        return found
