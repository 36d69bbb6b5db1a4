"""Which cells form one line, which lines share a panel, and how they are called."""

import json
from collections.abc import Sequence

import pandas as pd

from harness.errors import UserError
from harness.statistics import words

PANEL = [
    "model", "model_revision", "original_max_position_embeddings", "dataset", "dataset_source", "dataset_fingerprint",
    "protocol", "protocol_params", "dtype", "base",
]  # fmt: skip
Setting = (
    str | float | list[float] | dict[str, str | float | None] | None
)  # of a method's parameter, as it stands in JSON


def label(summary: pd.DataFrame) -> pd.DataFrame:
    """The table with a column `curve`, the name of the line a cell lies on, and columns that tell panels apart.

    `text` and `setting`: what tells data sets and protocols of one name apart, in words (`harness.statistics.words`).

    A factor is named where it was fixed, not where it is the automatic max(1, ctx /
    original_max_position_embeddings). A cell that both rules give (they meet at one length) lies on both
    lines and is repeated. Other parameters are named where they differ between cells of one method.
    """
    if summary.empty:
        return summary.assign(curve=pd.Series(dtype=str))
    if "base" in summary:
        summary = summary.assign(base=summary["base"].fillna(""))  # cells of before there were bases have none
    summary = summary.assign(text=words.texts(summary), setting=words.protocols(summary))
    names = _varying_names(summary)
    apart = summary.groupby(PANEL, sort=False, dropna=False)
    return _distinguished(pd.concat([_curves(rows, names[rows.index]) for _, rows in apart], ignore_index=True))


def _curves(rows: pd.DataFrame, names: pd.Series) -> pd.DataFrame:
    """The cells of one panel with their lines; names: those of their methods, by row."""
    automatic = (rows["ctx"] / rows["original_max_position_embeddings"]).clip(lower=1)
    follows = rows["factor"].isna() | ((rows["factor"] - automatic).abs() < 1e-9)
    parts = [rows[follows].assign(curve=names[follows])]
    fixed = set(zip(names[~follows], rows.loc[~follows, "factor"], strict=True))
    for (name, factor), line in rows.groupby([names, rows["factor"]]):
        if (name, factor) in fixed:  # with cells at which it meets the automatic one
            parts.append(line.assign(curve=f"{name}, factor {factor:g}"))
    return pd.concat(_without_shadows(parts))


def _without_shadows(parts: list[pd.DataFrame]) -> list[pd.DataFrame]:
    """Leave out automatic lines that are a single meeting point with a fixed line and nothing more."""
    automatic, fixed = parts[0], parts[1:]
    if not fixed:
        return parts
    shared = set(pd.concat(fixed)["cell_id"])
    own = automatic.groupby("curve")["cell_id"].transform(lambda ids: not set(ids) <= shared)
    return [automatic[own.astype(bool)], *fixed]


def _distinguished(table: pd.DataFrame) -> pd.DataFrame:
    """Cells that would lie on one place of one line (of two checkpoints under one name, for example) each get one.

    Named by what their model was read from where that tells them apart, otherwise by the version that identified them,
    or by a number.
    """
    table = table.assign(curve=_by_checkpoint(table))
    curve = table["curve"].copy()
    place = [*PANEL, "ctx", "curve"]
    cells = table.groupby(place, dropna=False)["cell_id"].transform("nunique")
    for _, rows in table[cells > 1].groupby(place, dropna=False):
        rows = rows.sort_values("cell_id")
        versions = [f"identified by version {version:.0f}" for version in rows["identity_version"].fillna(1)]
        told = versions if len(set(versions)) == len(rows) else words.numbered([""] * len(rows), "cell")
        curve[rows.index] = rows["curve"] + ", " + pd.Series(told, index=rows.index)
    return table.assign(curve=curve)


def _by_checkpoint(table: pd.DataFrame) -> pd.Series:
    """Names of lines with what their model was read from, where one model's name stands for several."""
    if not {"model_source", "model_fingerprint"} <= set(table):
        return table["curve"]
    curve = table["curve"].copy()
    for _, rows in table.dropna(subset=["model_fingerprint"]).groupby("model"):
        first = rows.drop_duplicates("model_fingerprint").sort_values("model_fingerprint")
        if len(first) > 1:
            names = words.numbered(words.checkpoints(first), "weights")
            known = dict(zip(first["model_fingerprint"], names, strict=True))
            curve[rows.index] = rows["curve"] + ", " + rows["model_fingerprint"].map(known)
    return curve


def _varying_names(summary: pd.DataFrame) -> pd.Series:
    """Method names with the parameters, other than the factor, that differ between cells of one method.

    What a cell does not give (a modifier that it runs without) is not named.
    """
    params = summary["method_params"].map(_params)
    names = summary["method"].astype(str).copy()
    for _, rows in summary.groupby("method"):
        keys = sorted({key for index in rows.index for key in params[index]})
        varying = [key for key in keys if len({str(params[index].get(key)) for index in rows.index}) > 1]
        for index in rows.index:
            given = [f"{key} {_short(value)}" for key in varying if (value := params[index].get(key)) is not None]
            names[index] = ", ".join([str(names[index]), *given])
    return names


def _params(text: str) -> dict[str, Setting]:
    return {key: value for key, value in json.loads(text).items() if key != "factor"}


def _short(value: Setting) -> str:
    if isinstance(value, list):
        return f"[{value[0]:g} ... {value[-1]:g}]" if value else "[]"
    if isinstance(value, dict):  # a query scale: its form, and what it gives
        given = ", ".join(f"{key} {_short(one)}" for key, one in value.items() if key != "name" and one is not None)
        return f"{value['name']} ({given})" if given else str(value["name"])
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if value.is_integer() else f"{value:g}"  # a base of 3313438 in full


def panels(
    table: pd.DataFrame, x: str, hue: str, columns: Sequence[str] | None = None
) -> list[tuple[str, pd.DataFrame]]:
    """(title, rows) of each panel; by default one for every combination of what is not x or hue.

    A title names what differs between panels. Two cells on one place of one line are an error that
    names the columns in which they differ.
    """
    for name in [x, hue, *(columns or [])]:
        if not isinstance(name, str) or name not in table:
            raise UserError(f"There is no column {name!r} to draw by. Known: {', '.join(sorted(table.columns))}.")
    known = [name for name in [*PANEL, "curve"] if name in table and name not in (x, hue)]
    by = list(columns) if columns is not None else [n for n in known if table[n].nunique() > 1]
    groups = list(table.groupby(by, sort=True, dropna=False)) if by else [((), table)]
    for _, rows in groups:
        _check_one_a_place(rows, x, hue, known)
    told = [name for name in by if name != "dataset_source" or "dataset_fingerprint" not in by]  # that says both
    return [(describe(rows, told), rows) for _, rows in groups]


def _check_one_a_place(rows: pd.DataFrame, x: str, hue: str, known: list[str]) -> None:
    twice = rows[rows.duplicated([x, hue], keep=False)]
    if twice.empty:
        return
    place = twice.iloc[0]
    same = twice[(twice[x] == place[x]) & (twice[hue] == place[hue])]
    differ = [name for name in [*known, "experiment", "method_params", "ctx"] if same[name].nunique() > 1]
    raise UserError(
        f"{len(same)} cells lie on one place of line {place[hue]!r} at {x} {place[x]}; "
        f"give hue or columns that tell them apart ({', '.join(differ) or ', '.join(same['cell_id'])})."
    )


def describe(rows: pd.DataFrame, names: Sequence[str]) -> str:
    """The values of `names` that all rows share, in one phrase; of a protocol `stride 256, bos none`."""
    phrases = [_phrase(name, rows) for name in names if name in rows and rows[name].nunique() == 1]
    return ", ".join(phrase for phrase in phrases if phrase)


def _phrase(name: str, rows: pd.DataFrame) -> str:
    value = rows[name].iloc[0]
    text, setting = (str(rows[word].iloc[0]) if word in rows else "" for word in ("text", "setting"))
    if name == "dataset_source":
        return "" if text or value == rows["dataset"].iloc[0] else str(value)
    if name == "dataset_fingerprint":
        return text
    if name == "base":
        return f"KL to {value}" if value else ""
    if name == "model_revision":
        return f"revision {value:.12}"
    if name == "protocol_params" and isinstance(value, str):
        settings = json.loads(value).items()
        return setting or ", ".join(f"{key} {given}" for key, given in settings if given is not None)
    if name in ("ctx", "original_max_position_embeddings"):
        return f"{'ctx' if name == 'ctx' else 'trained at'} {tokens(float(value))}"
    return str(value)


def tokens(count: float) -> str:
    """A number of tokens as people write it: 512, 1k, 1.5k, 2M (binary thousands)."""
    for unit, letter in ((1 << 20, "M"), (1 << 10, "k")):
        if count >= unit and count * 4 % unit == 0:
            return f"{count / unit:g}{letter}"
    return f"{count:g}" if count < 1e5 else f"{count:.0f}"
