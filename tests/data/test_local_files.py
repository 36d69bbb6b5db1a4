"""Local files: a path is a path, the types are a closed list, and the same text is the same in every container."""

import bz2
import csv
import gzip
import io
import json
import logging
import lzma
import os
import random
import socket
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.data import documents
from harness.data.sources import DataSpec
from harness.data.unpacking import unpacked
from harness.errors import UserError
from harness.models.checkpoint.load import load_tokenizer
from harness.models.checkpoint.spec import ModelSpec
from harness.storage import hashed
from harness.storage.cache import file_hash

TEXT = (
    'The old bridge, 340 feet long,\r\nwas "built" in 1871.\n\nEvery spring\u2028the river\x85took\ta stone.\r Käse 🙂'
)
OTHER = "Nobody knew what to do with it; the committee met on the first of May.\n"


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(ModelSpec(name="reference", package="harness.models.reference"))


@pytest.fixture
def ids(own_cache, tokenizer, tmp_path, monkeypatch):
    """Token ids of every document that a path gives."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))

    def ids(path, **options):
        spec = DataSpec(name="text", path=str(path), **options)
        return [d.ids.tolist() for d in documents.load(spec, tokenizer, "t").documents]

    return ids


@pytest.fixture
def plain(tokenizer):
    """What the tokenizer itself makes of some texts."""

    def plain(*texts):
        return [tokenizer(t, add_special_tokens=False)["input_ids"] for t in texts]

    return plain


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


PACK = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}


def jsonl(texts) -> bytes:
    return "".join(json.dumps({"n": i, "text": t}) + "\n" for i, t in enumerate(texts)).encode()


def delimited(texts, **dialect) -> bytes:
    written = io.StringIO(newline="")
    rows = csv.writer(written, **dialect)
    rows.writerow(["n", "text"])
    rows.writerows(enumerate(texts))
    return written.getvalue().encode()


def parquet(texts) -> bytes:
    written = io.BytesIO()
    pq.write_table(pa.table({"n": range(len(texts)), "text": pa.array(texts, pa.string())}), written)
    return written.getvalue()


WRITE = {
    "txt": lambda texts: texts[0].encode(),
    "jsonl": jsonl,
    "json": lambda texts: json.dumps([{"text": t} for t in texts], indent=1).encode(),
    "csv": delimited,
    "tsv": lambda texts: delimited(texts, delimiter="\t"),
    "parquet": parquet,
}


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def mistake(ids, path, **options) -> str:
    with pytest.raises(UserError) as caught:
        ids(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Containers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("kind", WRITE)
def test_the_same_text_is_the_same_in_every_container(ids, plain, tmp_path, kind, packing):
    texts = [TEXT] if kind == "txt" else [TEXT, OTHER]
    file = write(tmp_path / f"a.{kind}{packing}", PACK[packing](WRITE[kind](texts)))
    assert ids(file) == plain(*texts)


@pytest.mark.parametrize("name", ["B.JSONL", "b.Csv", "b.TXT.Gz", "b.PARQUET", "b.jsonl.XZ", "b.Tsv.ZST"])
def test_the_letter_case_of_a_suffix_means_nothing(ids, plain, tmp_path, name):
    kind, packing = name.lower().split(".")[1], "".join(f".{p}" for p in name.lower().split(".")[2:])
    assert ids(write(tmp_path / name, PACK[packing](WRITE[kind]([TEXT])))) == plain(TEXT)


def test_names_of_documents_do_not_depend_on_the_container(own_cache, tokenizer, tmp_path):
    def names(file):
        return [d.name for d in documents.load(DataSpec(name="text", path=str(file)), tokenizer, "t").documents]

    assert names(write(tmp_path / "a.b.jsonl.gz", gzip.compress(jsonl([TEXT])))) == ["a.b"]
    assert names(write(tmp_path / "a.b.csv", delimited([TEXT, "", OTHER]))) == ["a.b-0", "a.b-2"]


@pytest.mark.parametrize(
    "name", ["a.zip", "a.tar", "a.tgz", "a.md", "a", "a.pq", "a.jsonl.lz4", "a.txt.zip", "a.gz", "a.arrow", "a.jsonl~"]
)
def test_other_types_are_refused_by_name(ids, tmp_path, name):
    message = mistake(ids, write(tmp_path / name, jsonl([TEXT])))
    assert f"{name}' is of no known type, which are .txt, .jsonl, .json, .csv, .tsv, .parquet" in message
    folder = write(tmp_path / "folder" / "a.jsonl", jsonl([OTHER])).parent
    write(folder / name, jsonl([TEXT]))
    assert f"{name}' is of no known type" in mistake(ids, folder)


@pytest.mark.parametrize("packing", [p for p in PACK if p])
@pytest.mark.parametrize("damage", [lambda c: c[: len(c) // 2], lambda c: c[:-3], lambda c: b"not packed at all"])
def test_damaged_packing_is_an_error(ids, tmp_path, packing, damage):
    draw = random.Random(0)
    content = jsonl([" ".join(str(draw.random()) for _ in range(2000))])
    file = write(tmp_path / f"a.jsonl{packing}", damage(PACK[packing](content)))
    assert f"a.jsonl{packing}' cannot be read" in mistake(ids, file)


@pytest.mark.parametrize("packing", [p for p in PACK if p])
def test_packed_parts_one_behind_the_other_are_all_read(ids, plain, tmp_path, packing):
    file = write(tmp_path / f"a.jsonl{packing}", PACK[packing](jsonl([TEXT])) + PACK[packing](jsonl([OTHER])))
    assert ids(file) == plain(TEXT, OTHER)


@pytest.mark.parametrize("packing", [p for p in PACK if p])
@pytest.mark.parametrize("begin", [b"", b"\xff"], ids=["not packed", "damaged"])
def test_what_follows_a_packed_part_and_is_none_is_an_error_and_not_left_out(ids, tmp_path, packing, begin):
    second = jsonl([OTHER]) if not begin else begin + PACK[packing](jsonl([OTHER]))[1:]
    file = write(tmp_path / f"a.jsonl{packing}", PACK[packing](jsonl([TEXT])) + second)
    assert f"a.jsonl{packing}' cannot be read" in mistake(ids, file)


@pytest.mark.parametrize("packing", [p for p in PACK if p])
def test_a_long_text_is_unpacked_to_its_end(tmp_path, packing):
    texts = [TEXT * 40_000, OTHER]
    parts = [jsonl([text]) for text in texts]
    file = write(tmp_path / f"a.jsonl{packing}", b"".join(map(PACK[packing], parts)))
    with hashed.reading(file, file_hash(file)) as stream:
        assert unpacked(stream, packing[1:]).read() == b"".join(parts)


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_a_column_that_a_json_object_names_twice_is_an_error(ids, plain, tmp_path, before, kind):
    def content(second):
        return '{"text": "The river"}\n' * before + f'{{"text": "The town", "x": 1, {second}}}'

    message = mistake(ids, write(tmp_path / f"a.{kind}", content('"text": "The mill"')))
    assert "data.column 'text' is in " in message
    assert message.endswith(" 2 times; keep one of them.")
    other = write(tmp_path / f"b.{kind}", content('"x": {"text": 1, "text": 2}'))
    assert ids(other) == plain(*["The river"] * before, "The town")


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_a_field_that_is_not_quoted_is_an_error_and_not_half_a_text(ids, tmp_path, kind):
    mark = {"csv": ",", "tsv": "\t"}[kind]
    file = write(tmp_path / f"a.{kind}", f"text\nThe river{mark} the town\n")
    message = mistake(ids, file)
    assert "line 2 ends a row of 2 fields, the first has 1" in message


@pytest.mark.parametrize("content", ['text\n"open', 'text\n"a" b\n'])
def test_quotes_that_do_not_close_are_an_error(ids, tmp_path, content):
    assert "a.csv' cannot be read" in mistake(ids, write(tmp_path / "a.csv", content))


def test_json_is_a_list_an_object_or_lines(ids, plain, tmp_path):
    for content in (json.dumps([{"text": TEXT}]), json.dumps({"text": TEXT}, indent=2), json.dumps({"text": TEXT})):
        assert ids(write(tmp_path / "a.json", content)) == plain(TEXT)
    assert ids(write(tmp_path / "a.json", jsonl([TEXT, OTHER]))) == plain(TEXT, OTHER)
    for content, message in (
        ('["a", "b"]', "must hold JSON objects, row 0 holds str"),
        ("[1", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ('{"text": "\\ud800"}', "row 0 holds half a character"),
    ):
        assert message in mistake(ids, write(tmp_path / "a.json", content))


def test_a_column_that_is_there_twice_is_an_error(ids, tmp_path):
    assert "is in '" in mistake(ids, write(tmp_path / "a.csv", "text,text\na b,c d\n"))


# Bytes ---------------------------------------------------------------------------------------------------------------

ENDS = [
    "a line\r\nand one\nmore\r\rlast\r\n",
    "\r\n\r\n first",
    "one\x0b two\x0c three\x1c four\x85 five\u2028 six\u2029",
]


@pytest.mark.parametrize("text", ENDS)
@pytest.mark.parametrize("kind", WRITE)
def test_line_ends_are_what_they_are(own_cache, tokenizer, plain, tmp_path, kind, text):
    file = write(tmp_path / f"a.{kind}", WRITE[kind]([text]))
    (document,) = documents.load(DataSpec(name="text", path=str(file)), tokenizer, "t").documents
    assert [document.ids.tolist()] == plain(text)
    assert document.byte_ends[-1] == len(text.encode())


@pytest.mark.parametrize("packing", ["", ".gz"])
@pytest.mark.parametrize("kind", [k for k in WRITE if k != "parquet"])
def test_the_byte_order_mark_of_a_file_is_left_out_and_said(ids, plain, tmp_path, caplog, kind, packing):
    content = PACK[packing](b"\xef\xbb\xbf" + WRITE[kind]([TEXT]))
    assert ids(write(tmp_path / f"a.{kind}{packing}", content)) == plain(TEXT)
    assert "begins with a byte order mark, which is left out" in caplog.text


@pytest.mark.parametrize("kind", [k for k in WRITE if k != "txt"])
def test_the_byte_order_mark_of_a_text_is_left_out_and_said(ids, plain, tmp_path, caplog, kind):
    """As a converter leaves it that has read a file with one."""
    assert ids(write(tmp_path / f"a.{kind}", WRITE[kind](["\ufeff" + TEXT, OTHER + "\ufeff"]))) == plain(
        TEXT, OTHER + "\ufeff"
    )
    assert "begins with a byte order mark, which is left out" in caplog.text


# Paths ---------------------------------------------------------------------------------------------------------------

NAMES = [
    "x[1]",
    "q?",
    "s*r",
    "y[2]",
    "a::b",
    "{1,2}",
    "zip:::x",
    "**",
    "~",
    "a#b",
    "%41",
    "hf:__x",
    "e=3",
    " x",
    "[!x]",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["txt", "jsonl", "parquet"])
def test_a_path_is_never_a_pattern(ids, plain, tmp_path, name, kind):
    for other in ("x1", "qa", "star", "y2", "a", "b", "1", "2", "A", "x"):
        write(tmp_path / f"{other}.{kind}", WRITE[kind]([OTHER]))
    assert ids(write(tmp_path / f"{name}.{kind}", WRITE[kind]([TEXT]))) == plain(TEXT)


def test_a_folder_is_never_a_pattern(ids, plain, tmp_path):
    write(tmp_path / "d1" / "a.txt", OTHER)
    assert ids(write(tmp_path / "d[1]" / "a*.txt", TEXT).parent) == plain(TEXT)


def test_a_relative_path_and_one_with_a_hidden_part_are_paths(ids, plain, tmp_path, monkeypatch):
    write(tmp_path / ".here" / ".hidden.txt", TEXT)
    monkeypatch.chdir(tmp_path)
    assert ids(".here/.hidden.txt") == plain(TEXT)
    write(tmp_path / ".here" / "seen.txt", OTHER)
    assert ids(".here") == plain(OTHER)


@pytest.mark.parametrize("path", ["x" * 5000 + ".txt", "~nosuchuser/x.txt", "a\0b.txt", "a.txt/b.txt"])
def test_paths_that_cannot_be(ids, tmp_path, path):
    write(tmp_path / "a.txt", TEXT)
    message = mistake(ids, path if path.startswith("~") else tmp_path / path)
    assert "does not exist" in message or "cannot be read: File name too long" in message


def test_a_data_set_of_a_hub_is_not_a_folder_of_its_name(own_cache, tokenizer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "someone" / "books" / "test.jsonl", jsonl([OTHER]))
    with pytest.raises(UserError, match="'someone/books' lies here, so it is no id of a hub; data.source=files"):
        documents.load(DataSpec(name="text", source="hub", path="someone/books"), tokenizer, "t")


# Folders -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        ".ipynb_checkpoints/a-checkpoint.txt", "sub/.hidden.txt", "._a.txt", ".DS_Store", "sub/.DS_Store", "Thumbs.db",
        "desktop.ini", "Desktop.ini", "__MACOSX/a.txt", "__MACOSX/._a.txt", ".git/x.txt", ".cache/a.jsonl",
    ],
)  # fmt: skip
def test_hidden_and_system_files_are_left_out(ids, plain, tmp_path, name):
    folder = write(tmp_path / "f" / "a.txt", TEXT).parent
    write(folder / "sub" / "b.txt", OTHER)
    write(folder / name, "not of the data")
    assert ids(folder) == plain(TEXT, OTHER)


@pytest.mark.parametrize(
    ("kind", "nothing"),
    [
        ("parquet", parquet([])), ("jsonl", b""), ("jsonl", b"\n \n"), ("csv", b"n,text\n"), ("json", b"[]"),
        ("txt", b""), ("tsv", b""), ("jsonl.gz", gzip.compress(b"", mtime=0)),
        ("txt.xz", lzma.compress(b"")), ("parquet", b""),
    ],
)  # fmt: skip
def test_empty_parts_are_left_out_with_a_word(ids, plain, tmp_path, caplog, kind, nothing):
    name, _, packing = kind.partition(".")
    part = PACK["." + packing if packing else ""](WRITE[name]([TEXT]))
    folder = write(tmp_path / "f" / f"part-1.{kind}", part).parent
    write(folder / f"part-0.{kind}", nothing)
    with caplog.at_level(logging.WARNING):
        assert ids(folder) == plain(TEXT)
    assert f"part-0.{kind}' is empty; left out" in caplog.text
    assert f"part-0.{kind}' is empty" in mistake(ids, folder / f"part-0.{kind}")
    (folder / f"part-1.{kind}").write_bytes(nothing)
    assert "0 found" in mistake(ids, folder)


def test_a_text_that_is_there_packed_and_unpacked_is_not_counted_twice(ids, tmp_path):
    folder = write(tmp_path / "f" / "a.jsonl", jsonl([TEXT])).parent
    write(folder / "a.jsonl.gz", gzip.compress(jsonl([TEXT])))
    assert "would be one text twice" in mistake(ids, folder)


def test_links_are_followed_and_loops_are_refused(ids, plain, tmp_path):
    write(tmp_path / "elsewhere" / "b.txt", OTHER)
    folder = write(tmp_path / "f" / "a.txt", TEXT).parent
    (folder / "c").symlink_to(tmp_path / "elsewhere")
    assert ids(folder) == plain(TEXT, OTHER)
    (folder / "c" / "up").symlink_to(folder)
    assert "up' is a link to a folder that it lies in" in mistake(ids, folder)
    (folder / "c" / "up").unlink()
    (folder / "d.txt").symlink_to(folder / "d.txt")
    assert "d.txt' cannot be read: Too many levels of symbolic links" in mistake(ids, folder)
    assert "d.txt' cannot be read: Too many levels of symbolic links" in mistake(ids, folder / "d.txt")
    (folder / "d.txt").unlink()
    (folder / "e.txt").symlink_to(folder / "nowhere.txt")
    assert "e.txt' cannot be read: No such file" in mistake(ids, folder)


def test_pipes_and_sockets_are_refused(ids, tmp_path):
    folder = write(tmp_path / "f" / "a.txt", TEXT).parent
    os.mkfifo(folder / "b.txt")
    for path in (folder, folder / "b.txt", "/dev/null"):
        assert "is neither a file nor a folder" in mistake(ids, path)
    (folder / "b.txt").unlink()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "c.txt"))
        assert "c.txt' is neither a file nor a folder" in mistake(ids, folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_may_not_be_read_is_one_line(ids, tmp_path):
    folder = write(tmp_path / "f" / "a.txt", TEXT).parent
    (folder / "a.txt").chmod(0)
    assert "a.txt' cannot be read: Permission denied" in mistake(ids, folder)


# What is read is what was identified ---------------------------------------------------------------------------------


def later(file: Path, content: bytes | str, mtime: float = 1e9) -> None:
    """Other content under the same name, at the same time."""
    write(file, content)
    os.utime(file, (mtime, mtime))


@pytest.mark.parametrize("kind", WRITE)
@pytest.mark.parametrize("second", [OTHER, TEXT.replace("stone", "stove")], ids=["other size", "same size"])
def test_replaced_content_at_the_same_time_is_read(ids, plain, tmp_path, kind, second):
    file = tmp_path / f"a.{kind}"
    later(file, WRITE[kind]([TEXT]))
    assert ids(file) == plain(TEXT)
    later(file, WRITE[kind]([second]))
    assert ids(file) == plain(second)


@pytest.mark.parametrize("kind", ["txt", "jsonl", "jsonl.gz", "csv", "parquet"])
def test_a_file_that_changes_between_hash_and_reading_is_refused(own_cache, tokenizer, tmp_path, kind):
    name, _, packing = kind.partition(".")
    file, many = tmp_path / f"a.{kind}", [f"text {i} of many " * 30 for i in range(300)]
    pack = PACK["." + packing if packing else ""]
    for number, changed in ((None, [*many[:-1], OTHER]), (1, [*many[:-1], OTHER]), (1, [*many, OTHER])):
        write(file, pack(WRITE[name](many)))
        spec = DataSpec(name="text", path=str(file), num_documents=number)
        raw = documents.source(spec)
        write(file, pack(WRITE[name]([changed[-1]] if name == "txt" else changed)))
        with pytest.raises(UserError, match=f"a.{kind}' changed after it was identified; start the run again"):
            documents._select(spec, raw, tokenizer, 0)
