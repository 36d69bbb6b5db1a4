"""Rows made of an engine's losses are those of the harness for the same model, to float precision."""

import json

import numpy as np
import pandas as pd
import pytest

import harness
from harness.results import schema, store
from tests.external.server import serving

OWN = {"cell_id", "model", "model_source", "model_fingerprint", "dtype", "nll", "nll_sum"}  # what must or may differ
PROTOCOLS = {
    "single_pass": ["protocol=single_pass", "ctx=32"],
    "sliding, sampled": ["protocol=sliding", "ctx=16", "protocol.stride=4", "protocol.max_windows=4"],
    "rolling, which scores a token that the model does not see": ["protocol=rolling", "ctx=16"],
    "BOS in every window": ["protocol=disjoint", "ctx=16", "protocol.bos=every_window"],
}


def assert_same(external, rtol=2e-6):
    for table in ("positions", "tokens", "windows"):
        ours, theirs = (store.load_results(external.folder / side, table) for side in ("ours", "theirs"))
        keys = [key for key in schema.keys(table) if key != "cell_id"]
        ours, theirs = (rows.sort_values(keys).reset_index(drop=True) for rows in (ours, theirs))
        shared = [name for name in ours if name not in OWN]
        pd.testing.assert_frame_equal(ours[shared], theirs[shared])
        losses = "nll" if table == "tokens" else "nll_sum"
        np.testing.assert_allclose(theirs[losses], ours[losses], rtol=rtol, atol=2e-6)


CASES = [*(("vllm", case) for case in PROTOCOLS), ("sglang", "BOS in every window"), ("llama_server", "single_pass")]


@pytest.mark.parametrize(("dialect", "case"), CASES)
def test_fetched_rows_are_ours(external, engine, dialect, case):
    common = [*PROTOCOLS[case], "save_tokens=true", "method=none"]
    assert external.compute(*common) == 0
    with serving(engine, dialect) as url:
        assert external.fetch(url, dialect, *common, "parallel=3") == 0
    assert_same(external)


def test_echoed_rows_are_ours(external, engine):
    common = [*PROTOCOLS["BOS in every window"], "save_tokens=true", "method=none"]
    assert external.compute(*common) == 0
    with serving(engine, "llama_cpp_python") as url:
        assert external.fetch(url, "llama_cpp_python", *common) == 0
    assert_same(external)


def test_echo_of_a_server_that_adds_the_bos(external, engine):
    common = ["protocol=fixed_targets", "protocol.num_targets=14", "protocol.bos=every_window", "ctx=16", "method=none"]
    engine.adds_bos = True
    assert external.compute(*common, "save_tokens=true") == 0
    with serving(engine, "llama_cpp_python") as url:
        assert external.fetch(url, "llama_cpp_python", *common, "save_tokens=true") == 0
    assert_same(external)


def test_rows_of_a_file_are_ours(external, engine):
    common = ["protocol=sliding", "protocol.stride=8", "save_tokens=true", "method=none"]
    assert external.compute("ctx=32", *common) == 0
    file = external.folder / "logprobs.jsonl"
    prompts = external.prompts("ctx=[16,32]", *common)
    lines = []
    for prompt in prompts:
        table = engine.table(prompt["ids"])
        given = [None, *(table[i, t].item() for i, t in enumerate(prompt["ids"][1:]))]
        best = [None, *(int(row.argmax()) == t for row, t in zip(table, prompt["ids"][1:], strict=False))]
        lines.append(json.dumps({"id": prompt["id"], "logprobs": given, "top1": best}))
    file.write_text("\n".join(lines))
    read = ["name=tiny-engine", "computed_by='engine 1.0'", f"file={file}"]
    assert external.run("read", "ctx=32", *read, *common) == 0
    assert_same(external)
    assert external.run("read", "ctx=16", *read, *common) == 0


def test_prompts_hold_each_window_once(external):
    prompts = external.prompts("protocol=sliding", "protocol.stride=4", "ctx=[16,32]", "protocol.bos=first_window")
    assert len({prompt["id"] for prompt in prompts}) == len(prompts)
    assert [len(p["ids"]) for p in prompts[:2]] == [16, 16]
    assert prompts[0]["ids"][0] == 1, "the BOS is part of what the engine sees"
    assert prompts[0]["end"] == 15


def test_an_engine_is_never_a_cell_of_ours(external, engine):
    """Not even under the same name of the model, on the same documents, in the same precision."""
    common = ["protocol=single_pass", "ctx=32", "method=none"]
    external.compute(*common)
    with serving(engine, "vllm") as url:
        external.fetch(url, "vllm", *common, "name=tiny", "dtype=float32")
        external.fetch(url, "vllm", *common, "name=tiny", "dtype=float32", "computed_by='engine 1.1'")
    ours, theirs = (harness.load_results(external.folder / side) for side in ("ours", "theirs"))
    ids = {*ours["cell_id"], *theirs["cell_id"]}
    assert len(ids) == 3
    assert set(theirs["model_source"]) == {"engine 1.0", "engine 1.1"}
    assert all(f.startswith("engine-") for f in theirs["model_fingerprint"])


def test_weights_need_not_be_here(external, engine):
    (external.model / "model.safetensors").unlink()
    with serving(engine, "vllm") as url:
        assert external.fetch(url, "vllm", "ctx=32") == 0
