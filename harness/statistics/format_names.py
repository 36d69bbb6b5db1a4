"""The formats of printed tables, by name; imports nothing heavy, so that a wrong one is said at once."""

import sys
from typing import Literal, TextIO, get_args

from harness.errors import unknown

Format = Literal["text", "markdown", "csv", "json"]
FORMATS: tuple[Format, ...] = get_args(Format)


def check_format(name: object) -> Format:
    """The format of this name. Raises UserError where there is none."""
    for known in FORMATS:
        if name == known:
            return known
    raise unknown("format", str(name), FORMATS)


def beside(name: Format) -> TextIO:
    """Where a command prints what is not the table: behind it, or on stderr where another program reads the table."""
    return sys.stdout if name == "text" else sys.stderr
