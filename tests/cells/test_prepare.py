"""What is looked at before the first model is loaded."""

import json

import pytest

from harness.cells.documents import Documents
from harness.data import documents
from harness.errors import UserError
from tests.tiny import tiny_config, tiny_model


def test_raw_texts_are_looked_at_once_for_all_cells_that_use_them(place, monkeypatch):
    looked_at = []
    source = documents.source
    monkeypatch.setattr(documents, "source", lambda spec: looked_at.append(spec) or source(spec))
    prepared = place.prepared("method=none ctx=16", "method=yarn ctx=32", "ctx=16 data.skip=1", "ctx=32 data.skip=1")
    assert [spec.skip for spec in looked_at] == [0, 1]
    assert len({p.cell.columns["dataset_fingerprint"] for p in prepared}) == 2


def with_rows(place, family, rows):
    """The model becomes one of a family that knows ids below `rows`, its tokenizer staying what it is: w0 to w95."""
    for file in place.model.glob("*.safetensors"):
        file.unlink()
    tiny_model(tiny_config(family, vocab_size=rows)).save_pretrained(place.model)


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "gpt2"])
@pytest.mark.parametrize("texts", ["a.jsonl", "a.txt", "folder"])
def test_a_token_that_the_model_has_no_row_for_is_said_of_the_document_that_has_it(place, family, texts):
    with_rows(place, family, 64)
    kept, of = place.texts, {"a.jsonl": "a-1", "a.txt": "a", "folder": "b"}[texts]
    few, many = "w1 w2 w63 " * 20, "w1 w2 w64 " * 20
    place.texts = kept.with_name(texts)
    if texts == "folder":
        place.texts.mkdir()
        (place.texts / "a.txt").write_text(few)
        (place.texts / "b.txt").write_text(many)
    else:
        content = many if texts == "a.txt" else "".join(json.dumps({"text": text}) + "\n" for text in (few, many))
        place.texts.write_text(content)
    (prepared,) = place.prepared("ctx=16")
    with pytest.raises(UserError, match=rf"document '{of}' has the token id 64, and the model knows ids below 64\."):
        Documents().of(prepared)


@pytest.mark.parametrize(
    ("token", "asked"),
    [("eos_token", "protocol=rolling"), ("bos_token", "protocol=rolling"), ("bos_token", "protocol.bos=every_window")],
)
def test_a_token_put_in_front_that_the_model_has_no_row_for_is_said(place, token, asked):
    settings = json.loads((place.model / "tokenizer_config.json").read_text())
    (place.model / "tokenizer_config.json").write_text(json.dumps(settings | {token: "w95"}))
    place.texts.write_text(json.dumps({"text": "w1 w2 w3 " * 20}))
    (prepared,) = place.prepared(f"ctx=16 {asked}")
    assert Documents().of(prepared).documents
    with_rows(place, "llama", 64)
    (prepared,) = place.prepared(f"ctx=16 {asked}")
    with pytest.raises(UserError, match="its BOS token has the token id 95, and the model knows ids below 64"):
        Documents().of(prepared)
