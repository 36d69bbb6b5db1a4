"""LongPPL on cases worked by hand, and against its definition on random losses."""

import json
import logging
from math import exp, inf, nan, nextafter

import numpy as np
import pandas as pd
import pytest

from harness.errors import UserError
from harness.statistics.evaluators import is_key
from harness.statistics.longppl import LONGPPL
from harness.statistics.metric import Choice
from harness.statistics.paired import paired
from harness.statistics.summary import summarize
from tests.reference import long_context as reference
from tests.statistics.token_cells import Losses, cell, load, short

DCA = Choice(evaluators=("dca",))
SHORT = [[nan, 3.0, 3.0, 3.0, 5.0, 5.0, 5.0, 5.0]]  # windows of 4 + 2: tokens from 4 on have 4 or 5 before them
LONG = [[nan, 0.1, 0.1, 0.1, 0.5, 4.9, 1.0, 1.5]]  # so that 4, 6 and 7 are key tokens


@pytest.mark.parametrize(
    ("long", "short_loss", "key"),
    [
        (0.5, 3.0, True),
        (0.5, 2.5, False),  # falls by 2, which is not more than 2
        (0.5, nextafter(2.5, inf), True),
        (2.0, 9.0, False),  # 2 is not smaller than 2
        (nextafter(2.0, 0), 9.0, True),
        (3.0, 9.0, False),
        (0.5, 0.5, False),
        (0.5, nan, False),  # among the first K
    ],
)
def test_both_thresholds_are_strict(long: float, short_loss: float, key: bool) -> None:
    losses = pd.DataFrame({"nll": [long], "nll_short": [short_loss]})
    assert is_key(losses, Choice()).tolist() == [key]
    assert reference.is_key(long, short_loss) == key


def test_by_hand() -> None:
    """Three key tokens; the scored model's losses there are 2, 3 and 4 nats. None among the first four."""
    other = [[nan, 9.0, 9.0, 9.0, 2.0, 9.0, 3.0, 4.0]]
    rows = LONGPPL.rows(load(cell(LONG, method="dca"), cell(other, method="yarn"), short(SHORT)), DCA)
    table = summarize(rows, metric=LONGPPL).set_index("method")
    assert table.loc["yarn", "longppl"] == pytest.approx(exp(3))
    assert table.loc["dca", "longppl"] == pytest.approx(exp(1))  # 0.5, 1 and 1.5
    assert table.loc["yarn", "short_windows"] == pytest.approx(exp(5))
    assert table["num_scored"].tolist() == [3, 3]
    assert set(table["note"]) == {"key tokens by dca"}


@pytest.mark.parametrize(("together", "places"), [("union", [4, 5, 6, 7]), ("intersection", [6])])
def test_evaluators_together(together: str, places: list[int]) -> None:
    yarn = [[nan, 0.1, 0.1, 0.1, 3.0, 0.5, 1.0, 3.0]]
    scored = [[nan, 0.0, 0.0, 0.0, 1.0, 2.0, 4.0, 8.0]]
    cells = load(cell(LONG, method="dca"), cell(yarn, method="yarn"), cell(scored), short(SHORT))
    choice = Choice(evaluators=("dca", "yarn"), together=together)
    table = summarize(LONGPPL.rows(cells, choice), metric=LONGPPL).set_index("method")
    assert table.loc["none", "longppl"] == pytest.approx(exp(np.mean([scored[0][place] for place in places])))
    assert table.loc["none", "num_scored"] == len(places)
    assert table.loc["none", "note"] == f"key tokens by dca {'or' if together == 'union' else 'and'} yarn"


def test_documents_are_weighted_by_their_key_tokens() -> None:
    """Two documents with one key token and with three: no mean of documents, and none leaks into the other."""
    long = [[nan, 0.1, 0.1, 0.1, 0.5, 4.9, 4.9, 4.9], LONG[0]]
    scored = [[nan, 0.0, 0.0, 0.0, 8.0, 0.0, 0.0, 0.0], [nan, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 2.0]]
    rows = LONGPPL.rows(load(cell(long, method="dca"), cell(scored), short(SHORT * 2)), DCA)
    table = summarize(rows, metric=LONGPPL).set_index("method")
    assert table.loc["none", "longppl"] == pytest.approx(exp(12 / 4))
    assert table.loc["none", "num_scored"] == 4


def test_equals_the_definition_on_random_losses() -> None:
    draw = np.random.default_rng(5)
    documents, tokens, before = 7, 60, 12
    long, wide, scored = (draw.exponential(2.0, (documents, tokens)).astype(np.float32) for _ in range(3))
    losses = [[[nan, *map(float, row[1:])] for row in one] for one in (long, wide, scored)]
    cells = load(
        cell(losses[0], method="dca", original_max_position_embeddings=16),
        cell(losses[2], original_max_position_embeddings=16),
        short(losses[1], ctx=16, stride=4, original_max_position_embeddings=16),
    )
    table = summarize(LONGPPL.rows(cells, DCA), metric=LONGPPL).set_index("method")
    keys = [
        {i for i in range(before, tokens) if reference.is_key(a[i], b[i])} for a, b in zip(*losses[:2], strict=True)
    ]
    assert table.loc["none", "num_scored"] == sum(map(len, keys))
    expected = reference.longppl([dict(enumerate(row)) for row in losses[2]], keys)
    assert table.loc["none", "longppl"] == pytest.approx(expected, rel=1e-12)
    assert table.loc["none", "low"] < expected < table.loc["none", "high"]
    ratio = paired(LONGPPL.rows(cells, DCA), "none", metric=LONGPPL).iloc[0]
    own = reference.longppl([dict(enumerate(row)) for row in losses[0]], keys)
    assert ratio["ratio"] == pytest.approx(own / expected, rel=1e-12)
    assert ratio["low"] < ratio["ratio"] < ratio["high"]


def test_no_key_token_at_all_is_said() -> None:
    cells = load(cell([[nan, *[4.0] * 7]], method="dca"), short(SHORT))
    said = r"There are no key tokens by dca in tiny dca ctx 8 on .*: no token's loss falls by more than 2 nats"
    with pytest.raises(UserError, match=said):
        LONGPPL.rows(cells, DCA)


def test_cells_and_documents_without_key_tokens_are_left_out_aloud(caplog: pytest.LogCaptureFixture) -> None:
    """Six tokens hold no key token but 4; the second document has none at either length."""
    dull = [nan, *[4.0] * 7]
    first = [[nan, 0.1, 0.1, 0.1, 4.5, 4.9], dull[:6]]
    cells = load(cell([LONG[0], dull], method="dca"), cell(first, method="dca"), short(SHORT * 2))
    with caplog.at_level(logging.WARNING):
        rows = LONGPPL.rows(cells, DCA)
    assert "left out: There are no key tokens by dca in tiny dca ctx 6 on books" in caplog.text
    assert rows["ctx"].tolist() == [8]
    assert rows["document"].tolist() == ["book-0"]


def test_an_evaluator_elsewhere_chooses_for_results_that_lack_it() -> None:
    judges = load(cell(LONG, method="dca"), short(SHORT))
    scored = load(cell([[nan, 9.0, 9.0, 9.0, 2.0, 9.0, 3.0, 4.0]]))
    rows = LONGPPL.rows(scored, Choice(evaluators=("dca",), judge=judges))
    table = summarize(rows, metric=LONGPPL)
    assert table["longppl"].item() == pytest.approx(exp(3))
    assert np.isnan(table["short_windows"].item())  # it has none of its own


def two_models(losses: Losses) -> list[dict]:
    """An evaluator with tokens of two bytes, and a model with tokens of one byte on the same text."""
    fine = [[nan, *range(1, 16)]]
    judge = {"model": "judge", "dataset_fingerprint": "two", "width": 2}
    return [
        cell(losses, method="dca", **judge), short(SHORT, **judge),
        cell(fine, dataset_fingerprint="one", original_max_position_embeddings=16),
    ]  # fmt: skip


def test_across_tokenizers_a_token_counts_whose_text_lies_in_a_key_span() -> None:
    """Key tokens 4, 6 and 7 of the evaluator are bytes 8, 9 and 12 to 15."""
    rows = LONGPPL.rows(load(*two_models(LONG)), Choice(evaluators=("judge/dca",)))
    own = rows[rows["model"] == "tiny"]
    assert own["num_scored"].item() == 6
    assert own["nll_sum"].item() == 8 + 9 + 12 + 13 + 14 + 15
    assert rows["note"].unique().tolist() == ["key tokens by judge/dca"]


def test_a_model_alone_names_an_evaluator() -> None:
    by_name, in_full = (
        LONGPPL.rows(load(*two_models(LONG)), Choice(evaluators=(name,)))["nll_sum"].tolist()
        for name in ("judge", "judge/dca")
    )
    assert by_name == in_full


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (Choice(evaluators=("dac",)), r"Unknown evaluator 'dac'. Did you mean 'dca'\?"),
        (Choice(evaluators=("tiny",)), r"The evaluator tiny is one of several cells; name one by MODEL/METHOD: "),
    ],
)
def test_evaluators_that_do_not_serve(choice: Choice, said: str) -> None:
    cells = load(cell(LONG, method="dca"), cell(LONG), cell([LONG[0][:6]], method="yarn"), short(SHORT))
    with pytest.raises(UserError, match=said):
        LONGPPL.rows(cells, choice)


def test_lengths_that_the_evaluator_lacks_are_left_out_aloud(caplog: pytest.LogCaptureFixture) -> None:
    cells = load(cell(LONG, method="dca"), cell([[nan, *[1.0] * 9]]), short(SHORT))
    with caplog.at_level(logging.WARNING):
        assert LONGPPL.rows(cells, DCA)["ctx"].tolist() == [8]
    assert "left out: The evaluator dca has no cell of ctx 10 on books." in caplog.text


def test_a_model_without_the_evaluating_method_is_left_out_aloud(caplog: pytest.LogCaptureFixture) -> None:
    other = {"model": "small", "dataset_fingerprint": "small"}
    cells = load(cell(LONG, method="dca"), short(SHORT), cell(LONG, **other), short(SHORT, **other))
    with caplog.at_level(logging.WARNING):
        assert LONGPPL.rows(cells, DCA)["model"].tolist() == ["tiny"]
    assert "left out: The evaluator dca has no cell of small on books." in caplog.text


def test_an_evaluator_with_other_documents_is_refused() -> None:
    judge, its_short, scored = two_models(LONG)
    renamed = {name: rows.assign(document="essay") for name, rows in scored.items()}
    with pytest.raises(UserError, match=r"The evaluator judge and tiny have different documents of books: 'book-0'"):
        LONGPPL.rows(load(judge, its_short, renamed), Choice(evaluators=("judge/dca",)))


def test_the_evaluator_on_the_same_documents_is_taken() -> None:
    """Of three cells of dca, one is on other documents of the same name, and one on another data set."""
    others = {"dataset_fingerprint": "other"}, {"dataset": "essays"}
    dull = [[nan, *[4.0] * 7]]
    made = [one for apart in others for one in (cell(dull, method="dca", **apart), short(SHORT, **apart))]
    rows = LONGPPL.rows(load(*made, cell(LONG, method="dca"), short(SHORT)), DCA)
    assert rows["dataset"].tolist() == ["books"]
    assert rows["num_scored"].tolist() == [3]


def test_rows_of_before_do_not_know_their_text() -> None:
    judge, its_short, scored = two_models(LONG)
    scored["tokens"] = scored["tokens"].assign(byte_end=None)
    with pytest.raises(UserError, match=r"which tiny none of an older harness lacks; run it with force=true"):
        LONGPPL.rows(load(judge, its_short, scored), Choice(evaluators=("judge/dca",)))


def test_fixed_factors_are_no_evaluator_by_the_method_alone() -> None:
    """Two lines of one method: the automatic one is meant by its name, two fixed ones are not."""
    fixed = [
        cell(LONG, method="yarn", factor=f, method_params=json.dumps({"factor": f}), original_max_position_embeddings=8)
        for f in (2.0, 4.0)
    ]
    with pytest.raises(UserError, match=r"tiny/yarn \(yarn, factor 2\), tiny/yarn \(yarn, factor 4\)"):
        LONGPPL.rows(load(*fixed, short(SHORT)), Choice(evaluators=("yarn",)))
    automatic = cell(LONG, method="yarn", factor=1.0, method_params=json.dumps({"factor": 1.0}))
    assert len(LONGPPL.rows(load(*fixed, automatic, short(SHORT)), Choice(evaluators=("yarn",)))) == 3
