"""Which cells of a directory are looked at."""

import pytest

from harness.config.selection import chosen_selection
from harness.errors import UserError
from harness.results.selection import Selection, load, note_last
from harness.results.under import APART, tables_under
from tests import synthetic


@pytest.fixture
def results(tmp_path):
    synthetic.write(synthetic.sweep(("none", "yarn"), (512, 1024), 2), tmp_path)
    return tmp_path


def found(results, *where, last=False, table="windows"):
    rows = load(results, table, selection=chosen_selection(where, last))
    return sorted(rows["cell_id"].unique())


def test_by_value(results):
    assert len(found(results)) == 4
    assert found(results, "method=none") == ["none-None-1024-2", "none-None-512-2"]
    assert found(results, "method=none,yarn", "ctx=1024") == ["none-None-1024-2", "yarn-2.0-1024-2"]
    assert found(results, "factor=2") == ["yarn-2.0-1024-2"]


def test_last_command(results):
    with pytest.raises(UserError, match="no command has ended"):
        found(results, last=True)
    note_last(results, "python -m harness method=none", ["none-None-512-2"])
    assert found(results, last=True) == ["none-None-512-2"]
    with pytest.raises(UserError, match=r"Unknown method \(where.method\) 'yarn'. Known: none"):
        found(results, "method=yarn", last=True)
    note_last(results, "python -m harness method=yarn", ["gone"])
    with pytest.raises(UserError, match="has no finished cells there"):
        found(results, last=True)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("method", "--where needs COLUMN=VALUE"),
        ("=yarn", "--where needs COLUMN=VALUE"),
        ("method=", "--where needs COLUMN=VALUE"),
        ("metod=yarn", "Unknown column (where) 'metod'. Did you mean 'method'?"),
        ("ctx=4096", "Unknown ctx (where.ctx) '[4096]'"),
    ],
)
def test_conditions_that_are_none(results, where, message):
    with pytest.raises(UserError) as error:
        found(results, where)
    assert str(error.value).startswith(message.replace("'[4096]'", "'4096'"))


def test_a_set_apart_is_read_only_by_its_name(results):
    baseline = results / "baseline"
    synthetic.write(synthetic.sweep(("linear",), (512,), 2), baseline)
    assert len(found(results)) == 5
    (baseline / APART).touch()
    assert len(found(results)) == 4
    assert found(baseline) == ["linear-1.0-512-2"]
    for file in tables_under(results):
        file.unlink()
    with pytest.raises(UserError, match=r"no finished cells .*; sets of their own, to be named as such: .*baseline"):
        found(results)


def test_conditions_keep_other_tables_to_the_same_cells(results):
    rows = load(results, selection=Selection({"method": "none", "ctx": None}))
    assert set(rows["method"]) == {"none"}
