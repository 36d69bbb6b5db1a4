"""Files and values that nobody means to give, for tests/test_errors.py: whatever is in them, one line says so."""

import json
import os
import shutil
from pathlib import Path

DEEP = "[" * 100_000  # deeper than Python's stack

ALIASES = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))

CONFIGS: dict[str, dict[str, object]] = {  # what a checkpoint's config.json says otherwise
    "text_for_a_number": {"hidden_size": "64"},
    "null_for_a_number": {"max_position_embeddings": None},
    "no_heads": {"num_attention_heads": 0},
    "odd_head": {"head_dim": 15},
    "unknown_dtype": {"dtype": "float7"},
    "unknown_activation": {"hidden_act": "nope"},
    "numbers_for_names": {"architectures": [1]},
    "rope_of_text": {"rope_parameters": "yes"},
    "text_for_a_window": {"sliding_window": "wide"},
    "words_for_windows": {"sliding_window": [16, "x"]},
    "part_for_a_window": {"attention_window": 16.5},
    "endless_window": {"sliding_window": 10**30},
    "words_for_factors": {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": "four"}},
    "text_for_layers": {"layer_types": "full_attention"},
    "list_for_layers": {"num_hidden_layers": [2]},
    "text_for_theta": {"rope_parameters": {"rope_type": "default", "rope_theta": "x"}},
    "zero_theta": {"rope_parameters": {"rope_type": "default", "rope_theta": 0}},
    "share_of_text": {"partial_rotary_factor": "half"},
    "heads_of_text": {"num_key_value_heads": "2"},
    "odd_groups": {"num_key_value_heads": 3},
    "bos_of_text": {"bos_token_id": "x"},
    "vocabulary_of_text": {"vocab_size": "96"},
    "vocabulary_of_none": {"vocab_size": 0},
    "text_for_truth": {"tie_word_embeddings": "no"},
    "length_of_a_half": {"max_position_embeddings": 32.5},
    "negative_length": {"max_position_embeddings": -5},
    "endless_length": {"max_position_embeddings": 10**30},
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
    "config_of_a_list": ("config.json", "[]"),
    "config_of_aliases": ("config.json", ALIASES),
    "generation_of_a_list": ("generation_config.json", "[]"),
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
    "aliases": b"# @package _global_\n" + ALIASES.encode(),
    "within": b"# @package _global_\nexperiment_name: &a [*a]\n",
    "endless": b"# @package _global_\nexperiment_name: " + b"x" * 10_000_001,
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
