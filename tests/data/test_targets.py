"""Documents that say which of their last tokens count: read from two columns, windowed, scored, written."""

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from harness.data import documents
from harness.data.documents import Document
from harness.data.lengths import check_lengths
from harness.data.protocols import Targets
from harness.data.sources import DataSpec
from harness.engine.batches import plans
from harness.errors import UserError
from harness.models.checkpoint.load import load_tokenizer
from harness.models.checkpoint.spec import ModelSpec
from harness.results.store import load_results
from harness.runs.runner import run
from tests.sweeps import Place
from tests.tiny import logits, tiny_llama

PROMPT = "The Union of the States has lasted since"
ROWS = [
    {"question": PROMPT, "answer": " 1789."},
    {"question": f"{PROMPT} a day in Märch", "answer": ", it is said"},
    {"question": "Wash", "answer": "ington presided"},  # a token may lie across the border
]


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(ModelSpec(name="reference", package="harness.models.reference"))


def written(file, rows=ROWS):
    if file.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    elif file.suffix == ".csv":
        with file.open("w", newline="") as stream:
            table = csv.DictWriter(stream, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    else:
        text = json.dumps(rows) if file.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows)
        file.write_text(text)
    return DataSpec(name="text", path=str(file), column="question", target_column="answer")


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "parquet"])
def test_the_tokens_of_the_target_column_count(tmp_path, own_cache, tokenizer, ending):
    spec = written(tmp_path / f"asked.{ending}")
    for _ in range(2):  # the second time from the cache
        found = documents.load(spec, tokenizer, "t").documents
        for document, row in zip(found, ROWS, strict=True):
            whole = row["question"] + row["answer"]
            ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
            assert document.ids.tolist() == ids
            behind = tokenizer.decode(ids[len(ids) - document.num_targets :])
            assert behind.endswith(row["answer"])  # all of it, and no token that holds nothing of it
            assert not tokenizer.decode(ids[len(ids) - document.num_targets + 1 :]).endswith(row["answer"])


def test_a_target_belongs_to_what_identifies_documents(tmp_path, own_cache, tokenizer):
    spec = written(tmp_path / "asked.jsonl", [{"question": "To be", "answer": " or not", "other": " or not"}])
    joined = DataSpec(name="text", path=spec.path, column="question")
    other = DataSpec(name="text", path=spec.path, column="question", target_column="other")
    prints = {documents.fingerprint(one, lambda: tokenizer, "t", 0) for one in (spec, joined, other)}
    assert len(prints) == 3


@pytest.mark.parametrize(("bos", "begin"), [("none", 12), ("every_window", 13)])
def test_windows_score_what_the_document_says_and_all_where_it_says_nothing(bos, begin):
    ids = np.arange(20)
    asked, plain = (Document("d", ids, np.arange(21), None, count) for count in (3, None))
    ((one,), (other,)) = plans([asked, plain], 8, Targets(bos=bos), 0)
    assert one[:3] == (begin, 20, 17)
    assert other[:3] == (begin, 20, 13)


def test_short_documents_are_scored_whole_where_that_is_allowed():
    document = Document("d", np.arange(6), np.arange(7), None, 2)
    ((window,),) = plans([document], 32, Targets(bos="none"), 0, "whole")
    assert window[:3] == (0, 6, 4)


def test_a_target_that_no_window_holds(tmp_path, own_cache, tokenizer):
    found = documents.load(written(tmp_path / "asked.jsonl"), tokenizer, "t")
    most = max(document.num_targets for document in found.documents)
    check_lengths(found._replace(shorter="whole"), most + 1)
    with pytest.raises(UserError, match=f"has {most} tokens, more than ctx - 1 = {most - 1}"):
        check_lengths(found._replace(shorter="whole"), most)


def test_rows_hold_the_losses_of_the_targets_alone(tmp_path, own_cache):
    """Against the plain forward of the same weights, through a whole run."""
    place = Place(tmp_path)
    rows = [
        {"text": " ".join(f"w{(7 * i + k) % 90 + 3}" for i in range(40)), "answer": " w9" * (k + 1)} for k in range(3)
    ]
    place.texts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(place.prepared("protocol=targets data.target_column=answer ctx=24", common=("save_tokens=true",)))
    tokens = load_results(place.results, "tokens")
    model = tiny_llama()
    for k, row in enumerate(rows):
        ids = torch.tensor([[int(word[1:]) for word in (row["text"] + row["answer"]).split()][-24:]])
        expected = torch.nn.functional.cross_entropy(logits(model, ids)[0, :-1], ids[0, 1:], reduction="none")
        got = tokens[tokens["document_index"] == k].sort_values("token")["nll"].to_numpy()
        np.testing.assert_allclose(got, expected[-(k + 1) :].numpy(), atol=1e-4)
    windows = load_results(place.results)
    assert windows["num_scored"].tolist() == [1, 2, 3]
    assert windows[["depth", "repeat", "right"]].isna().all(axis=None)
