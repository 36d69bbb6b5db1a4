"""Perplexities that papers printed, as data, and the judgement which of them may lie under measured ones.

Three files beside this one: tables.csv (where numbers were printed, and how they were measured), curves.csv (a model
under a method in such a table), points.csv (a length and a value). `load` joins them to one tidy table.
"""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from harness.errors import UserError, unknown

HERE = Path(__file__).parent


class Measure(NamedTuple):
    """What a class of published numbers averages over, in the words of this project."""

    protocol: str
    params: dict[str, Any]  # protocol parameters that must agree
    aggregate: str


# Classes that are not listed were measured in a way that is unknown or that this project does not compute.
MEASURES = {
    "single_pass_doc_mean": Measure("single_pass", {"bos": "every_window"}, "document"),
    "single_pass_doc_mean_inferred": Measure("single_pass", {"bos": "every_window"}, "document"),
    "single_pass_token_mean": Measure("single_pass", {}, "token"),
    "sliding_score_last_stride_claimed": Measure("sliding", {"stride": 256}, "token"),
    "sliding_window_token_mean": Measure("sliding", {"stride": 1024, "bos": "every_window"}, "token"),
    "sliding_window_mean": Measure("sliding", {"stride": 256, "bos": "every_window"}, "window"),
    "sliding_stride_512": Measure("sliding", {"stride": 512}, "token"),
    "strided_window_full_mean": Measure("overlapping_full", {"stride": 256, "bos": "none"}, "window"),
    "chunk_second_half": Measure("second_half", {}, "token"),
}

# The table that shows what a paper is known for; other papers show every table of perplexities.
MAIN_TABLES = {
    "yarn": ["data/proofpile-long-small.csv"],
    "pi": ["Table 1", "Table 2"],
    "longrope": ["Table 5"],
}


# Tokenizers by the names of models in conf/, as far as papers' models share them.
TOKENIZERS = {
    "llama2_7b": "llama",
    "llama31_8b": "llama3",
    "mistral_7b": "mistral",
    "llama_7b_pi": "llama",
    "yarn_llama2_7b_64k": "llama",
    "yarn_llama2_7b_128k": "llama",
    "longrope_llama2_7b_256k": "llama",
}


@cache
def _load() -> pd.DataFrame:
    read = {name: pd.read_csv(HERE / f"{name}.csv", dtype=str, keep_default_na=False) for name in _FILES}
    joined = read["points"].merge(read["curves"], on="curve_id").merge(read["tables"], on="table_id")
    for name in ("ctx", "value", "train_ctx", "num_documents"):
        joined[name] = pd.to_numeric(joined[name])
    return joined.drop(columns="table_id")


_FILES = ("tables", "curves", "points")


def load() -> pd.DataFrame:
    """Every published number, one row each.

    `ctx` and `train_ctx` in tokens; `value` is in the unit of `metric`, and `qualifier` says what it is: eq the value,
    gt a bound that the value exceeds, oom, nan or not_tested no value. `protocol_class` tells what it averages over.
    """
    return _load().copy()


def papers() -> list[str]:
    """Short names of the papers and other sources."""
    return sorted(_load()["paper"].unique())


def select(
    paper: str, table: str | None = None, dataset: str | None = None, metric: str = "perplexity"
) -> pd.DataFrame:
    """The numbers of one paper, by default those of its main tables, with a column `curve` that names each line.

    Raises UserError for a paper, table or data set that is not there.
    """
    rows = load()
    if paper not in papers():
        raise unknown("paper", paper, papers())
    rows = rows[(rows["paper"] == paper) & (rows["metric"] == metric) & rows["ctx"].notna()]
    if rows.empty:
        raise UserError(f"{paper} has no {metric} against context length.")
    for column, wanted in (("table", table), ("dataset", dataset)):
        if wanted is not None and wanted not in set(rows[column]):
            raise unknown(f"{column} of {paper}", wanted, rows[column].unique())
    main = MAIN_TABLES.get(paper, list(rows["table"].unique()))
    rows = rows[rows["table"].isin([table] if table is not None else main)]
    rows = rows[rows["dataset"] == dataset] if dataset is not None else rows
    if rows.empty:
        raise UserError(f"{paper} has no numbers for table {table!r} and dataset {dataset!r} together.")
    return name_curves(rows)


def name_curves(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with a column `curve`: model and the printed label, more where two lines of a panel share them."""
    lines = rows.drop_duplicates("curve_id").set_index("curve_id")
    names = pd.Series([_name(line) for line in lines.to_dict("records")], index=lines.index)
    for column, word in _DISTINCTIONS:
        panel = [lines["table"], lines["dataset"], lines["documents"], names]
        differ = lines[column].groupby(panel).transform("nunique") > 1
        text = lines[column].map(lambda value: f"{value:g}" if isinstance(value, float) else str(value))
        names = names.where(~(differ & ~text.isin(["", "nan"])), names + ", " + word + text)
    return rows.assign(curve=rows["curve_id"].map(names))


_DISTINCTIONS = (
    ("method", ""),
    ("factor", "factor "),
    ("train_ctx", "trained at "),
    ("finetuned", "finetuned "),
    ("source_kind", ""),
)
_HUB_ID = re.compile(r"[\w.-]+/([\w.-]+)")


def _name(line: dict[Any, Any]) -> str:
    if found := _HUB_ID.fullmatch(line["variant"]):
        return found[1]
    label = line["variant"] or line["method"]
    return label if label.startswith(line["model"]) else f"{line['model']} {label}"


def comparable(
    summary: pd.DataFrame, published: pd.DataFrame, tokenizers: dict[str, str]
) -> tuple[pd.DataFrame, list[str]]:
    """The published rows that may lie under these measured cells, and the reasons why the others may not.

    summary: measured cells, of one model, data set and protocol. tokenizers: tokenizer by model name, for measured
    models. Same protocol with its parameters and aggregate, same data set and number of documents, same tokenizer.
    """
    verdicts = {
        curve: refusal(summary, rows.iloc[0].to_dict(), tokenizers) for curve, rows in published.groupby("curve_id")
    }
    fits = published["curve_id"].map(lambda curve: verdicts[curve] is None)
    refused = published[~fits].drop_duplicates("curve_id")
    reasons = refused.groupby(refused["curve_id"].map(verdicts), sort=True).size()
    return published[fits], [f"{count} lines of {_papers(refused)}: {reason}" for reason, count in reasons.items()]


def _papers(rows: pd.DataFrame) -> str:
    return ", ".join(sorted(rows["paper"].unique()))


def refusal(summary: pd.DataFrame, line: dict[Any, Any], tokenizers: dict[str, str]) -> str | None:
    """Why a published line may not lie under these cells; None where it may."""
    measure = MEASURES.get(line["protocol_class"])
    if line["metric"] != "perplexity":
        return f"it is {line['metric']}, not perplexity"
    if measure is None:
        return f"its protocol ({line['protocol_class']}) is unknown or not one that is computed here"
    return (
        _protocol_refusal(summary, line["protocol_class"], measure)
        or _documents_refusal(summary, line)
        or _tokenizer_refusal(summary, line["tokenizer"], tokenizers)
    )


def _protocol_refusal(summary: pd.DataFrame, name: str, measure: Measure) -> str | None:
    for cell in summary.drop_duplicates(["protocol", "protocol_params", "aggregate"]).to_dict("records"):
        params = json.loads(cell["protocol_params"])
        if cell["protocol"] != measure.protocol:
            return f"its protocol is {measure.protocol} ({name}), the measured one {cell['protocol']}"
        for key, value in measure.params.items():
            if params.get(key) != value:
                return f"its protocol has {key} {value} ({name}), the measured one {params.get(key)}"
        if cell["aggregate"] != measure.aggregate:
            return f"its aggregate is {measure.aggregate} ({name}), the measured one {cell['aggregate']}"
    return None


def _documents_refusal(summary: pd.DataFrame, line: dict[Any, Any]) -> str | None:
    datasets = sorted(summary["dataset"].unique())
    if datasets != [line["dataset"]]:
        return f"its data set is {line['dataset']}, the measured one {', '.join(datasets)}"
    counts = sorted(summary["num_documents"].unique())
    published = line["num_documents"]
    if published == published and counts != [published]:
        return f"it has {published:g} documents, the measured one {', '.join(str(count) for count in counts)}"
    return None


def _tokenizer_refusal(summary: pd.DataFrame, published: str, tokenizers: dict[str, str]) -> str | None:
    for model in sorted(summary["model"].unique()):
        measured = tokenizers.get(model)
        if measured is None or published == "" or measured != published:
            return f"its tokenizer is {published or 'not known'}, that of {model} is {measured or 'not known'}"
    return None
