"""LongRoPE's rescale factors: the published sets, and files in the forms in which such factors are kept."""

import csv
import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from harness.errors import UserError, unknown


class RescaleFactors(NamedTuple):
    """One factor a frequency: `long_factor`, and `short_factor` where the file holds a pair."""

    long_factor: list[float]
    short_factor: list[float] | None = None


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


def read(name_or_path: str) -> RescaleFactors:
    """The factors of a published set, or of a file (.json, or numbers as text: .csv, .txt).

    JSON: a list, or an object with `long_factor` and perhaps `short_factor`, alone or under `rope_scaling` or
    `rope_parameters` as in a model's config. Text: one row or one column, or one row a layer, all rows equal.
    UserError on an unknown set, a missing file, or anything else in it.
    """
    if name_or_path in published_sets():
        return RescaleFactors(list(_published_factors()[name_or_path]))
    path = Path(name_or_path).expanduser()
    if not path.is_file():
        if path.suffix in {".json", ".csv", ".txt"}:
            raise UserError(f"longrope: no file with rescale factors at {name_or_path}.")
        raise unknown("set of LongRoPE factors (nor a file)", name_or_path, published_sets())
    return _from_json(path) if path.suffix == ".json" else RescaleFactors(_from_text(path))


def _from_json(path: Path) -> RescaleFactors:
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"longrope: {path} is not JSON: {error}.") from error
    if isinstance(content, dict):
        content = content.get("rope_scaling") or content.get("rope_parameters") or content
    if isinstance(content, dict):
        short = content.get("short_factor")
        return RescaleFactors(
            _numbers(path, content.get("long_factor")), None if short is None else _numbers(path, short)
        )
    return RescaleFactors(_numbers(path, content))


def _numbers(path: Path, value: Any) -> list[float]:
    if not isinstance(value, list) or not all(type(item) in (int, float) for item in value):
        raise UserError(f"longrope: {path} must hold a list of numbers, alone or as long_factor.")
    return [float(item) for item in value]


def _from_text(path: Path) -> list[float]:
    try:
        rows = np.loadtxt(path, delimiter=",", ndmin=2)
    except ValueError as error:
        raise UserError(f"longrope: {path} must hold numbers separated by commas or lines: {error}.") from error
    if rows.shape[1] == 1:
        return rows[:, 0].tolist()
    if np.any(rows != rows[0]):
        raise UserError(f"longrope: {path} holds different factors for different layers; one row is needed.")
    return rows[0].tolist()
