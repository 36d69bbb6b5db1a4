"""Tokens inside spans of text, against sets of characters."""

import numpy as np
import pandas as pd
import pytest

from harness.statistics.spans import inside, merged, spans
from tests.reference.long_context import covered


def tokenized(begins: list[int], ends: list[int]) -> pd.DataFrame:
    return pd.DataFrame({"byte_begin": begins, "byte_end": ends})


def test_tokens_that_share_a_character_have_all_of_it() -> None:
    """A character of three bytes in three tokens between two letters."""
    begins, ends = spans(tokenized([0, 1, 4, 4, 4], [1, 4, 4, 4, 5]))
    assert begins.tolist() == [0, 1, 1, 1, 4]
    assert ends.tolist() == [1, 4, 4, 4, 5]


def test_adjacent_spans_are_one() -> None:
    begins, ends = merged(np.array([0, 2, 5, 5]), np.array([2, 4, 7, 7]))
    assert begins.tolist() == [0, 5]
    assert ends.tolist() == [4, 7]


@pytest.mark.parametrize(
    ("begin", "end", "found"),
    [(0, 4, True), (1, 3, True), (3, 5, False), (4, 5, False), (4, 7, False), (5, 7, True), (6, 8, False)],
)
def test_by_hand(begin: int, end: int, found: bool) -> None:
    runs = np.array([0, 5]), np.array([4, 7])
    assert inside((np.array([begin]), np.array([end])), runs).tolist() == [found]


def test_no_run_holds_anything() -> None:
    none = np.zeros(0, np.int64)
    assert inside((np.array([0]), np.array([1])), merged(none, none)).tolist() == [False]


def test_equals_sets_of_characters() -> None:
    for seed in range(50):
        draw = np.random.default_rng(seed)
        cut, other = (np.unique(np.append(draw.integers(1, 60, 12), [0, 60])) for _ in range(2))
        theirs, ours = (list(zip(c[:-1].tolist(), c[1:].tolist(), strict=True)) for c in (cut, other))
        keys = np.flatnonzero(draw.random(len(theirs)) < 0.6)
        begins, ends = spans(tokenized([b for b, _ in theirs], [e for _, e in theirs]))
        own = spans(tokenized([b for b, _ in ours], [e for _, e in ours]))
        found = inside(own, merged(begins[keys], ends[keys]))
        assert set(np.flatnonzero(found)) == covered(theirs, set(keys.tolist()), ours)
