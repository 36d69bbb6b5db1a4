"""Whatever file of a model or a method changes, of equal size and time: the cell is another, or its number is not."""

import json
import os
import random

import pytest
from safetensors.torch import load_file, save_file

from harness.errors import UserError
from harness.results import store
from harness.runs import runner
from tests.cells.test_identity_of_text import write_tokenizer
from tests.models.checkpoint.test_identity import save_adapter
from tests.tiny import tiny_llama

INDEX = "model.safetensors.index.json"


@pytest.fixture
def whole(place):
    """A place whose model is in shards, one below its folder, and whose method reads factors from a file."""
    tiny_llama(vocab_size=320).save_pretrained(place.model)
    write_tokenizer(place.model)
    weights = load_file(place.model / "model.safetensors")
    (place.model / "model.safetensors").unlink()
    (place.model / "below").mkdir()
    parts = {"one.safetensors": list(weights)[::2], "below/two.safetensors": list(weights)[1::2]}
    for shard, names in parts.items():
        save_file({name: weights[name] for name in names}, place.model / shard, {"format": "pt"})
    weight_map = {name: shard for shard, names in parts.items() for name in names}
    (place.model / INDEX).write_text(json.dumps({"metadata": {"total_size": 4}, "weight_map": weight_map}))
    factors = [round(1 + 0.25 * i, 2) for i in range(8)]
    (place.folder / "factors.json").write_text(json.dumps({"long_factor": factors, "short_factor": [1.0] * 8}))
    return place


def prepared(place):
    overrides = f"ctx=64 method=longrope method.factors={place.folder / 'factors.json'}"
    (cell,) = place.prepared(overrides)
    return cell


def cell_id(place):
    """The cell's id, or how it is refused."""
    try:
        return prepared(place).cell.cell_id
    except UserError as error:
        return f"refused: {error}"


def number(place, monkeypatch, attempt):
    """The cell's number, nothing kept from before; or how it fails."""
    monkeypatch.setenv("HARNESS_CACHE", str(place.folder / f"cache{attempt}"))
    place.results = place.folder / f"results{attempt}"
    (outcome,) = runner.run([prepared(place)], raise_mistakes=False)
    if not outcome.is_done:
        return outcome.message
    rows = store.load_results(outcome.files.windows)
    return float(rows["nll_sum"].sum())


def small_change(file, draw):
    """Change one byte: of a JSON file a digit, where it has one."""
    stat, content = file.stat(), bytearray(file.read_bytes())
    digits = [at for at, byte in enumerate(content) if chr(byte).isdigit()] if file.suffix == ".json" else []
    at = draw.choice(digits) if digits else draw.randrange(len(content))
    other = [byte for byte in b"123456789" if byte != content[at]]
    content[at] = draw.choice(other) if digits else content[at] ^ (1 << draw.randrange(7))
    put(file, bytes(content), stat)


def put(file, content, stat):
    """Another content under the old modification time."""
    assert len(content) == stat.st_size
    file.write_bytes(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def files_of(place):
    return sorted([*(f for f in place.model.rglob("*") if f.is_file()), place.folder / "factors.json"])


@pytest.mark.parametrize("seed", range(2))
def test_a_small_change_of_any_file_changes_the_cell_or_not_the_number(whole, monkeypatch, seed):
    draw, before = random.Random(seed), cell_id(whole)
    value, changed = number(whole, monkeypatch, "before"), set()
    assert isinstance(value, float)
    for attempt, file in enumerate(files_of(whole)):
        content, stat = file.read_bytes(), file.stat()
        small_change(file, draw)
        if cell_id(whole) != before:
            changed.add(file.name)
        else:
            assert number(whole, monkeypatch, attempt) == value, file
        put(file, content, stat)
        assert cell_id(whole) == before, file
    assert {"config.json", INDEX, "one.safetensors", "two.safetensors", "factors.json"} <= changed


@pytest.mark.parametrize("seed", range(2))
def test_a_small_change_of_an_adapter_changes_the_cell(whole, seed):
    pytest.importorskip("peft")
    save_adapter(whole.model)
    draw, before = random.Random(seed), cell_id(whole)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        content, stat = (whole.model / name).read_bytes(), (whole.model / name).stat()
        small_change(whole.model / name, draw)
        assert cell_id(whole) != before
        put(whole.model / name, content, stat)
        assert cell_id(whole) == before
