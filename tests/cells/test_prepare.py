"""What is looked at before the first model is loaded."""

from harness.data import documents


def test_raw_texts_are_looked_at_once_for_all_cells_that_use_them(place, monkeypatch):
    looked_at = []
    source = documents.source
    monkeypatch.setattr(documents, "source", lambda spec: looked_at.append(spec) or source(spec))
    prepared = place.prepared("method=none ctx=16", "method=yarn ctx=32", "ctx=16 data.skip=1", "ctx=32 data.skip=1")
    assert [spec.skip for spec in looked_at] == [0, 1]
    assert len({p.cell.columns["dataset_fingerprint"] for p in prepared}) == 2
