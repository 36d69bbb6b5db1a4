"""Every file that the loader reads is part of the fingerprint, and nothing else is read."""

import json
import math
import os
import random
import shutil
from pathlib import Path

import pytest
import safetensors
import torch
from safetensors.torch import load_file, save_file

from harness.errors import UserError, install
from harness.models.checkpoint import files
from harness.models.checkpoint.files import model_fingerprint
from harness.models.checkpoint.header import header
from harness.models.checkpoint.load import load
from harness.models.checkpoint.spec import ModelSpec
from tests.models.checkpoint.test_load import refusal, save_tokenizer, spec_of
from tests.tiny import logits, tiny_config, tiny_llama, tiny_model, tokens

INDEX = "model.safetensors.index.json"
RANK = 4


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))


def save(folder, model, *, shards=None, index=INDEX, name="model.safetensors"):
    """A checkpoint; with `shards`, names by the file that they lie in, its weights lie there, and an index says so."""
    model.save_pretrained(folder)
    save_tokenizer(folder)
    if shards is None:
        return folder
    weights = load_file(folder / name)
    (folder / name).unlink()
    parts = {shard: dict(list(weights.items())[i :: len(shards)]) for i, shard in enumerate(shards)}
    for shard, part in parts.items():
        (folder / shard).parent.mkdir(parents=True, exist_ok=True)
        write = torch.save if shard.endswith((".bin", ".pt")) else lambda p, f: save_file(p, f, {"format": "pt"})
        write(part, folder / shard)
    weight_map = {key: shard for shard, part in parts.items() for key in part}
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def loaded(folder, **fields):
    return load(spec_of(folder, **fields), attn_implementation="eager").model


def replace_keeping_times(target, source):
    """Another content of the same size under the old modification time, as `cp -p` or an unpacked archive leaves it."""
    stat = target.stat()
    content = source.read_bytes()
    assert len(content) == stat.st_size
    target.write_bytes(content)
    os.utime(target, ns=(stat.st_atime_ns, stat.st_mtime_ns))


SHARDED = {
    "a subfolder": ["shards/model-00001-of-00001.safetensors"],
    "two subfolders": ["a/b/one.safetensors", "c/two.safetensors"],
    "one at the top, one below": ["one.safetensors", "below/two.safetensors"],
}


@pytest.mark.parametrize("shards", SHARDED.values(), ids=SHARDED)
@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
def test_weights_that_an_index_names_are_identified_wherever_they_lie(tmp_path, shards, family):
    made = [tiny_model(tiny_config(family), seed=seed) for seed in (0, 1)]
    a, b = (save(tmp_path / name, model, shards=shards) for name, model in zip("ab", made, strict=True))
    for name in ("config.json", INDEX):
        shutil.copy(a / name, b / name)
    assert model_fingerprint(spec_of(a)) != model_fingerprint(spec_of(b))
    for folder, model in zip((a, b), made, strict=True):
        assert torch.equal(logits(loaded(folder), tokens(20)), logits(model, tokens(20)))
    copy = shutil.copytree(a, tmp_path / "copy")
    assert model_fingerprint(spec_of(copy)) == model_fingerprint(spec_of(a))


SMUGGLED = {
    "a pickle": "w.bin",
    "a pickle below": "shards/w.pt",
    "a file outside": "../outside.safetensors",
    "an absolute path": "/tmp/outside.safetensors",
    "no path": 3,
}


@pytest.mark.parametrize("name", SMUGGLED.values(), ids=SMUGGLED)
@pytest.mark.parametrize("allow_pickle", [False, True])
def test_an_index_of_safetensors_names_nothing_else(tmp_path, name, allow_pickle, monkeypatch):
    folder = save(tmp_path / "m", tiny_llama())
    weights = load_file(folder / "model.safetensors")
    if isinstance(name, str) and not name.startswith("/"):
        (folder / name).parent.mkdir(exist_ok=True)
        torch.save(weights, folder / name)
    (folder / "model.safetensors").unlink()
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(weights, name)}))
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: pytest.fail("a pickle was read"))
    message = refusal(folder, allow_pickle=allow_pickle)
    assert f"may name only *.safetensors files inside its folder, got {name!r}" in message
    with pytest.raises(UserError, match="may name only"):
        header(spec_of(folder, allow_pickle=allow_pickle))


def test_an_index_of_pickles_is_read_where_pickles_are_allowed_and_its_shards_are_identified(tmp_path):
    shards = ["one.bin", "below/two.bin"]
    a, b = (save(tmp_path / str(s), tiny_model(tiny_config("llama"), s), shards=shards, index="pytorch_model.bin.index.json") for s in (0, 1))  # fmt: skip  # noqa: E501
    assert "model.allow_pickle=true reads its *.bin" in refusal(a)
    assert header(spec_of(a, allow_pickle=True)).fingerprint != header(spec_of(b, allow_pickle=True)).fingerprint
    model = loaded(a, allow_pickle=True)
    assert torch.equal(logits(model, tokens(20)), logits(tiny_llama(), tokens(20)))


def test_an_index_that_names_what_is_not_there_or_is_none(tmp_path):
    folder = save(tmp_path / "m", tiny_llama(), shards=["a.safetensors", "b.safetensors"])
    (folder / "b.safetensors").unlink()
    assert "names b.safetensors, which is not there" in refusal(folder)
    for content in ("{}", "[]", "{"):
        (folder / INDEX).write_text(content)
        assert INDEX in refusal(folder)


def test_a_file_that_the_configuration_names_is_identified(tmp_path):
    made = [tiny_llama(), tiny_model(tiny_config("llama"), seed=1)]
    a, b = (save(tmp_path / name, model) for name, model in zip("ab", made, strict=True))
    for folder in (a, b):
        (folder / "below").mkdir()
        (folder / "model.safetensors").rename(folder / "below" / "own.safetensors")
        shutil.copy(b / "below" / "own.safetensors" if folder == b else a / "below" / "own.safetensors", folder)
        (folder / "own.safetensors").rename(folder / "other.safetensors")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"transformers_weights": "below/own.safetensors"}))
    shutil.copy(a / "other.safetensors", b / "other.safetensors")
    assert model_fingerprint(spec_of(a)) != model_fingerprint(spec_of(b))
    assert torch.equal(logits(loaded(b), tokens(20)), logits(made[1], tokens(20)))


def test_a_distributed_checkpoint_beside_the_weights_is_refused(tmp_path):
    folder = save(tmp_path / "m", tiny_llama())
    (folder / ".metadata").touch()
    assert "holds a distributed checkpoint" in refusal(folder)


# Adapters ------------------------------------------------------------------------------------------------------------


def save_adapter(folder, seed=7, target="q_proj", drop=None, **card):
    """A LoRA of rank 4, alpha 8, over one projection of every layer of the tiny Llama; returns its factors."""
    folder.mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    sizes = {n: m.weight.shape for n, m in tiny_llama().named_modules() if n.endswith(target)}
    factors = {}
    for name, (rows, columns) in sizes.items():
        for letter, shape in (("A", (RANK, columns)), ("B", (rows, RANK))):
            key = f"base_model.model.{name}.lora_{letter}.weight"
            factors[key] = torch.randn(*shape, generator=generator) / 8
    save_file({k: v for k, v in factors.items() if k != drop}, folder / "adapter_model.safetensors", {"format": "pt"})
    made = {"peft_type": "LORA", "r": RANK, "lora_alpha": 8, "target_modules": [target], "task_type": "CAUSAL_LM"}
    made["base_model_name_or_path"] = "somebody/base"
    (folder / "adapter_config.json").write_text(json.dumps(made | card))
    return factors


def with_adapter(factors, scale):
    model = tiny_llama()
    for name, module in model.named_modules():
        a, b = (factors.get(f"base_model.model.{name}.lora_{letter}.weight") for letter in "AB")
        if a is not None:
            module.weight.data += scale * b @ a
    return model


@pytest.mark.parametrize(
    ("target", "card", "scale"),
    [
        ("q_proj", {}, 2.0),
        ("down_proj", {}, 2.0),
        ("v_proj", {"use_rslora": True}, 8 / math.sqrt(RANK)),
    ],
)
def test_an_adapter_beside_its_model_is_merged(tmp_path, target, card, scale):
    pytest.importorskip("peft")
    folder = save(tmp_path / "m", tiny_llama())
    base = model_fingerprint(spec_of(folder))
    factors = save_adapter(folder, target=target, **card)
    model = loaded(folder)
    difference = (logits(model, tokens(20)) - logits(with_adapter(factors, scale), tokens(20))).abs().max()
    assert difference < 1e-4
    assert (logits(model, tokens(20)) - logits(tiny_llama(), tokens(20))).abs().max() > 0.1
    assert type(model) is type(tiny_llama())
    assert not any("lora" in name for name, _ in model.named_modules())
    assert len({base, model_fingerprint(spec_of(folder))}) == 2
    before = model_fingerprint(spec_of(folder))
    save_adapter(folder, target=target, seed=8, **card)
    assert model_fingerprint(spec_of(folder)) != before


def test_an_adapter_that_cannot_be_merged_whole_is_refused(tmp_path):
    pytest.importorskip("peft")
    folder = save(tmp_path / "m", tiny_llama())
    save_adapter(folder, drop="base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight")
    assert "does not fit its model, as base_model.model.model.layers.1.self_attn.q_proj.lora_B" in refusal(folder)
    save_adapter(folder, target_modules=["absent"])
    assert "cannot be merged: " in refusal(folder)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    assert "has no adapter_model.safetensors" in refusal(folder)


def test_an_adapter_is_refused_where_nothing_can_merge_it(tmp_path, monkeypatch):
    folder = save(tmp_path / "m", tiny_llama())
    save_adapter(folder)
    found = files.importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if name == "peft" else found(name, *rest))
    message = refusal(folder)
    assert "holds an adapter (LORA) beside its model" in message
    assert install("adapters") in message
    with pytest.raises(UserError, match="holds an adapter"):
        header(spec_of(folder))


@pytest.mark.parametrize("with_tokenizer", [True, False])
@pytest.mark.parametrize("kind", ["LORA", "IA3"])
def test_an_adapter_alone_is_said_to_be_one_and_names_its_base(tmp_path, with_tokenizer, kind):
    save_adapter(tmp_path / "only", peft_type=kind)
    if with_tokenizer:
        save_tokenizer(tmp_path / "only")
    with pytest.raises(UserError) as raised:
        header(spec_of(tmp_path / "only"))
    assert f"holds an adapter ({kind}) alone, no model: merge it into its base 'somebody/base' first" in str(
        raised.value
    )


# What is read is what is identified ----------------------------------------------------------------------------------


def read_while_loading(folder, monkeypatch):
    """Files of a folder that are opened while its model is loaded, by Python or by safetensors, relative."""
    import builtins
    import io

    seen = set()
    opened, mapped = io.open, safetensors.safe_open

    def spy(file, *args, **kwargs):
        seen.add(str(file))
        return opened(file, *args, **kwargs)

    def spy_mapped(file, *args, **kwargs):
        seen.add(str(file))
        return mapped(file, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", spy)
        patch.setattr("transformers.modeling_utils.safe_open", spy_mapped)
        load(spec_of(folder))
    own = {Path(file) for file in seen if Path(file).is_relative_to(folder)}
    return {file.relative_to(folder).as_posix() for file in own}


@pytest.mark.parametrize("shards", [None, ["a.safetensors", "below/b.safetensors"]], ids=["whole", "sharded"])
@pytest.mark.parametrize("adapter", [False, True], ids=["alone", "adapter"])
def test_nothing_is_read_of_the_model_that_is_not_identified(tmp_path, monkeypatch, shards, adapter):
    folder = save(tmp_path / "m", tiny_llama(), shards=shards)
    if adapter:
        pytest.importorskip("peft")
        save_adapter(folder)
    identified = {file.relative_to(folder).as_posix() for file in files._model_files(spec_of(folder))}
    beside = {"generation_config.json"}  # how to sample: no loss depends on it
    read = {name for name in read_while_loading(folder, monkeypatch) if not name.startswith("tokenizer")} - beside
    assert read <= identified
    assert {"config.json", *(shards or ["model.safetensors"])} <= read | identified & read


def small_change(file: Path, draw: random.Random) -> None:
    """Change one byte, or one digit of a JSON file; size and modification time stay."""
    stat, content = file.stat(), bytearray(file.read_bytes())
    places = [i for i, byte in enumerate(content) if chr(byte).isdigit()] if file.suffix == ".json" else None
    at = draw.choice(places) if places else draw.randrange(len(content))
    content[at] = ord(draw.choice([d for d in "123456789" if ord(d) != content[at]])) if places else content[at] ^ 1
    file.write_bytes(bytes(content))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def number(folder):
    """What the model makes of some tokens, or how it is refused."""
    try:
        return logits(loaded(folder), tokens(12)).tolist()
    except UserError as error:
        return str(error)
    except Exception as error:  # it may also fail when it runs
        return type(error).__name__


@pytest.mark.parametrize("seed", range(6))
def test_a_small_change_of_any_file_changes_the_identity_or_not_the_number(tmp_path, seed):
    """Sizes and modification times stay; every file of the folder is tried, also those that should not matter."""
    draw = random.Random(seed)
    folder = save(tmp_path / "m", tiny_llama(), shards=["a.safetensors", "below/b.safetensors"])
    spec, before = spec_of(folder), number(folder)
    known = model_fingerprint(spec)
    for file in sorted(f for f in folder.rglob("*") if f.is_file()):
        whole, stat = file.read_bytes(), file.stat()
        small_change(file, draw)
        try:
            changed = model_fingerprint(spec) != known
        except UserError:
            changed = True
        assert changed or number(folder) == before, file
        assert changed == (file.suffix != ".json" or file.name in ("config.json", INDEX)) or "tokenizer" in file.name
        file.write_bytes(whole)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert model_fingerprint(spec) == known


def test_a_replaced_checkpoint_of_equal_size_and_time_is_another(tmp_path):
    folder, other = save(tmp_path / "m", tiny_llama()), save(tmp_path / "o", tiny_model(tiny_config("llama"), seed=1))
    before = model_fingerprint(spec_of(folder))
    replace_keeping_times(folder / "model.safetensors", other / "model.safetensors")
    assert model_fingerprint(spec_of(folder)) == model_fingerprint(spec_of(other)) != before


def test_weights_do_not_change_in_memory_when_their_file_is_written_to(tmp_path):
    """Read in their own precision, weights are pages of the file unless they are copied."""
    folder, other = save(tmp_path / "m", tiny_llama()), save(tmp_path / "o", tiny_model(tiny_config("llama"), seed=1))
    model = loaded(folder)
    with (folder / "model.safetensors").open("r+b") as file:
        file.write((other / "model.safetensors").read_bytes())
    assert torch.equal(logits(model, tokens(20)), logits(tiny_llama(), tokens(20)))


def test_a_configuration_that_changed_is_read_anew_in_the_same_process(tmp_path):
    folder = save(tmp_path / "m", tiny_llama())
    first = header(spec_of(folder))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.5}))
    second = header(spec_of(folder))
    assert (first.config.rms_norm_eps, second.config.rms_norm_eps) == (1e-6, 0.5)
    assert first.fingerprint != second.fingerprint
    assert ModelSpec(name="tiny", path=str(folder)) == second.spec


# Code and adapters that lie elsewhere than expected ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "auto_map"),
    [
        ("config.json", {"AutoConfig": "other/code--configuration.Own"}),
        ("config.json", {"AutoModelForCausalLM": "other/code--modeling.Own", "AutoModel": "modeling.Own"}),
        ("tokenizer_config.json", {"AutoTokenizer": [None, "other/code--tokens.OwnFast"]}),
        ("tokenizer_config.json", {"AutoTokenizer": ["other/code--tokens.Own", None]}),
    ],
)
def test_code_that_is_taken_from_another_repository_is_identified(tmp_path, monkeypatch, file, auto_map):
    folder, other = save(tmp_path / "m", tiny_llama()), tmp_path / "other"
    other.mkdir()
    (other / "own.py").write_text("ONE = 1\n")
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | {"auto_map": auto_map}))
    asked = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: asked.append(name) or str(other))
    files._code_of_hub.cache_clear()
    trusting = spec_of(folder, trust_remote_code=True)
    before = model_fingerprint(trusting), files.tokenizer_files_fingerprint(trusting)
    assert asked == ["other/code"]
    plain = model_fingerprint(spec_of(folder))
    replacement = tmp_path / "own.py"
    replacement.write_text("ONE = 2\n")
    replace_keeping_times(other / "own.py", replacement)
    after = model_fingerprint(trusting), files.tokenizer_files_fingerprint(trusting)
    assert all(old != new for old, new in zip(before, after, strict=True))
    assert model_fingerprint(spec_of(folder)) == plain  # code that is not trusted is not run
    files._code_of_hub.cache_clear()


def test_code_of_another_repository_that_is_not_here_is_refused(tmp_path, monkeypatch):
    folder = save(tmp_path / "m", tiny_llama())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoConfig": "nobody/code--a.B"}}))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    files._code_of_hub.cache_clear()
    with pytest.raises(UserError, match="takes code from nobody/code, which is not in the hub's local cache"):
        model_fingerprint(spec_of(folder, trust_remote_code=True))


@pytest.mark.parametrize("kind", ["LORA", "IA3"])
def test_an_adapter_beside_a_named_gguf_file_is_refused(tmp_path, kind):
    folder = save(tmp_path / "m", tiny_llama())
    (folder / "model.gguf").write_bytes(b"GGUF")
    assert model_fingerprint(spec_of(folder, gguf_file="model.gguf"))
    save_adapter(folder, peft_type=kind)
    with pytest.raises(UserError, match=r"holds an adapter beside model\.gguf, into which it cannot be merged"):
        model_fingerprint(spec_of(folder, gguf_file="model.gguf"))
