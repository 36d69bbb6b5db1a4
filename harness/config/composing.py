"""What is wrong with configuration that cannot be composed: a YAML file of the user's own, or Hydra's own settings."""

from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType

import hydra
from yaml import MarkedYAMLError

from harness.errors import one_line
from hydra_plugins import harness_plugins  # found even where Hydra imported it, which sets no attribute of the parent

HYDRA, PLUGINS = (f"{next(iter(package.__path__))}/" for package in (hydra, harness_plugins))
HARNESS = f"{Path(__file__).parents[1]}/"


def mistake(error: Exception) -> str | None:
    """In one line what Hydra could not do with what it was given; None where the error is of this package's making."""
    frames = list(_frames(error.__traceback__))
    if not frames or not _is_of_hydra(frames):
        return None
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}: {error.problem or error.context}"
    if str(error).startswith("Config group override"):
        return "a group needs one of its choices by name, got null: leave it out for its default"
    file = _file(frames)
    said = one_line(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {one_line(error)}"
    return f"{file}: {said}" if file else f"configuration: {said}"


def _frames(trace: TracebackType | None) -> Iterator[FrameType]:
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next


def _is_of_hydra(frames: list[FrameType]) -> bool:
    """Whether Hydra, not this package, called what raised."""
    for frame in reversed(frames):
        file = frame.f_code.co_filename
        if file.startswith((HARNESS, PLUGINS)):
            return False
        if file.startswith(HYDRA):
            return True
    return False


def _file(frames: list[FrameType]) -> str | None:
    """The file that Hydra was reading, which errors within it do not name."""
    for frame in reversed(frames):
        path = frame.f_locals.get("full_path")
        if isinstance(path, str) and Path(path).suffix in (".yaml", ".yml"):
            return path
    return None
