import json

import pandas as pd
import pytest

from harness import published
from harness.errors import UserError
from harness.figures.canvas import Layout
from harness.figures.curves import perplexity
from harness.published import overlay
from harness.statistics.summary import Averaging, summarize
from tests import synthetic

TOKENIZERS = {"Llama-2-7B": "llama", "Mistral-7B": "mistral"}


def measured(**columns: object) -> pd.DataFrame:
    """Cells measured the way the YaRN curves were: single pass, BOS, document means, ten documents."""
    yarn_like = {
        "model": "Llama-2-7B",
        "dataset": "proof_pile",
        "protocol": "single_pass",
        "protocol_params": json.dumps({"bos": "every_window", "max_windows": None}),
    }
    rows = synthetic.sweep(("none", "yarn"), (2048, 4096), num_documents=10).assign(**(yarn_like | columns))
    return summarize(rows, Averaging("document"))


def value(paper: str, table: str, ctx: int, **line: str) -> float:
    rows = published.load()
    for name, wanted in {"paper": paper, "table": table, **line}.items():
        rows = rows[rows[name] == wanted]
    (found,) = rows.loc[rows["ctx"] == ctx, "value"]
    return found


def test_every_number_is_there_with_its_origin() -> None:
    rows = published.load()
    assert len(rows) == 2996
    assert len(published.papers()) == 26
    for name in ("paper", "table", "dataset", "protocol_class", "source", "source_kind", "metric"):
        assert (rows[name] != "").all()
    assert set(rows["qualifier"]) == {"eq", "gt", "oom", "nan", "not_tested"}
    assert rows.loc[rows["qualifier"].isin(["eq", "gt"]), "value"].notna().all()
    assert rows.loc[~rows["qualifier"].isin(["eq", "gt"]), "value"].isna().all()
    assert not rows.duplicated(["curve_id", "ctx"]).any()


def test_numbers_known_from_elsewhere() -> None:
    """Values that the texts of the papers and READMEs quote."""
    small = "data/proofpile-long-small-8k.csv"
    assert value("yarn", small, 4096, method="linear") == pytest.approx(3.5095, abs=5e-5)
    assert value("yarn", small, 8192, method="yarn") == pytest.approx(3.3564, abs=5e-5)
    pi = {"model": "LLaMA-7B", "method": "linear", "factor": "16"}
    assert (value("pi", "Table 2", 16384, **pi), value("pi", "Table 2", 32768, **pi)) == (2.24, 2.48)
    readme = published.load().query("paper == 'scaling_rope' and ctx in (131072, 262144)")["value"]
    assert {7.07, 76.82} <= set(readme)


def test_select_names_every_line_of_a_panel_apart() -> None:
    rows = published.load()
    drawable = set(rows.loc[(rows["metric"] == "perplexity") & rows["ctx"].notna(), "paper"])
    for name in drawable:
        chosen = published.select(name)
        assert not chosen.duplicated(["table", "dataset", "documents", "curve", "ctx"]).any(), name
    for name in set(published.papers()) - drawable:
        with pytest.raises(UserError, match="no perplexity against context length"):
            published.select(name)


def test_select_refuses_what_is_not_there() -> None:
    with pytest.raises(UserError, match=r"Unknown paper 'yarm'\. Did you mean 'yarn'"):
        published.select("yarm")
    with pytest.raises(UserError, match="Unknown table of pi 'Table 9'"):
        published.select("pi", table="Table 9")
    with pytest.raises(UserError, match="Unknown dataset of pi 'books3'"):
        published.select("pi", dataset="books3")


def test_overlay_of_comparable_lines() -> None:
    summary = measured()
    rows, refused = overlay.comparable(summary, published.select("yarn"), TOKENIZERS)
    assert rows["curve"].nunique() == 7
    assert refused == []
    figure = perplexity(summary, Layout(under=rows))
    figure.draw_without_rendering()
    names = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {"none", "yarn", "Yarn-Llama-2-7b-64k"} <= names


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"protocol": "sliding"}, "its protocol is single_pass .*, the measured one sliding"),
        (
            {"protocol_params": json.dumps({"bos": "none"})},
            "its protocol has bos every_window .*, the measured one none",
        ),
        ({"dataset": "pg19"}, "its data set is proof_pile, the measured one pg19"),
        ({"model": "Mistral-7B"}, "its tokenizer is llama, that of Mistral-7B is mistral"),
        ({"model": "reference"}, "its tokenizer is llama, that of reference is not known"),
    ],
)
def test_overlay_refuses_with_the_reason(columns: dict[str, str], reason: str) -> None:
    rows, refused = overlay.comparable(measured(**columns), published.select("yarn"), TOKENIZERS)
    assert rows.empty
    assert len(refused) == 1
    assert pd.Series(refused).str.fullmatch(rf"7 lines of yarn: {reason}").all()


def test_overlay_refuses_other_aggregates_counts_and_unknown_protocols() -> None:
    tokens = measured().assign(aggregate="token")
    assert "aggregate is document" in overlay.comparable(tokens, published.select("yarn"), TOKENIZERS)[1][0]
    few = measured().assign(num_documents=8)
    assert (
        "it has 10 documents, the measured one 8" in overlay.comparable(few, published.select("yarn"), TOKENIZERS)[1][0]
    )
    unknown = published.select("longrope", table="Table 6")
    assert "is unknown or not one that is computed here" in overlay.comparable(measured(), unknown, TOKENIZERS)[1][0]
    loss = published.load().query("paper == 'rerope'").iloc[0].to_dict()
    assert overlay.refusal(measured(), loss, TOKENIZERS) == "it is loss, not perplexity"
