"""Figures as files: the same figure always gives the same bytes, and a file is whole or not there."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import matplotlib
from matplotlib.figure import Figure

from harness.errors import unknown
from harness.figures.canvas import STYLE
from harness.storage.files import write_bytes

Format = Literal["svg", "png", "pdf"]
FORMATS: tuple[Format, ...] = get_args(Format)
DPI = 160  # of files; inside a page a figure has its own
_NO_DATE: dict[Format, dict[str, None]] = {"svg": {"Date": None}, "png": {}, "pdf": {"CreationDate": None}}


def check_formats(formats: Sequence[str]) -> None:
    """Raise UserError for a file format that figures are not written in."""
    for name in formats:
        if name not in FORMATS:
            raise unknown("figure format", str(name), FORMATS)


def render(figure: Figure, name: Format, dpi: float | Literal["figure"] = DPI) -> bytes:
    """The file of a figure in one format."""
    stream = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(stream, format=name, dpi=dpi, metadata=_NO_DATE[name])
    return stream.getvalue()


def save(figure: Figure, stem: Path, formats: Sequence[Format] = ("svg", "png")) -> list[Path]:
    """Write `stem`.svg, `stem`.png, ...; returns the paths.

    Raises StorageError where the folder cannot be written, and leaves what was there.
    """
    check_formats(formats)
    paths = []
    for name in formats:
        path = stem.with_name(f"{stem.name}.{name}")
        write_bytes(path, render(figure, name), what="figures")
        paths.append(path)
    return paths
