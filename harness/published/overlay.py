"""Which published lines may lie under measured ones: only those that measure the same."""

import json
from typing import NamedTuple

import pandas as pd

from harness.published import Line


class Measure(NamedTuple):
    """What a class of published numbers averages over, in the words of this project."""

    protocol: str
    params: dict[str, int | str]  # protocol parameters that must agree
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


def refusal(summary: pd.DataFrame, line: Line, tokenizers: dict[str, str]) -> str | None:
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


def _documents_refusal(summary: pd.DataFrame, line: Line) -> str | None:
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
