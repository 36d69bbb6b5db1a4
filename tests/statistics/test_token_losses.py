"""Which short windows stand beside a long cell, and what is refused."""

import json
import logging
from math import nan

import pandas as pd
import pytest

from harness.errors import UserError
from harness.statistics.token_losses import Cell, TokenLosses, document_rows, of_each, read
from tests.statistics.token_cells import Tables, cell, load, short

LONG = [[nan, *[1.0] * 11]]
WIDE = [[nan, *[3.0] * 11]]


def long_of(losses: TokenLosses, method: str) -> Cell:
    return next(one for one in losses.long if one["method"] == method)


def test_tokens_from_the_kth_on_have_a_short_window() -> None:
    losses = read(load(cell(LONG), short(WIDE)))
    pair = losses.pair(losses.long[0])
    assert pair.before == 4
    assert pair.losses["token"].tolist() == list(range(4, 12))
    assert (pair.losses["nll_short"] == 3).all()
    beside = losses.beside(losses.long[0])
    assert beside["nll_short"].isna().sum() == 3  # 1, 2 and 3; the first token has no loss
    assert len(beside) == 11


def test_documents_are_not_mixed() -> None:
    losses = read(load(cell([LONG[0], LONG[0][:9]]), short([WIDE[0], [nan, *[7.0] * 8]])))
    own = losses.pair(losses.long[0]).losses
    assert own.groupby("document")["nll_short"].unique().map(list).to_dict() == {"book-0": [3.0], "book-1": [7.0]}
    assert own.groupby("document").size().to_dict() == {"book-0": 8, "book-1": 5}


def test_a_method_has_its_own_short_windows_or_those_of_the_model_as_it_is() -> None:
    cells = [cell(LONG, method=m) for m in ("dca", "yarn")]
    losses = read(load(*cells, short(WIDE), short(WIDE, method="dca")))
    assert losses.short_of(long_of(losses, "dca"))["method"] == "dca"
    assert losses.short_of(long_of(losses, "yarn"))["method"] == "none"


def test_short_windows_of_another_factor_are_not_a_methods_own() -> None:
    fixed = {"method": "yarn", "factor": 4.0, "method_params": json.dumps({"factor": 4.0})}
    other = {"method": "yarn", "factor": 2.0, "method_params": json.dumps({"factor": 2.0})}
    losses = read(load(cell(LONG, **fixed), short(WIDE), short(WIDE, **other)))
    assert losses.short_of(losses.long[0])["method"] == "none"
    losses = read(load(cell(LONG, **fixed), short(WIDE), short(WIDE, **fixed)))
    assert losses.short_of(losses.long[0])["factor"] == 4


def test_a_factor_that_follows_from_the_length_is_another_at_another_length() -> None:
    """At 16 tokens of a model trained at 8 the factor is 2; at 6 it is 1. A fixed 2 is nearer."""

    def yarn(factor: float) -> dict[str, object]:
        return {"method": "yarn", "factor": factor, "method_params": json.dumps({"beta": 1, "factor": factor})}

    long = cell([[nan, *[1.0] * 15]], **yarn(2.0))
    losses = read(load(long, short(WIDE), short(WIDE, **yarn(1.0))))
    assert losses.short_of(losses.long[0])["factor"] == 1
    losses = read(load(long, short(WIDE), short(WIDE, **yarn(1.0)), short(WIDE, **yarn(2.0))))
    assert losses.short_of(losses.long[0])["factor"] == 2


def test_most_context_is_taken() -> None:
    """6 - 1 tokens before rather than 8 - 6, though those windows are longer."""
    losses = read(load(cell(LONG), short(WIDE, ctx=6, stride=1), short(WIDE, ctx=8, stride=6)))
    assert losses.short_of(losses.long[0])["stride"] == 1


def sampled(tables: Tables) -> Tables:
    return tables | {"windows": tables["windows"].assign(weight=2.5)}


def without_tokens(tables: Tables) -> Tables:
    return tables | {"tokens": tables["tokens"].iloc[:0]}


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ([short(WIDE)], r"need cells of protocol=single_pass with save_tokens=true, and there are none"),
        ([cell(LONG)], r"There are no short windows to compare with: run protocol=sliding protocol.bos=none"),
        ([cell(LONG), short(WIDE, ctx=9)], r"within the trained length of 8 tokens, got ctx=9\."),
        ([cell(LONG), sampled(short(WIDE))], r"\(protocol.max_windows=null\); those of tiny none ctx 6 on .* are a"),
        ([cell(LONG), without_tokens(short(WIDE))], r"tiny none ctx 6 on .* have no losses of tokens: run them"),
        ([cell(LONG), short(WIDE, dataset_fingerprint="other")], r"no short windows on the documents of tiny none ctx"),
        ([cell(LONG), short(WIDE, model="small")], r"there are: small none ctx 6 on books"),
        ([cell(LONG), short(WIDE, method="dca")], r"there are: tiny dca ctx 6 on books"),
        ([cell([LONG[0][:4]]), short(WIDE)], r"tiny none ctx 4 on .* has no token behind the 4 of its short windows"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_one_line(cells: list[Tables], said: str) -> None:
    losses = read(load(*cells))
    with pytest.raises(UserError, match=said):
        losses.pair(losses.long[0])


def test_a_cell_without_what_it_needs_is_left_out_aloud(caplog: pytest.LogCaptureFixture) -> None:
    losses = read(load(cell(LONG), cell(LONG, dataset="essays"), short(WIDE)))
    with caplog.at_level(logging.WARNING):
        assert of_each(losses.long, lambda one: losses.pair(one).losses)["nll"].sum() == 8
    assert "left out: There are no short windows on the documents of tiny none ctx 12 on essays" in caplog.text


def test_without_token_rows() -> None:
    def tables(name: str) -> pd.DataFrame:
        if name == "tokens":
            raise UserError("no finished cells (*.tokens.parquet) under 'results'.")
        return cell(LONG)[name]

    with pytest.raises(UserError, match=r"need token rows: run with save_tokens=true; no finished cells"):
        read(tables)


def test_a_sum_over_an_unknown_loss_is_unknown() -> None:
    losses = read(load(cell([LONG[0], LONG[0]]), short(WIDE)))
    own = losses.beside(losses.long[0])
    own = own[(own["document_index"] == 1) | (own["token"] > 3)]
    rows = document_rows(losses.long[0], own, "", nll_sum=own["nll"], other=own["nll_short"])
    assert rows["nll_sum"].tolist() == [8, 11]
    assert rows["other"].isna().tolist() == [False, True]
    assert rows["num_scored"].tolist() == [8, 11]
