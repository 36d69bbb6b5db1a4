"""Options of compare and report that choose cells: `--where COLUMN=VALUE`, `--last`."""

import argparse
import ast
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.errors import UserError

if TYPE_CHECKING:
    from harness.results.selection import Selection


def add_selection(parser: argparse.ArgumentParser, last: str) -> None:
    """Put the options on a command line; `last` says what `--last` does there."""
    group = parser.add_argument_group("cells")
    group.add_argument(
        "--where", action="append", default=[], metavar="COLUMN=VALUE[,VALUE]",
        help="only cells with these values, as --where method=yarn,none --where ctx=4096",
    )  # fmt: skip
    group.add_argument("--last", action="store_true", help=last)


def chosen_selection(where: Sequence[str], last: bool = False) -> "Selection":
    """The cells that the options name. Raises UserError for a condition that is none."""
    from harness.results.selection import Selection

    conditions = {}
    for condition in where:
        column, equals, values = condition.partition("=")
        if not (column and equals and values):
            raise UserError(f"--where needs COLUMN=VALUE, or several values by commas, got {condition!r}.")
        conditions[column] = [_value(value) for value in values.split(",")]
    return Selection(conditions, last)


def _value(text: str) -> object:
    """A number as a number, anything else as it is typed."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return value if isinstance(value, int | float) else text
