"""LongRoPE's rescale factors: the named sets, and files in the forms in which such factors are kept."""

import csv
import json
import math
import os
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from harness.errors import UserError, first_line, unknown

FOUND = Path(__file__).with_name("found")  # sets found by harness.search, files as it writes them


class RescaleFactors(NamedTuple):
    """One factor a frequency: `long_factor`, and `short_factor` where the file holds a pair."""

    long_factor: list[float]
    short_factor: list[float] | None = None
    unscaled_prefix: int = 0  # tokens
    temperature: Any = None  # None: not said


class PublishedSet(NamedTuple):
    """What a published set is for, and where it is from."""

    model: str
    role: str  # finetune_search, second_stage_extension or readjust_short_context
    finetuned_ctx: int  # tokens of the fine-tuned model that the set belongs to
    target_ctx: int  # tokens of the windows that the set is for
    source: str


@cache
def published_sets() -> dict[str, PublishedSet]:
    """The factor sets that LongRoPE's authors published, by their file names; arXiv:2402.13753.

    `ft_la2_256k`: LLaMA2-7B fine-tuned at 256k; `2048k_la2_256k`: that model extended to 2048k without training;
    `4k_la2_256k`: the same model's factors for windows of 4k. `mis` is Mistral-7B.
    """
    return {
        row["factors"]: PublishedSet(
            row["model"], row["role"], int(row["finetuned_ctx"]), int(row["target_ctx"]), row["source"]
        )
        for row in _rows("longrope_sets.csv")
    }


@cache
def _published_factors() -> dict[str, list[float]]:
    factors: dict[str, list[float]] = {}
    for row in _rows("longrope_factors.csv"):
        factors.setdefault(row["factors"], []).append(float(row["rescale_factor"]))
    return factors


def _rows(name: str) -> list[dict[str, str]]:
    with Path(__file__).with_name(name).open(newline="") as file:
        return list(csv.DictReader(file))


def named_sets() -> list[str]:
    """Every name that `read` knows: the published sets and those that were found here."""
    return [*published_sets(), *sorted(file.stem for file in FOUND.glob("*.json"))]


def read(name_or_path: str, length: float = math.inf) -> RescaleFactors:
    """The factors of a named set, or of a file (.json, or numbers as text: .csv, .txt), for windows of `length` tokens.

    JSON: a list, or an object with `long_factor` and perhaps `short_factor`, alone or under `rope_scaling` or
    `rope_parameters` as in a model's config; or with `stages`, one object for each `target_ctx`, of which the
    nearest that is not below `length` counts, else the longest. Text: one row or one column, or one row a layer,
    all rows equal. UserError on an unknown set, a missing file, or anything else in it.
    """
    if name_or_path in published_sets():
        return RescaleFactors(list(_published_factors()[name_or_path]))
    path = FOUND / f"{name_or_path}.json" if name_or_path in named_sets() else Path(os.path.expanduser(name_or_path))
    if not os.path.isfile(path):
        if path.suffix in {".json", ".csv", ".txt"}:
            raise UserError(f"longrope: no file with rescale factors at {name_or_path}.")
        raise unknown("set of LongRoPE factors (nor a file)", name_or_path, named_sets())
    return _from_json(path, length) if path.suffix == ".json" else RescaleFactors(_from_text(path))


def _from_json(path: Path, length: float) -> RescaleFactors:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"longrope: {path} is not JSON: {first_line(error)}.") from error
    if isinstance(content, dict):
        content = content.get("rope_scaling") or content.get("rope_parameters") or content
    if not isinstance(content, dict):
        return RescaleFactors(_numbers(path, content))
    short = content.get("short_factor")
    stage = _stage(path, content["stages"], length) if "stages" in content else content
    prefix = stage.get("unscaled_prefix", 0)
    if type(prefix) is not int:
        raise UserError(f"longrope: {path}: unscaled_prefix must be an integer (tokens), got {prefix!r}.")
    return RescaleFactors(
        long_factor=_numbers(path, stage.get("long_factor")),
        short_factor=None if short is None else _numbers(path, short),
        unscaled_prefix=prefix,
        temperature=stage.get("temperature"),
    )


def _stage(path: Path, stages: Any, length: float) -> dict[str, Any]:
    """The stage for windows of `length` tokens."""
    if not isinstance(stages, list) or not stages or not all(_is_stage(stage) for stage in stages):
        raise UserError(f"longrope: {path}: stages must be a list of objects, each with an integer target_ctx.")
    reaching = [stage for stage in stages if stage["target_ctx"] >= length]
    if reaching:
        return min(reaching, key=lambda stage: stage["target_ctx"])
    return max(stages, key=lambda stage: stage["target_ctx"])


def _is_stage(stage: Any) -> bool:
    return isinstance(stage, dict) and type(stage.get("target_ctx")) is int


def _numbers(path: Path, value: Any) -> list[float]:
    if not isinstance(value, list) or not all(type(item) in (int, float) for item in value):
        raise UserError(f"longrope: {path} must hold a list of numbers, alone or as long_factor.")
    try:
        return [float(item) for item in value]
    except OverflowError:
        raise UserError(f"longrope: {path} holds a number that is too large.") from None


def _from_text(path: Path) -> list[float]:
    try:
        rows = np.loadtxt(path, delimiter=",", ndmin=2)
    except (OSError, ValueError) as error:
        reason = first_line(error)
        raise UserError(f"longrope: {path} must hold numbers separated by commas or lines: {reason}.") from error
    if rows.shape[1] == 1:
        return rows[:, 0].tolist()
    if np.any(rows != rows[0]):
        raise UserError(f"longrope: {path} holds different factors for different layers; one row is needed.")
    return rows[0].tolist()
