"""Two names for one cell are one computation and two labels; what changed under way fails; checkpoints are named."""

import logging
import math
import os
import shutil

import numpy as np
import pytest
import torch

import harness
from harness.errors import UserError
from harness.models.checkpoint.spec import ModelSpec
from harness.results import store
from harness.runs import runner, sweep
from harness.statistics.lines import label
from harness.statistics.paired import paired
from harness.statistics.summary import loss_by_position, summarize
from tests.sweeps import save_checkpoint
from tests.tiny import logits, tiny_config, tiny_llama, tiny_model


def save_seed(folder, seed, like):
    """The checkpoint of another training step: same files, same sizes, other weights."""
    shutil.copytree(like, folder, dirs_exist_ok=True)
    tiny_model(tiny_config("llama"), seed=seed).save_pretrained(folder)
    return folder


def right(model, place, ctx):
    """Perplexity of the first `ctx` tokens of every document, from the definition, float64."""
    losses = []
    for line in place.texts.read_text().splitlines():
        ids = torch.tensor([[int(word[1:]) for word in line.split('"')[3].split()]])[:, :ctx]
        log_p = logits(model, ids)[0].double().log_softmax(-1)
        losses.append(-log_p[:-1].gather(1, ids[0, 1:, None])[:, 0])
    return math.exp(torch.cat(losses).mean())


def statuses(outcomes):
    return [o.status for o in outcomes]


def perplexities(place_or_rows):
    rows = place_or_rows if hasattr(place_or_rows, "columns") else harness.load_results(place_or_rows)
    sums = rows.groupby(["model_source", "model", "ctx"])[["nll_sum", "num_scored"]].sum()
    return {key: float(np.exp(line.nll_sum / line.num_scored)) for key, line in sums.iterrows()}


# Two names for one cell ----------------------------------------------------------------------------------------------


def test_two_names_of_a_model_are_one_computation_and_two_lines(place, caplog, capsys):
    caplog.set_level(logging.INFO)
    cells = [f"model.name={name} ctx={ctx}" for name in ("alpha", "beta") for ctx in (16, 32)]
    sweep.main(place.configs(*cells, common=("method=none",)), sweep=True)
    shown = capsys.readouterr().out
    assert "4 cells: 4 computed, 0 found finished" in shown
    assert "MISSING" not in shown
    made = [store.provenance(file)["tokens"] for file in place.results.rglob("*.windows.parquet")]
    assert len(made) == 4
    assert caplog.text.count("loaded model") == 1
    rows = harness.load_results(place.results)
    expected = {ctx: right(tiny_llama(), place, ctx) for ctx in (16, 32)}
    for (_, _, ctx), value in perplexities(rows).items():
        assert abs(value / expected[ctx] - 1) < 1e-6
    summary = summarize(rows)
    assert summary[["model", "ctx", "num_windows"]].to_numpy().tolist() == [
        [name, ctx, 4] for name in ("alpha", "beta") for ctx in (16, 32)
    ]
    assert summary["cell_id"].is_unique
    assert len(loss_by_position(harness.load_results(place.results, "positions"))) % 4 == 0
    again = sweep.main(place.configs(*cells, common=("method=none",)), sweep=True)
    assert again is None
    assert "4 cells: 0 computed, 4 found finished" in capsys.readouterr().out


def test_paired_ratios_of_two_names_stay_with_their_names(place):
    cells = [f"model.name={name} method={method} ctx=64" for name in ("alpha", "beta") for method in ("none", "yarn")]
    runner.run(place.prepared(*cells))
    compared = paired(harness.load_results(place.results))
    assert compared["model"].tolist() == ["alpha", "beta"]
    assert compared["num_documents"].tolist() == [4, 4]
    assert compared["ratio"].nunique() == 1


def test_two_results_directories_are_one_computation_written_to_both(place, caplog, tmp_path):
    caplog.set_level(logging.INFO)
    cells = [f"results_dir={tmp_path / name} ctx={ctx}" for name in ("a", "b") for ctx in (16, 32)]
    prepared = place.prepared(*cells, common=("method=none",))
    assert statuses(runner.run(prepared)) == ["computed"] * 4
    assert caplog.text.count("(0 of 4 documents were there)") == 4
    a, b = (harness.load_results(tmp_path / name) for name in ("a", "b"))
    keys = ["ctx", "document_index", "window"]
    assert a.sort_values(keys, ignore_index=True).equals(b.sort_values(keys, ignore_index=True))
    shutil.rmtree(tmp_path / "b")
    assert statuses(runner.run(prepared)) == ["finished", "finished", "computed", "computed"]


@pytest.mark.parametrize(
    ("cells", "count"),
    [
        (["method=none ctx=16"] * 2, 1),
        (["method=none ctx=16"] * 3 + ["method=none ctx=32"], 2),
        (["ctx=16 engine.mode=plain", "ctx=16 engine.mode=sliced"], 1),
        (["ctx=16 save_tokens=false", "ctx=16 save_tokens=true", "ctx=16 save_tokens=false"], 1),
        (["ctx=16 engine.tokens_per_batch=16", "ctx=16 engine.tokens_per_batch=64"], 1),
    ],
)
def test_a_cell_that_is_asked_for_in_several_ways_is_one(place, capsys, cells, count):
    sweep.main(place.configs(*cells, common=("method=none",)), sweep=True)
    assert f"{count} cell" + "s" * (count > 1) + f": {count} computed" in capsys.readouterr().out
    wants_tokens = any("save_tokens=true" in cell for cell in cells)
    assert len(list(place.results.rglob("*.tokens.parquet"))) == wants_tokens
    assert summarize(harness.load_results(place.results))["num_windows"].tolist() == [4] * count


def test_a_cell_of_two_names_that_fails_fails_under_both(place, monkeypatch):
    prepared = place.prepared("model.name=alpha ctx=32", "model.name=beta ctx=32")
    monkeypatch.setattr("harness.results.rows.tables", lambda *args: 1 / 0)
    outcomes = runner.run(prepared)
    assert statuses(outcomes) == ["failed", "failed"]
    assert all("ZeroDivisionError" in o.message for o in outcomes)
    assert all(p.files.log.exists() for p in prepared)


# What changes under way ----------------------------------------------------------------------------------------------


def change_before_loading(monkeypatch, name, change):
    """Let something happen just before the model of this name is loaded, long after the sweep has started."""
    from harness.engine import ready as door

    load = door.load

    def late(spec, *args):
        if spec.name == name:
            change()
        return load(spec, *args)

    monkeypatch.setattr(door, "load", late)


def overwrite_weights(folder):
    new = tiny_model(tiny_config("llama"), seed=9)
    new.save_pretrained(folder.parent / "new")
    stat = (folder / "model.safetensors").stat()
    content = (folder.parent / "new" / "model.safetensors").read_bytes()
    assert len(content) == stat.st_size
    (folder / "model.safetensors").write_bytes(content)
    os.utime(folder / "model.safetensors", ns=(stat.st_atime_ns, stat.st_mtime_ns))


def overwrite_config(folder):
    file = folder / "config.json"
    file.write_text(file.read_text().replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-01'))


@pytest.mark.parametrize("change", [overwrite_weights, overwrite_config])
def test_a_model_that_changed_after_the_start_fails_its_cells_alone(place, monkeypatch, change):
    other = save_checkpoint(place.folder / "other")
    cells = ["ctx=16", f"model.path={other} model.name=second ctx=16", f"model.path={other} model.name=second ctx=32"]
    tiny_model(tiny_config("llama"), seed=3).save_pretrained(other)
    prepared = place.prepared(*cells)
    change_before_loading(monkeypatch, "second", lambda: change(other))
    outcomes = runner.run(prepared)
    assert statuses(outcomes) == ["computed", "failed", "failed"]
    assert outcomes[1].message == "model second changed after the run was started; start it again."
    assert not list((place.results / "second").rglob("*.parquet"))
    monkeypatch.undo()
    monkeypatch.setenv("HARNESS_CACHE", str(place.folder / "cache"))
    assert statuses(runner.run(place.prepared(*cells, run_id="second")))[1:] == ["computed", "computed"]


def test_a_text_that_changed_after_the_start_fails_its_cells(place, monkeypatch):
    prepared = place.prepared("ctx=16")
    shutil.rmtree(place.folder / "cache", ignore_errors=True)
    place.texts.write_text(place.texts.read_text().replace("w8", "w9"))
    with pytest.raises(UserError) as raised:
        runner.run(prepared, raise_mistakes=True)
    assert "changed after" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_changed_single_cell_is_one_line(place, monkeypatch):
    change_before_loading(monkeypatch, "tiny", lambda: overwrite_weights(place.model))
    with pytest.raises(UserError, match="model tiny changed after the run was started"):
        sweep.main(place.configs("ctx=16"), sweep=False)
    assert not list(place.results.rglob("*.parquet"))


def test_weights_of_equal_size_and_time_are_other_cells(place):
    (before,) = runner.run(place.prepared("ctx=32"))
    overwrite_weights(place.model)
    (after,) = runner.run(place.prepared("ctx=32"))
    assert (before.status, after.status) == ("computed", "computed")
    tables = [harness.load_results(outcome.files.windows) for outcome in (before, after)]
    values = [float(np.exp(rows.nll_sum.sum() / rows.num_scored.sum())) for rows in tables]
    expected = [right(model, place, 32) for model in (tiny_llama(), tiny_model(tiny_config("llama"), seed=9))]
    assert np.allclose(values, expected, rtol=1e-6)


# Checkpoints of one sweep --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folders", [("ck1", "ck2"), ("run-a/last", "run-b/last"), ("deep/a/x", "deep/b/x")])
def test_two_checkpoints_in_one_sweep_are_two_named_lines(place, capsys, monkeypatch, folders):
    monkeypatch.chdir(place.folder)  # relative, as one writes them
    for seed, name in enumerate(folders, start=1):
        save_seed(place.folder / name, seed, place.model)
    cells = [f"model.path={path} ctx={ctx}" for path in folders for ctx in (16, 32)]
    sweep.main(place.configs(*cells, common=("method=none",)), sweep=True)
    shown = capsys.readouterr().out
    names = ("a/x", "b/x") if "deep/a/x" in folders else folders
    lines = {name: next(line for line in shown.splitlines() if line.startswith(f"none, {name} ")) for name in names}
    for seed, name in enumerate(names, start=1):
        expected = [right(tiny_model(tiny_config("llama"), seed), place, ctx) for ctx in (16, 32)]
        assert [float(text) for text in lines[name].split()[2:4]] == pytest.approx(expected, abs=0.051)
    curves = label(summarize(harness.load_results(place.results)))["curve"]
    assert sorted(set(curves)) == sorted(f"none, {name}" for name in names)


@pytest.mark.parametrize("folders", [("1/last", "2/last"), ("run/1/hf/last", "run/2/hf/last")])
def test_two_checkpoints_of_one_folder_name_elsewhere_are_two_named_lines(place, capsys, folders):
    paths = [save_seed(place.folder / name, seed, place.model) for seed, name in enumerate(folders, start=1)]
    cells = [f"model.path={path} ctx={ctx}" for path in paths for ctx in (16, 32)]
    sweep.main(place.configs(*cells, common=("method=none",)), sweep=True)
    shown = capsys.readouterr().out
    for seed, name in enumerate(folders, start=1):
        (line,) = (line for line in shown.splitlines() if line.startswith(f"none, {name.removeprefix('run/')} "))
        expected = [right(tiny_model(tiny_config("llama"), seed), place, ctx) for ctx in (16, 32)]
        assert [float(text) for text in line.split()[2:4]] == pytest.approx(expected, abs=0.051)


@pytest.mark.parametrize("names", [("old/book.jsonl", "new/book.jsonl"), ("a/x/book.jsonl", "b/x/book.jsonl")])
def test_two_texts_of_one_file_name_are_two_named_blocks(place, capsys, names):
    lines = place.texts.read_text().splitlines()
    expected = {}
    for name, content in zip(names, (lines[:2], lines[2:]), strict=True):
        (place.folder / name).parent.mkdir(parents=True)
        place.texts.write_text("\n".join(content))
        shutil.copy(place.texts, place.folder / name)
        expected[name] = right(tiny_llama(), place, 16)
    cells = [f"data.path={place.folder / name} ctx=16" for name in names]
    sweep.main(place.configs(*cells, common=("method=none",)), sweep=True)
    blocks = capsys.readouterr().out.split("perplexity: ")[1:]
    assert len(blocks) == 2
    for name, value in expected.items():
        (block,) = (block for block in blocks if f"text, {name}, " in block)
        line = next(line for line in block.splitlines() if line.startswith("none "))
        assert float(line.split()[1]) == pytest.approx(value, abs=0.051)


def test_a_checkpoint_written_over_is_two_lines_told_apart_by_its_fingerprint(place):
    runner.run(place.prepared("ctx=16", "ctx=32"))
    overwrite_weights(place.model)
    runner.run(place.prepared("ctx=16", "ctx=32"))
    curves = label(summarize(harness.load_results(place.results)))["curve"]
    assert curves.nunique() == 2
    assert curves.value_counts().tolist() == [2, 2]


def test_one_checkpoint_by_two_paths_is_one_line(place):
    link = place.folder / "link"
    link.symlink_to(place.model)
    outcomes = runner.run(place.prepared("ctx=16", f"ctx=32 model.path={link}"))
    assert statuses(outcomes) == ["computed", "computed"]
    assert set(label(summarize(harness.load_results(place.results)))["curve"]) == {"none"}


def test_a_source_says_folder_file_revision_and_window(place):
    (plain,) = place.configs("ctx=16")
    assert plain.model.source == "model"
    (cut,) = place.configs("ctx=16 model.sliding_window=8 model.revision=abc")
    assert cut.model.source == "model@abc sliding_window=8"
    given = {"a/b": "a/b", "./a/b/": "a/b", "../a": "a", "~/a": "a", "org/name": "org/name", "/": "/"}
    assert [ModelSpec(name="m", path=path).source for path in given] == [*list(given.values())[:-1], ""]
    assert ModelSpec(name="m", package="some_package", gguf_file="m.gguf").source == "some_package/m.gguf"
