"""Files and values that nobody means to give, for tests/test_errors.py: whatever is in them, one line says so."""

import json
import os
import shutil
from pathlib import Path

DEEP = "[" * 100_000  # deeper than Python's stack

CONFIGS: dict[str, dict[str, object]] = {  # what a checkpoint's config.json says otherwise
    "text_for_a_number": {"hidden_size": "64"},
    "null_for_a_number": {"max_position_embeddings": None},
    "no_heads": {"num_attention_heads": 0},
    "odd_head": {"head_dim": 15},
    "unknown_dtype": {"dtype": "float7"},
    "unknown_activation": {"hidden_act": "nope"},
    "numbers_for_names": {"architectures": [1]},
    "rope_of_text": {"rope_parameters": "yes"},
    "rope_without_factor": {"rope_scaling": {"rope_type": "yarn"}},
    "endless_layers": {"num_hidden_layers": 10**9},
}
FILES = {  # of a checkpoint, replaced whole
    "config_null": ("config.json", "null"),
    "config_deep": ("config.json", DEEP),
    "config_empty": ("config.json", ""),
    "tokenizer_deep": ("tokenizer.json", DEEP),
    "tokenizer_of_a_list": ("tokenizer_config.json", "[]"),
    "tokenizer_length": ("tokenizer_config.json", '{"model_max_length": "x"}'),
    "weights_of_nothing": ("model.safetensors", ""),
}
TEXTS = {
    "deep.jsonl": '{"text": ' + DEEP,
    "number.jsonl": '{"text": 5}',
    "row.jsonl": "[1]",
    "half.jsonl": '{"text": "\\ud800 a"}',
    "factors_deep.json": DEEP,
    "factors_large.json": f"[{'9' * 400}]",
    "factors_text.json": '["a"]',
}
PRESETS = {  # YAML of the user's own
    "scan": b"a: [1\nb: }",
    "tab": b"a:\n\t- b",
    "latin": b"a: \xe9\n",
    "python": b"a: !!python/object/apply:os.system [ls]",
    "twice": b"a: 1\na: 2\n",
    "list": b"- a\n",
    "defaults": b"defaults: 5\n",
    "unpackaged": b"ctx: 64\n",
    "number": b"# @package _global_\n5: a\n",
    "unknown": b"# @package _global_\nctxx: 5\n",
}


def write(folder: Path, model: Path) -> None:
    """Lay all of it below `folder`; `model`: a good checkpoint."""
    good = json.loads((model / "config.json").read_text())
    for name, values in CONFIGS.items():
        shutil.copytree(model, folder / name)
        (folder / name / "config.json").write_text(json.dumps(good | values))
    for name, (file, text) in FILES.items():
        shutil.copytree(model, folder / name)
        (folder / name / file).write_text(text)
    for file in ("config.json", "tokenizer.json", "model.safetensors"):
        shutil.copytree(model, folder / f"pipe_{file}")
        (folder / f"pipe_{file}" / file).unlink()
        os.mkfifo(folder / f"pipe_{file}" / file)
    for name, text in TEXTS.items():
        (folder / name).write_text(text)
    os.mkfifo(folder / "pipe.txt")
    presets = folder / "own" / "experiment"
    presets.mkdir(parents=True)
    for name, content in PRESETS.items():
        (presets / f"{name}.yaml").write_bytes(content)
