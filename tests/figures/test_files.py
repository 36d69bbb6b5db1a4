from pathlib import Path

import pandas as pd
import pytest

from harness.errors import UserError
from harness.figures import curves
from harness.figures.files import save
from harness.statistics.summary import summarize
from harness.storage.files import StorageError
from tests import synthetic
from tests.disks import no_room


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return synthetic.sweep()


@pytest.fixture(scope="module")
def summary(rows: pd.DataFrame) -> pd.DataFrame:
    return summarize(rows)


def test_saved_files_are_reproducible(summary: pd.DataFrame, tmp_path: Path) -> None:
    first = save(curves.perplexity(summary), tmp_path / "a" / "perplexity")
    second = save(curves.perplexity(summary), tmp_path / "b" / "perplexity")
    assert [path.name for path in first] == ["perplexity.svg", "perplexity.png"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    with pytest.raises(UserError, match="Unknown figure format 'jpg'"):
        save(curves.perplexity(summary), tmp_path / "c", ["jpg"])


def test_where_there_is_no_room_the_old_figure_stays(summary: pd.DataFrame, tmp_path: Path) -> None:
    paths = save(curves.perplexity(summary), tmp_path / "perplexity")
    before = {path: path.read_bytes() for path in paths}
    other = curves.perplexity(summary[summary["method"] != "none"])
    with no_room(4096), pytest.raises(StorageError, match=r"figures cannot be written to .*: File too large") as raised:
        save(other, tmp_path / "perplexity")
    assert "\n" not in str(raised.value)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    save(other, tmp_path / "perplexity")
    assert all(path.read_bytes() != old for path, old in before.items())
