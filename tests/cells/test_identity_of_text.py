"""Which text a number is of: its cell is named by the text and the tokens that it was computed from, or it fails.

Every right value is from a plain loop over the model's own logits, one window a forward pass, in float64.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import random
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from harness.data import documents
from harness.errors import UserError
from harness.models.checkpoint.header import header
from harness.models.checkpoint.load import load_tokenizer
from harness.models.checkpoint.spec import ModelSpec
from harness.models.checkpoint.tokenizer_state import tokenizer_fingerprint
from harness.results import store
from harness.runs import runner
from tests.tiny import tiny_config, tiny_llama, tiny_model

CTX = 16


def write_tokenizer(folder, *, cased=True, extra=(), **settings):
    """A byte-level BPE of few merges, which knows every text."""
    sample = (
        "The committee of the old town met on the first of May. The river took a stone from the bridge, 1871; 340. " * 3
    )
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer, tok.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<unk>", "<s>", "</s>"]
    tok.train_from_iterator(
        [sample],
        trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    if not cased:
        tok.normalizer = normalizers.Lowercase()
    given = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"} | settings
    fast = PreTrainedTokenizerFast(tokenizer_object=tok, **given)
    fast.add_tokens(list(extra))
    fast.save_pretrained(folder)


@pytest.fixture
def bytewise(place):
    """The place with a tokenizer that every change of a text can be seen by."""
    tiny_llama(vocab_size=320).save_pretrained(place.model)
    write_tokenizer(place.model)
    return place


VOCABULARY = ["the", "river", "took", "a", "stone,", "from;", "Bridge", "May", "1871", "of", "town\n"]


def words(seed, count=60):
    draw = random.Random(seed)
    return " ".join(draw.choice(VOCABULARY) for _ in range(count))


def computed(place, file, *overrides):
    """Cell id and (mean loss, documents) of a cell, computed or found."""
    (prepared,) = place.prepared(" ".join([f"ctx={CTX}", *overrides]), common=(f'data.path="{file}"',))
    (outcome,) = runner.run([prepared], raise_mistakes=True)
    assert outcome.is_done, outcome.message
    rows = store.load_results(outcome.files.windows)
    value = rows["nll_sum"].sum() / rows["num_scored"].sum()
    return prepared.cell.cell_id, value, rows["document_index"].nunique()


@torch.no_grad()
def right(folder, *texts):
    """The same by a plain loop: of each text the first tokens."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    tokenizer, losses = AutoTokenizer.from_pretrained(folder), []
    for text in texts:
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"][:CTX]])
        log_probs = model(input_ids=ids, use_cache=False).logits[0].double().log_softmax(-1)
        losses.append(-log_probs[:-1].gather(1, ids[0, 1:, None])[:, 0].numpy())
    return np.concatenate(losses).mean()


def close(value, exact):
    return value == pytest.approx(exact, rel=1e-6)


# Text ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["same", "other"])
def test_a_replaced_text_of_the_same_time_is_another_cell_with_its_own_number(bytewise, size):
    file = bytewise.folder / "book.txt"
    first, second = words(1), words(2)
    second = second.ljust(len(first))[: len(first)] if size == "same" else second + " end"
    cells = []
    for text in (first, second):
        file.write_text(text)
        os.utime(file, (1, 1))
        cell, value, count = computed(bytewise, file)
        assert close(value, right(bytewise.model, text))
        assert count == 1
        cells.append(cell)
    assert cells[0] != cells[1]


def test_a_name_with_a_pattern_in_it_is_one_file(bytewise):
    for name, text in (("b1.txt", words(3)), ("ba.txt", words(4)), ("b[1].txt", words(5)), ("b?.txt", words(6))):
        (bytewise.folder / name).write_text(text)
    for name, text in (("b[1].txt", words(5)), ("b?.txt", words(6)), ("b1.txt", words(3))):
        _, value, count = computed(bytewise, bytewise.folder / name)
        assert close(value, right(bytewise.model, text))
        assert count == 1


def test_two_texts_of_one_sweep_have_their_own_names(bytewise):
    paths = [bytewise.folder / "one.txt", bytewise.folder / "two.txt"]
    for number, path in enumerate(paths):
        path.write_text(words(number))
    prepared = bytewise.prepared(*(f"data.path={path} ctx={ctx}" for path in paths for ctx in (8, CTX)))
    assert all(o.is_done for o in runner.run(prepared))
    rows = store.load_results(bytewise.results)
    assert set(rows["dataset_source"]) == {"one.txt", "two.txt"}
    assert rows.groupby("dataset_source")["cell_id"].nunique().tolist() == [2, 2]
    assert set(rows["identity_version"]) == {2}


def test_a_text_that_changes_behind_the_start_of_a_run_fails(bytewise, monkeypatch):
    file = bytewise.folder / "book.txt"
    file.write_text(words(1))
    (prepared,) = bytewise.prepared(f"ctx={CTX} data.path={file}")
    file.write_text(words(2))
    (outcome,) = runner.run([prepared])
    assert outcome.status == "failed"
    assert outcome.message == "data=text: its texts changed after the run was started; start it again."
    assert not outcome.files.windows.exists()


def delimited(text):
    written = io.StringIO(newline="")
    csv.writer(written).writerows([["text"], [text]])
    return written.getvalue().encode()


def parquet(text):
    written = io.BytesIO()
    pq.write_table(pa.table({"text": [text]}), written)
    return written.getvalue()


CONTAINERS = {
    "txt": str.encode,
    "jsonl": lambda text: (json.dumps({"text": text}) + "\n").encode(),
    "json": lambda text: json.dumps([{"text": text}]).encode(),
    "csv": delimited,
    "parquet": parquet,
    "txt.gz": lambda text: gzip.compress(text.encode(), mtime=0),
    "jsonl.xz": lambda text: lzma.compress(json.dumps({"text": text}).encode()),
    "csv.bz2": lambda text: bz2.compress(delimited(text)),
}
CHANGES = [
    lambda text, draw: text.replace(draw.choice(text.split()), draw.choice(["Käse", "x", "1871"]), 1),
    lambda text, draw: text.swapcase() if draw.random() < 0.5 else text[::-1],
    lambda text, draw: text[:9] + draw.choice("abcxyz,;.") + text[10:],
    lambda text, draw: text.replace(" ", draw.choice(["\t", "\r", "\n", "\x85"]), 1),
    lambda text, draw: text[: (at := draw.randrange(len(text)))] + draw.choice("qv") + text[at + 1 :],
    lambda text, draw: "".join(sorted(text)),
]


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_small_change_of_a_file_changes_the_cell_or_not_the_number(bytewise, container):
    """At the same size, where the container allows it, and the same time; in an order drawn anew for each container."""
    draw, file = random.Random(container), bytewise.folder / f"a.{container}"
    text, seen, size = words(7), {}, None
    for change in [lambda text, draw: text, *draw.sample(CHANGES, 4), lambda text, draw: words(7)]:
        text = change(text, draw)
        content = CONTAINERS[container](text)
        size = size or len(content)
        file.write_bytes(content + (b"\n" * (size - len(content)) if container in ("jsonl", "json") else b""))
        os.utime(file, (1, 1))
        cell, value, _ = computed(bytewise, file)
        assert close(value, right(bytewise.model, text))
        assert seen.setdefault(cell, value) == value
    assert len(seen) > 2


@pytest.mark.parametrize("settled", [True, False], ids=["long ago", "just now"])
def test_bytes_of_a_file_that_change_in_place_are_hashed_anew(own_cache, tmp_path, settled, monkeypatch):
    """In place: the same inode, size and time of content; within a tick of its clock the same time of change, too."""
    from harness.storage import cache

    if settled:
        monkeypatch.setattr(cache, "SETTLED_NS", 0)  # a change later than a tick is seen at once
    file, hashes = tmp_path / "a.bin", set()
    for number in range(20):
        with file.open("r+b" if file.exists() else "wb") as stream:
            stream.write(f"content {number:03}".encode())
        os.utime(file, (1, 1))
        hashes.add(cache.file_hash(file))
        if settled:
            assert cache.file_hash(file) in hashes
            os.utime(file, (2, 2))
            import time

            time.sleep(0.02)
    assert len(hashes) == 20


# Tokens --------------------------------------------------------------------------------------------------------------


def other_tokenizer(place, name, **settings):
    folder = shutil.copytree(place.model, place.folder / name)
    write_tokenizer(folder, **settings)
    return folder


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_tokenizer_that_differs_by_the_config_alone_has_its_own_tokens(bytewise, order):
    """Files of the tokenizer are equal; another class is chosen by the model type, and splits words elsewhere."""
    text = "1871; 340. The river took 1871, 340; " * 9
    file = bytewise.folder / "t.txt"
    file.write_text(text)
    folders = [bytewise.folder / name for name in "AB"]
    for folder, family in zip(folders, ("llama", "qwen2"), strict=True):
        tiny_model(tiny_config(family, vocab_size=320)).save_pretrained(folder)
        write_tokenizer(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    tokens = [AutoTokenizer.from_pretrained(f)(text, add_special_tokens=False)["input_ids"] for f in folders]
    assert tokens[0] != tokens[1]
    for i in order:
        _, value, _ = computed(bytewise, file, f"model.path={folders[i]}")
        assert close(value, right(folders[i], text))


@pytest.mark.parametrize(
    "settings", [{"cased": False}, {"extra": ["river"]}, {"extra": [" stone"]}, {"bos_token": "</s>"}], ids=str
)
def test_another_state_of_the_tokenizer_is_another_cell(bytewise, settings):
    other = other_tokenizer(bytewise, "other", **settings)
    cells = bytewise.prepared(f"ctx={CTX}", f"ctx={CTX} model.path={other}")
    assert cells[0].cell.cell_id != cells[1].cell.cell_id
    assert len({p.cell.columns["dataset_fingerprint"] for p in cells}) == 2


def test_files_that_say_the_same_tokenizer_are_one(bytewise):
    other = other_tokenizer(bytewise, "other")
    settings = json.loads((other / "tokenizer_config.json").read_text())
    (other / "tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": 77}, indent=7))
    one, two = bytewise.prepared(f"ctx={CTX}", f"ctx={CTX} model.path={other}")
    assert one.cell.cell_id == two.cell.cell_id


def test_the_fingerprint_of_a_tokenizer_does_not_depend_on_what_it_did_before(bytewise):
    tokenizer = load_tokenizer(ModelSpec(name="t", path=str(bytewise.model)))
    before = tokenizer_fingerprint(tokenizer)
    tokenizer(["a text", "and a longer one"], truncation=True, max_length=3)
    assert tokenizer_fingerprint(tokenizer) == before


def test_tokens_of_other_versions_are_not_taken_and_equal_ones_are_the_same_cell(bytewise, monkeypatch):
    """An upgrade may change tokens: they are made anew, and the cell is another one only if they differ."""
    known = header(ModelSpec(name="t", path=str(bytewise.model)))
    (config,) = bytewise.configs(f"ctx={CTX}")
    made = [documents.load(config.data, known.tokenizer, known.tokenizer_fingerprint)]
    monkeypatch.setattr(documents, "version", lambda package: "99.9")
    made.append(documents.load(config.data, known.tokenizer, known.tokenizer_fingerprint))
    assert len(list((bytewise.folder / "cache" / "documents").iterdir())) == 2
    assert made[0].fingerprint == made[1].fingerprint
    monkeypatch.setattr(documents, "version", lambda package: "99.10")
    tokenize = documents._tokenize

    def otherwise(text, tokenizer, enough):
        whole = tokenize(text, tokenizer, enough)
        return whole._replace(ids=np.where(whole.ids == whole.ids[3], 7, whole.ids))

    monkeypatch.setattr(documents, "_tokenize", otherwise)
    made.append(documents.load(config.data, known.tokenizer, known.tokenizer_fingerprint))
    assert made[2].fingerprint != made[0].fingerprint


def test_a_text_that_is_gone_is_said(bytewise):
    with pytest.raises(UserError, match="does not exist"):
        bytewise.prepared(f"ctx={CTX} data.path={bytewise.folder / 'gone.txt'}")
