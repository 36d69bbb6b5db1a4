"""Documents of two sets that must have no text in common, and those that one set leaves to the other."""

from pathlib import Path

import numpy as np
import pytest

from harness.data import documents, overlap
from harness.data.documents import Document, DocumentSet
from harness.data.sources import DataSpec
from harness.errors import UserError
from tests.sweeps import Place


def _set(*ids: np.ndarray) -> DocumentSet:
    made = [Document(f"d{i}", np.asarray(one), np.arange(len(one) + 1)) for i, one in enumerate(ids)]
    return DocumentSet("text", made, "f", "first documents")


def test_overlapping_documents_are_found_wherever_the_common_text_begins() -> None:
    rng = np.random.default_rng(0)
    long, other = rng.integers(0, 50, 5000), rng.integers(0, 50, 4000)
    overlap.check_disjoint(_set(long), _set(other))
    for begin, end in ((0, 1000), (37, 900), (3210, 5000)):
        with pytest.raises(UserError, match="text in common"):
            overlap.check_disjoint(_set(other, long[begin:end]), _set(long))
        with pytest.raises(UserError, match=r"'d1'.*'d0'"):
            overlap.check_disjoint(_set(other, long), _set(np.concatenate([other[:300] + 50, long[begin:end]])))
    quoting = np.concatenate([other, long[100:230]])
    overlap.check_disjoint(_set(quoting), _set(long))
    with pytest.raises(UserError, match="text in common"):
        overlap.check_disjoint(_set(long[:40]), _set(long[:40]))


def test_fingerprints_differ_by_order_and_place() -> None:
    ids = np.arange(300)
    prints = overlap.fingerprints(ids)
    assert len(prints) == 300 - overlap.RUN + 1
    assert len(set(prints.tolist())) == len(prints)
    assert overlap.fingerprints(ids[5:])[0] == prints[5]
    swapped = ids.copy()
    swapped[[10, 11]] = swapped[[11, 10]]
    assert not np.isin(overlap.fingerprints(swapped)[:11], prints).any()


def test_skipped_documents_are_left_to_others(tmp_path: Path, own_cache: None) -> None:
    place = Place(tmp_path, documents=6)
    prepared = place.prepared("method=none ctx=64")[0]

    def named(**selection: int | str) -> tuple[list[str], str]:
        spec = DataSpec(name="text", path=str(place.texts), **selection)
        made = documents.load(spec, prepared.header.tokenizer, "t", seed=1)
        return [d.name for d in made.documents], made.fingerprint

    everything, _ = named(selection="random")
    first, of_first = named(selection="random", num_documents=4)
    rest, of_rest = named(selection="random", skip=4)
    assert first + rest == everything
    assert len({of_first, of_rest, named(selection="random", skip=3)[1]}) == 3
    with pytest.raises(UserError, match="3 documents after 4 others.*2 found"):
        named(skip=4, num_documents=3)
