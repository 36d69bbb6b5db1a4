"""What differs between panels is said in words, never by a hash."""

import json

import pandas as pd
import pytest

from harness.statistics.decision import decide
from harness.statistics.formats import formatted
from harness.statistics.lines import label, panels
from harness.statistics.summary import summarize
from harness.statistics.words import last_parts
from tests import synthetic


def titles(*differing: dict) -> list[str]:
    parts = [
        synthetic.cell("none", 512, num_windows=1).assign(
            cell_id=f"cell{number}", **{k: json.dumps(v) if isinstance(v, dict) else v for k, v in columns.items()}
        )
        for number, columns in enumerate(differing)
    ]
    return [title for title, _ in panels(label(summarize(pd.concat(parts))), "ctx", "curve")]


def data(fingerprint: str, **settings: object) -> dict:
    return {"dataset_fingerprint": fingerprint, "dataset_params": settings}


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({"num_documents": 8}, {"num_documents": 5}, ["8 documents", "5 documents"]),
        ({"num_documents": 8}, {}, ["8 documents", "all documents"]),
        ({"max_tokens": 1280}, {"max_tokens": 1100}, ["cut at 1280 tokens", "cut at 1100 tokens"]),
        ({"max_tokens": 80, "num_documents": 8}, {"max_tokens": 1, "num_documents": 5}, ["8 documents", "5 documents"]),
        ({"selection": "first"}, {"selection": "random"}, ["selection first", "selection random"]),
        ({}, {}, ["text 1 of 2", "text 2 of 2"]),  # edited between
        ({"needles": {"repeats": 6, "digits": 5}}, {"needles": {"repeats": 5, "digits": 5}},
         ["6 repeats", "5 repeats"]),
        ({"needles": {"depths": [0.0, 0.25]}}, {"needles": {"depths": [0.5]}}, ["depths 0, 0.25", "depths 0.5"]),
        ({"needles": {"templates": None}}, {"needles": {"templates": ["passkey"]}},
         ["all templates", "templates passkey"]),
    ],
)  # fmt: skip
def test_texts_of_one_name(one: dict, other: dict, expected: list[str]) -> None:
    assert titles(data("aaaa", **one), data("bbbb", **other)) == expected


def test_as_many_settings_as_tell_all_apart() -> None:
    found = titles(
        data("aaaa", num_documents=8, max_tokens=64),
        data("bbbb", num_documents=8, max_tokens=32),
        data("cccc", num_documents=5, max_tokens=32),
    )
    assert found == ["8 documents, cut at 64 tokens", "8 documents, cut at 32 tokens", "5 documents, cut at 32 tokens"]


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["old", "new"], ["old/sotu", "new/sotu"]),
        (["a/x", "b/x"], ["a/x/sotu", "b/x/sotu"]),
        (["work", "work/part"], ["work/sotu", "part/sotu"]),
        (["", "part"], ["sotu", "part/sotu"]),
        ([None, "part"], ["sotu", "part/sotu"]),  # of a table of before
        (["a", "b", "a"], ["a/sotu, text 1 of 2", "b/sotu", "a/sotu, text 2 of 2"]),  # one was edited
    ],
)  # fmt: skip
def test_texts_of_one_file_name_are_told_apart_by_their_folders(folders: list, expected: list[str]) -> None:
    found = titles(*({**data(f"{number}aaa"), "dataset_folder": f} for number, f in enumerate(folders)))
    assert sorted(found) == sorted(expected)


def test_a_text_that_moved_is_one() -> None:
    assert len(titles({**data("aaaa"), "dataset_folder": "a"}, {**data("aaaa"), "dataset_folder": "b", "ctx": 64})) == 1


def curves(*differing: dict) -> list[str]:
    parts = [
        synthetic.cell("none", 512, num_windows=1).assign(
            cell_id=f"cell{number}", model_fingerprint=f"{number}bbb", **columns
        )
        for number, columns in enumerate(differing)
    ]
    return label(summarize(pd.concat(parts))).sort_values("model_fingerprint")["curve"].tolist()


LAST = {"model_source": "last"}


@pytest.mark.parametrize(
    ("checkpoints", "expected"),
    [
        ([LAST | {"model_folder": "a"}, LAST | {"model_folder": "b"}], ["a/last", "b/last"]),
        ([LAST | {"model_folder": "run/a/x"}, LAST | {"model_folder": "run/b/x"}], ["a/x/last", "b/x/last"]),
        (
            [LAST | {"model_folder": "a"}, LAST | {"model_folder": "b"}, {"model_source": "first"}],
            ["a/last", "b/last", "first"],
        ),
        ([LAST | {"model_folder": f} for f in "aab"], ["a/last, weights 1 of 2", "a/last, weights 2 of 2", "b/last"]),
        (
            [{"model_source": "org/name", "model_revision": r * 40} for r in "ef"],
            [f"name revision {r * 12}" for r in "ef"],
        ),
        (
            [{"model_source": "org/name@main", "model_revision": r * 40} for r in "ef"],
            [f"name@main revision {r * 12}" for r in "ef"],
        ),
        ([LAST, LAST], ["last, weights 1 of 2", "last, weights 2 of 2"]),
    ],
)  # fmt: skip
def test_checkpoints_of_one_name(checkpoints: list[dict], expected: list[str]) -> None:
    assert curves(*checkpoints) == [f"none, {name}" for name in expected]


def test_protocols_are_told_apart_by_what_differs() -> None:
    one, other = ({"stride": 256, "bos": "none", "max_windows": n} for n in (2, None))
    assert sorted(titles({"protocol_params": one}, {"protocol_params": other})) == ["every window", "max_windows 2"]


def test_texts_of_rows_that_do_not_say_their_settings() -> None:
    """Tables of before, whose files did not say either."""
    found = titles(
        {"dataset_fingerprint": "a", "dataset_source": "x.txt"}, {"dataset_fingerprint": "b", "dataset_source": "y.txt"}
    )
    assert found == ["x.txt", "y.txt"]


def test_blocks_of_the_printed_table_say_it_as_well() -> None:
    parts = [
        synthetic.cell("none", 512, num_windows=1).assign(
            cell_id=hashed, dataset_fingerprint=hashed, dataset_params=json.dumps({"num_documents": count})
        )
        for hashed, count in (("aaaa", 8), ("bbbb", 5))
    ]
    text = formatted(decide(pd.concat(parts)), "text")
    assert "sotu, 8 documents," in text
    assert "sotu, 5 documents," in text


def test_last_parts() -> None:
    assert last_parts(["/a/b/c", "/a/d/c", "/a/b/e"]) == ["b/c", "d/c", "b/e"]
    assert last_parts([]) == []
    assert last_parts(["/a/b", "/a/b"]) == ["b", "b"]
