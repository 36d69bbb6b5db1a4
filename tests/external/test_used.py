"""Rows of an engine's losses are rows like any: plot, compare and report work on them."""

import json

import pytest

from harness import compare, plot, report
from tests.external.server import serving

COMMON = ["protocol=single_pass", "ctx=[16,32]"]
ONE = ["protocol=single_pass", "ctx=16"]


@pytest.fixture
def both(external, engine):
    """The cells computed here, and fetched under the same name of the model."""
    external.compute("protocol=single_pass", "ctx=16,32", "method=native", flags=["-m"])
    with serving(engine, "vllm") as url:
        assert external.fetch(url, "vllm", *COMMON, "name=tiny", "dtype=float32") == 0
    return external


def test_compare_pairs_them_with_ours(both, capsys):
    assert compare.main([str(both.folder / "ours"), str(both.folder / "theirs")]) == 0
    shown = capsys.readouterr().out
    assert shown.count("1.0000") == 2
    assert "2 cells compared, 0 worse" in shown


def test_compare_finds_an_engine_that_reads_otherwise(both, engine, capsys):
    engine.model.config.rope_parameters["rope_type"] = "linear"
    engine.model.model.rotary_emb.inv_freq /= 4
    with serving(engine, "vllm") as url:
        both.fetch(url, "vllm", *COMMON, "name=tiny", "dtype=float32", results="misread")
    capsys.readouterr()
    assert compare.main([str(both.folder / "ours"), str(both.folder / "misread")]) == 1
    shown = capsys.readouterr().out
    assert "2 cells compared" in shown
    assert "1.0000" not in shown


def test_plot_and_report_show_them(both, monkeypatch, capsys):
    results = both.folder / "all"
    results.mkdir()
    for side in ("ours", "theirs"):
        (both.folder / side).rename(results / side)
    drawn = ["figure=position", f"results_dir={results}", f"plots_dir={both.folder / 'plots'}"]
    both.run_other(plot.main, "plot", *drawn)
    assert (both.folder / "plots" / "position.svg").exists()
    both.run_other(plot.main, "plot", f"results_dir={results}", f"plots_dir={both.folder / 'plots'}")
    assert "native, engine 1.0" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["report", str(results), "--output", str(both.folder / "report.html")])
    report.main()
    assert "engine 1.0" in (both.folder / "report.html").read_text()


def test_a_file_of_other_numbers_does_not_replace_a_cell(external, engine, capsys):
    prompts = external.prompts(*ONE)
    read = ["read", *ONE, "name=tiny", "computed_by=e", f"file={external.folder / 'logprobs.jsonl'}"]

    def given(value):
        lines = [
            {"id": p["id"], "logprobs": [None, *[value - n / 64] * (n - 1)]} for p in prompts for n in [len(p["ids"])]
        ]
        (external.folder / "logprobs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    given(-1.5)
    assert external.run(*read) == 0
    assert external.run(*read) == 0
    assert "0 computed, 1 found finished" in capsys.readouterr().out
    given(-1.25)
    assert external.run(*read) == 2
    assert "is finished with other losses" in capsys.readouterr().err
    assert external.run(*read, "force=true") == 0
    assert "1 computed, 0 found finished" in capsys.readouterr().out
