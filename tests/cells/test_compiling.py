"""engine.compile=auto: on where a stated count says that it repays, the same numbers, compiled once for all cells."""

from collections import Counter

import pytest

from harness.cells import compiling
from harness.engine.spec import EngineSpec
from harness.errors import UserError
from harness.models.checkpoint.shape import Shape
from harness.results.store import load_results
from harness.runs import runner, share

LLAMA_8B = Shape(7e9, 16e9, 4096, 14_336, 128_256, (8192,) * 32, (None,) * 32)


@pytest.mark.parametrize(
    ("lengths", "device", "expected"),
    [
        (Counter({32_768: 94}), "cuda", True),  # 3.08 million tokens x 32 layers x 4096 = 4.04e11
        (Counter({32_768: 93}), "cuda", False),
        (Counter({32_768: 94}), "cuda:1", True),
        (Counter({32_768: 94, 16_384: 94}), "cuda", False),  # half as much again, and two lengths to compile for
        (Counter({32_768: 94, 16_384: 188}), "cuda", True),
        (Counter({32_768: 10**9}), "cpu", False),
    ],
)
def test_the_count_by_hand(lengths, device, expected):
    assert compiling.repays(LLAMA_8B, lengths, device) is expected


@pytest.mark.parametrize("given", ["yes", "Auto", 1, None])
def test_other_words_are_a_mistake(given):
    with pytest.raises(UserError, match=r"engine\.compile"):
        EngineSpec(compile=given)


@pytest.fixture
def compiled_as(monkeypatch):
    """What each loaded model was asked to compile; nothing is compiled."""
    asked, before = [], share.ready

    def noted(model, engine, *args, **kwargs):
        asked.append(engine.compile)
        return before(model, EngineSpec(device="cpu"), *args, **kwargs)

    monkeypatch.setattr(share, "ready", noted)
    return asked


def prepared(place, *overrides):
    return place.prepared(*(f"method={m} ctx={c} {' '.join(overrides)}" for m in ("none", "yarn") for c in (32, 64)))


@pytest.mark.parametrize(("share_of_work", "expected"), [(0.99, True), (1.01, False)])
def test_a_sweep_compiles_where_what_it_has_to_compute_repays(place, compiled_as, monkeypatch, share_of_work, expected):
    cells = prepared(place, "protocol=single_pass", "engine.compile=auto")
    work = sum(
        w.end - w.begin + w.bos
        for one in runner.passes(cells)
        for windows in runner.Resources().documents.windows(one.longest)
        for w in windows
    )
    shape = compiling.shape(cells[0].header, "float32")
    lengths = len({one.longest.cell.ctx for one in runner.passes(cells)})
    monkeypatch.setitem(
        compiling.REPAYS, "cpu", share_of_work * work * len(shape.attention_widths) * shape.hidden / lengths
    )
    runner.run(cells)
    assert compiled_as == [expected], "decided once, when the model is loaded for all of them"


def test_what_is_finished_does_not_count(place, compiled_as, monkeypatch):
    cells = prepared(place, "protocol=single_pass", "engine.compile=auto")
    runner.run(cells[:-1])
    shape = compiling.shape(cells[0].header, "float32")
    monkeypatch.setitem(compiling.REPAYS, "cpu", 1.5 * 4 * 64 * len(shape.attention_widths) * shape.hidden)
    runner.run(cells)
    assert compiled_as == [False, False]


@pytest.mark.parametrize("given", ["true", "false"])
def test_what_is_said_is_done(place, compiled_as, monkeypatch, given):
    monkeypatch.setitem(compiling.REPAYS, "cpu", 0.0)
    runner.run(place.prepared(f"method=none ctx=32 engine.compile={given}"))
    assert compiled_as == [given == "true"]


def test_by_default_nothing_is_compiled(place, compiled_as, monkeypatch):
    monkeypatch.setitem(compiling.REPAYS, "cpu", 0.0)
    runner.run(place.prepared("method=none ctx=32"))
    assert compiled_as == [False]


@pytest.mark.slow
def test_compiled_cells_have_the_same_numbers(place, monkeypatch):
    runner.run(prepared(place, "protocol=single_pass"))
    plain = load_results(place.results)["nll_sum"]
    monkeypatch.setitem(compiling.REPAYS, "cpu", 0.0)
    runner.run(prepared(place, "protocol=single_pass", "engine.compile=auto", "force=true"))
    compiled = load_results(place.results)["nll_sum"]
    assert compiled.tolist() == pytest.approx(plain.tolist(), rel=1e-5)
