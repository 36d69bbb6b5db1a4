"""Which cells form one line, which lines share a panel, and how they are called."""

import json
from collections.abc import Sequence

import pandas as pd

from harness.errors import UserError

PANEL = [
    "model", "model_revision", "original_max_position_embeddings", "dataset", "dataset_source", "dataset_fingerprint",
    "protocol", "protocol_params", "dtype",
]  # fmt: skip
Setting = str | float | list[float] | None  # of a method's parameter, as it stands in JSON


def label(summary: pd.DataFrame) -> pd.DataFrame:
    """The table with a column `curve`, the name of the line a cell lies on.

    A factor is named where it was fixed, not where it is the automatic max(1, ctx /
    original_max_position_embeddings). A cell that both rules give (they meet at one length) lies on both
    lines and is repeated. Other parameters are named where they differ between cells of one method.
    """
    if summary.empty:
        return summary.assign(curve=pd.Series(dtype=str))
    automatic = (summary["ctx"] / summary["original_max_position_embeddings"]).clip(lower=1)
    follows = summary["factor"].isna() | ((summary["factor"] - automatic).abs() < 1e-9)
    names = _varying_names(summary)
    parts = [summary[follows].assign(curve=names[follows])]
    for (name, factor), _ in summary[~follows].groupby([names[~follows], summary.loc[~follows, "factor"]]):
        line = summary[(names == name) & (summary["factor"] == factor)]
        parts.append(line.assign(curve=f"{name}, factor {factor:g}"))
    return _distinguished(pd.concat(_without_shadows(parts), ignore_index=True))


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

    Named by what their model was read from where that tells them apart, otherwise by their id.
    """
    table = table.assign(curve=_by_checkpoint(table))
    place = [table[name] for name in [*PANEL, "ctx", "curve"]]
    shared = table["cell_id"].groupby(place, dropna=False).transform("nunique") > 1
    return table.assign(curve=table["curve"].where(~shared, table["curve"] + ", cell " + table["cell_id"].str[:8]))


def _by_checkpoint(table: pd.DataFrame) -> pd.Series:
    """Names of lines with what their model was read from, where one model's name stands for several."""
    if not {"model_source", "model_fingerprint"} <= set(table):
        return table["curve"]
    curve = table["curve"].copy()
    for _, rows in table.dropna(subset=["model_fingerprint"]).groupby("model"):
        sources = rows.groupby("model_fingerprint")["model_source"].first()
        if len(sources) > 1:
            names = dict(zip(sources.index, _shortest([str(source) for source in sources]), strict=True))
            alike = {name for name in names.values() if list(names.values()).count(name) > 1}
            names = {key: f"{name} {key[:8]}" if name in alike else name for key, name in names.items()}
            curve[rows.index] = rows["curve"] + ", " + rows["model_fingerprint"].map(names)
    return curve


def _shortest(paths: Sequence[str]) -> list[str]:
    """The last parts of paths, as many as tell them apart."""
    parts = [path.rstrip("/").split("/") for path in paths]
    for count in range(1, max(map(len, parts)) + 1):
        ends = ["/".join(part[-count:]) for part in parts]
        if len(set(ends)) == len(set(paths)):
            break
    return ends


def _varying_names(summary: pd.DataFrame) -> pd.Series:
    """Method names with the parameters, other than the factor, that differ between cells of one method."""
    params = summary["method_params"].map(_params)
    names = summary["method"].astype(str).copy()
    for _, rows in summary.groupby("method"):
        keys = sorted({key for index in rows.index for key in params[index]})
        varying = [key for key in keys if len({str(params[index].get(key)) for index in rows.index}) > 1]
        for index in rows.index:
            given = [f"{key} {_short(params[index].get(key))}" for key in varying]
            names[index] = ", ".join([str(names[index]), *given])
    return names


def _params(text: str) -> dict[str, Setting]:
    return {key: value for key, value in json.loads(text).items() if key != "factor"}


def _short(value: Setting) -> str:
    if isinstance(value, list):
        return f"[{value[0]:g} ... {value[-1]:g}]" if value else "[]"
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
    by = list(columns) if columns is not None else _telling(table, [n for n in known if table[n].nunique() > 1])
    groups = list(table.groupby(by, sort=True, dropna=False)) if by else [((), table)]
    for _, rows in groups:
        _check_one_a_place(rows, x, hue, known)
    return [(describe(rows, by) if by else "", rows) for _, rows in groups]


def _telling(table: pd.DataFrame, names: list[str]) -> list[str]:
    """These columns without those that tell nothing apart which names do not."""
    for name in ("dataset_fingerprint", "dataset_source"):
        rest = [n for n in names if n != name]
        if rest and _count(table, rest) == _count(table, names):
            names = rest
    return names


def _count(table: pd.DataFrame, names: list[str]) -> int:
    return int(table.groupby(names, dropna=False).ngroups)


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
    shared = [name for name in names if name in rows and rows[name].nunique() == 1]
    if "dataset" in shared and "dataset_source" in shared and rows["dataset"].iloc[0] == rows["dataset_source"].iloc[0]:
        shared.remove("dataset_source")
    phrases = [_phrase(name, rows[name].iloc[0]) for name in shared]
    return ", ".join(phrase for phrase in phrases if phrase)


def _phrase(name: str, value: str | float) -> str:
    if isinstance(value, str) and name == "protocol_params":
        return ", ".join(f"{key} {setting}" for key, setting in json.loads(value).items() if setting is not None)
    words = {"ctx": "ctx", "original_max_position_embeddings": "trained at"}
    return f"{words[name]} {tokens(value)}" if name in words and not isinstance(value, str) else str(value)


def tokens(count: float) -> str:
    """A number of tokens as people write it: 512, 1k, 1.5k, 2M (binary thousands)."""
    for unit, letter in ((1 << 20, "M"), (1 << 10, "k")):
        if count >= unit and count * 4 % unit == 0:
            return f"{count / unit:g}{letter}"
    return f"{count:g}" if count < 1e5 else f"{count:.0f}"
