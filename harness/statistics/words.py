"""What tells data sets, protocols and checkpoints of one name apart, in words that a figure can carry."""

import json
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

Params = Mapping[str, Any]
Line = Mapping[Hashable, Any]

# How a setting of a data set is said; `{}` is its value. Others are said as `key value`.
OF_DATA = {
    "path": "{}",
    "num_documents": "{} documents",
    "max_tokens": "cut at {} tokens",
    "min_tokens": "documents of {} tokens or more",
    "skip": "after the first {} documents",
    "split": "split {}",
    "subset": "subset {}",
    "revision": "revision {:.12}",
    "shorter": "shorter ones: {}",
    "repeats": "{} repeats",
    "depths": "depths {}",
    "distractors": "{} distractors",
    "digits": "numbers of {} digits",
    "templates": "templates {}",
}
ABSENT = {
    "num_documents": "all documents",
    "max_tokens": "not cut",
    "max_windows": "every window",
    "templates": "all templates",
}


def texts(table: pd.DataFrame) -> pd.Series:
    """For every row, what tells its text from others of the same data set's name; empty where there is one."""
    return _apart(table, "dataset", "dataset_fingerprint", "dataset_params", OF_DATA, "text")


def protocols(table: pd.DataFrame) -> pd.Series:
    """For every row, the settings in which protocols of one name differ; empty where they do not."""
    return _apart(table, "protocol", "protocol_params", "protocol_params", {}, "setting")


def checkpoints(table: pd.DataFrame) -> list[str]:
    """For every row, what its weights were read from: what names them, and of namesakes what tells them apart."""
    lines: Sequence[Line] = table.to_dict("records")
    ways = [[way(line) for line in lines] for way in (_source, _revised, _in_place, placed)]
    names, longer = ways[0], max(ways, key=lambda told: len(set(told)))
    return last_parts([more if names.count(name) > 1 else name for name, more in zip(names, longer, strict=True)])


def placed(line: Line) -> str:
    """What weights were read from, with the folders above it, and its revision where it is of a hub."""
    return in_folder(line.get("model_folder"), _revised(line))


def _source(line: Line) -> str:
    return str(line["model_source"])


def _in_place(line: Line) -> str:
    return in_folder(line.get("model_folder"), _source(line))


def _revised(line: Line) -> str:
    revision = line.get("model_revision")
    return _source(line) + (f" revision {revision:.12}" if isinstance(revision, str) and revision else "")


def _apart(
    table: pd.DataFrame, name: str, identity: str, params: str, sayings: Mapping[str, str], noun: str
) -> pd.Series:
    words = pd.Series("", index=table.index)
    for _, rows in table.groupby(name, dropna=False):
        first = rows.drop_duplicates(identity).sort_values(identity)
        if len(first) < 2:
            continue
        settings = [_settings(row, name, params) for row in first.to_dict("records")]
        phrases = numbered(distinguishing(settings, sayings), noun)
        words[rows.index] = rows[identity].map(dict(zip(first[identity], phrases, strict=True)))
    return words


def _settings(row: Line, name: str, params: str) -> Params:
    """Of a row, as JSON values; of a data set with its place."""
    known = _flat(json.loads(row[params])) if isinstance(row.get(params), str) else {}
    if name == "dataset" and isinstance(source := row["dataset_source"], str):
        known = {"path": in_folder(row.get("dataset_folder"), source)} | known
    return known


def _flat(settings: Params) -> dict[str, Any]:
    """Settings in groups (those of needles) beside the others, by their own names."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= value if isinstance(value, dict) else {key: value}
    return flat


def in_folder(folder: object, name: str) -> str:
    """A name behind the folders that it lies in, where they are known."""
    return f"{folder}/{name}" if isinstance(folder, str) and folder else name


def distinguishing(settings: Sequence[Params], sayings: Mapping[str, str]) -> list[str]:
    """A phrase for each, of as few settings as tell all of them apart; equal ones have equal phrases."""
    keys = [*sayings, *sorted({key for one in settings for key in one} - set(sayings))]
    differ = [key for key in keys if len({_text(one, key) for one in settings}) > 1]
    chosen: list[str] = []
    for key in differ:
        if _count(settings, [*chosen, key]) > _count(settings, chosen):
            chosen.append(key)
    chosen = [key for key in chosen if _count(settings, [k for k in chosen if k != key]) < _count(settings, chosen)]
    paths = [str(one["path"]) for one in settings if "path" in one]
    ends = dict(zip(paths, last_parts(paths), strict=True)) if "path" in chosen else {}
    return [", ".join(_said(one, key, sayings, ends) for key in chosen) for one in settings]


def _text(one: Params, key: str) -> str:
    return json.dumps(one.get(key))


def _count(settings: Sequence[Params], keys: Sequence[str]) -> int:
    return len({tuple(_text(one, key) for key in keys) for one in settings})


def _said(one: Params, key: str, sayings: Mapping[str, str], ends: Mapping[str, str]) -> str:
    value = one.get(key)
    if value is None:
        return ABSENT.get(key, f"no {key}")
    if isinstance(value, list):
        value = ", ".join(f"{one:g}" if isinstance(one, float) else str(one) for one in value)
    return sayings.get(key, f"{key} {{}}").format(ends.get(value, value) if key == "path" else value)


def numbered(phrases: Sequence[str], noun: str) -> list[str]:
    """Phrases as they are, those that occur several times with a number: what differs is not known (an edited file)."""
    made = []
    for place, phrase in enumerate(phrases):
        of = phrases.count(phrase)
        number = f"{noun} {phrases[:place].count(phrase) + 1} of {of}" if of > 1 else ""
        made.append(", ".join(part for part in (phrase, number) if part))
    return made


def last_parts(paths: Sequence[str]) -> list[str]:
    """The last parts of paths, as many as tell them apart."""
    parts = [path.rstrip("/").split("/") for path in paths]
    ends = list(paths)
    for count in range(1, max(map(len, parts), default=1) + 1):
        ends = ["/".join(part[-count:]) for part in parts]
        if len(set(ends)) == len(set(paths)):
            break
    return ends
