"""The command as a user types it, and GGUF files that it writes."""

import sys

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from harness import export
from harness.deployment import gguf_file, llama_cpp
from harness.deployment.declared import read
from harness.deployment.express import express
from harness.deployment.recognise import recognise
from harness.deployment.target import Target
from harness.methods import RopeGeometry, build
from harness.models.checkpoint.load import load
from harness.models.checkpoint.spec import ModelSpec
from harness.models.install import applied
from tests import synthetic

GEOMETRY = RopeGeometry(rotary_dim=64, rope_theta=10_000.0, original_max_position_embeddings=512)
REFERENCE = ModelSpec(name="reference", package="harness.models.reference")


@pytest.fixture
def typed(monkeypatch, capsys):
    """Runs the command in this process: exit code, output, errors."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["export", *arguments])
        code = 0
        try:
            export.main()
        except SystemExit as ended:
            code = ended.code
        return code, *capsys.readouterr()

    return run


def test_a_checkpoint_is_written_that_transformers_runs_as_we_do(tmp_path, typed):
    code, shown, _ = typed("method=yarn", "method.factor=2", "to=transformers", f"output={tmp_path / 'new'}")
    assert code == 0
    assert "transformers: exact" in shown
    assert "vllm" not in shown.split("transformers: exact")[1]
    ids = torch.arange(64)[None]
    model = load(REFERENCE).model
    with applied(model, build("yarn", {"factor": 2.0}, GEOMETRY, 1024), 1024), torch.no_grad():
        ours = model(ids).logits
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "new", dtype=torch.float32).eval()
    with torch.no_grad():
        torch.testing.assert_close(exported(ids).logits, ours, atol=1e-4, rtol=0)


def test_the_winner_of_results_is_exported_with_what_it_is_worth(tmp_path, typed):
    synthetic.write(synthetic.sweep(("none", "linear", "ntk", "yarn"), (2048,)), tmp_path)
    code, shown, error = typed(f"results_dir={tmp_path}", "ctx=2048", "to=vllm")
    assert (code, error) == (0, "")
    assert "best by perplexity at ctx 2048: yarn" in shown
    assert "separated from the next: ntk, over it" in shown
    assert '"factor": 4.0' in shown


def test_modifiers_are_named_not_dropped(typed):
    _, shown, _ = typed("method=linear", "method.factor=2", "method.kv_cache=q8_0", "method.query_scale=log_n")
    assert "kv_cache q8_0 was measured and is no part of these settings; llama.cpp: --cache-type-k q8_0" in shown
    assert shown.count("not expressible: scaling of queries by position") == 4
    assert "nearest  linear, factor 2: what it costs is not measured" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["to=vlm"], "Unknown engine 'vlm'. Did you mean 'vllm'"),
        (["method=yarn"], "give ctx=... (tokens), or a method with method.factor="),
        (["method=yarn", "ctx=1"], "ctx must be an integer >= 2"),
        (["results_dir=results"], "results_dir=... needs ctx=..."),
    ],
)
def test_mistakes_are_one_line(arguments, said, typed):
    code, shown, error = typed(*arguments)
    assert code == 2
    assert error.startswith("error: ")
    assert said in error
    assert len(error.splitlines()) == 1
    assert shown == ""


# GGUF ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def plain(tmp_path):
    """A small GGUF file of a Llama that already declares a linear factor."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "plain.gguf", arch="llama")
    writer.add_context_length(512)
    writer.add_rope_dimension_count(64)
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(8.0)
    writer.add_array("tokenizer.ggml.tokens", ["a", "b"])
    writer.add_tensor("token_embd.weight", np.arange(12, dtype=np.float32).reshape(3, 4))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tmp_path / "plain.gguf"


@pytest.mark.parametrize(
    ("name", "params", "found"),
    [
        ("yarn", {"factor": 4.0}, ("yarn", {"factor": 4.0, "attention_factor": None})),
        ("yarn", {"factor": 4.0, "attention_factor": 1.5}, ("yarn", {"attention_factor": 1.5})),
        ("linear", {"factor": 4.0}, ("linear", {"factor": 4.0})),
        ("none", {}, ("none", {})),
        ("llama3", {"factor": 4.0}, ("longrope", {"temperature": 1.0})),
    ],
)
def test_a_gguf_file_is_written_and_read_back(plain, name, params, found, tmp_path):
    method = build(name, params, GEOMETRY, 2048)
    target = Target("plain.gguf", "llama", GEOMETRY, 2048, architecture="llama")
    expression = express(method, GEOMETRY, 2048)
    gguf_file.write(plain, tmp_path / "new.gguf", llama_cpp.metadata_of(expression, target, "llama"))
    declared = read(tmp_path / "new.gguf")
    assert (declared.max_position_embeddings, declared.rotary_dim, declared.doubled) == (2048, 64, ())
    back = recognise(declared.settings(), declared.max_position_embeddings)
    assert back.name == found[0]
    assert {key: getattr(back, key) for key in found[1]} == pytest.approx(found[1])
    wanted, given = method(GEOMETRY, 2048), back(GEOMETRY, 2048)
    np.testing.assert_allclose(given.inv_freq, wanted.inv_freq, rtol=1e-6)
    assert given.attention_scaling == pytest.approx(wanted.attention_scaling, rel=1e-6)


def test_everything_else_in_the_file_stays(plain, tmp_path):
    target = Target("plain.gguf", "llama", GEOMETRY, 2048, architecture="llama")
    expression = express(build("power", {}, GEOMETRY, 2048), GEOMETRY, 2048)
    for source, new in ((plain, "once.gguf"), (tmp_path / "once.gguf", "twice.gguf")):
        gguf_file.write(source, tmp_path / new, llama_cpp.metadata_of(expression, target, "llama"))
    reader = gguf_file.open_file(tmp_path / "twice.gguf")
    assert gguf_file.metadata(reader)["tokenizer.ggml.tokens"] == ["a", "b"]
    assert "llama.rope.scaling.factor" not in gguf_file.metadata(reader)
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    assert sorted(tensors) == ["rope_freqs.weight", "token_embd.weight"]
    np.testing.assert_array_equal(tensors["token_embd.weight"], np.arange(12, dtype=np.float32).reshape(3, 4))
