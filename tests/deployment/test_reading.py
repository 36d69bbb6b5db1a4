"""Settings in files, read back: which method they are, and every mistake that they can look like."""

import json

import pytest

from harness import theory
from harness.deployment.declared import of_config, of_gguf, read
from harness.deployment.recognise import recognise
from harness.deployment.suspicious import CHECKS, looks_wrong
from harness.errors import UserError
from harness.methods import RopeGeometry
from harness.methods.frequency.yarn import temperature

HEAD = {"hidden_size": 256, "num_attention_heads": 4}
LLAMA = {"model_type": "llama", **HEAD}
TRAINED = RopeGeometry(rotary_dim=64, rope_theta=10_000.0, original_max_position_embeddings=4096)
YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10_000.0, "original_max_position_embeddings": 4096}
LATENT = {"model_type": "deepseek_v3", "qk_rope_head_dim": 64}


def yarn(without=(), **more):
    return {name: value for name, value in {**YARN, **more}.items() if name not in without}


def config(rope, **beside):
    return of_config({**LLAMA, "max_position_embeddings": 16_384, **beside, "rope_parameters": rope})


def gguf(arch="llama", tensors=None, **keys):
    beside = {"general.architecture": arch, f"{arch}.rope.dimension_count": 64, f"{arch}.context_length": 16_384}
    return of_gguf(beside | {f"{arch}.{name.replace('__', '.')}": value for name, value in keys.items()}, tensors or {})


SCALED = {"rope__scaling__type": "yarn", "rope__scaling__factor": 4.0, "rope__scaling__original_context_length": 4096}
LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0}
DYNAMIC = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10_000.0}
LISTS = {"rope_type": "longrope", "factor": 4.0, "long_factor": [2.0] * 32, "short_factor": [1.0] * 32}
WRONG = [  # kind, what is declared, the trained model where it is given, a word of what is said
    ("factor applied twice", config(YARN, max_position_embeddings=65_536), None, "4096 x 4 x 4"),
    ("factor applied twice", config(YARN, rope_scaling={"type": "linear", "factor": 2.0}), None, "rope_scaling alone"),
    ("factor applied twice", gguf(tensors={"rope_freqs.weight": [8.0] * 32}, **SCALED), None, "on top of the tensor"),
    ("factor applied twice", gguf(rope__scaling__factor=4.0, rope__scale_linear=4.0), None, "both stand"),
    ("original length missing", config(yarn(["original_max_position_embeddings"])), None, "16384"),
    ("original length missing", config({**LISTS, "rope_theta": 10_000.0}), None, "longrope"),
    ("original length missing", config({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}), None, "llama3"),
    ("theta and factor both raised", config(yarn(rope_theta=10_000.0 * 4 ** (64 / 62))), None, "10000 raised"),
    ("theta and factor both raised", config(yarn(rope_theta=40_000.0)), None, "10000 raised"),
    ("theta and factor both raised", config(yarn(rope_theta=123_456.0)), TRAINED, "10000 in training"),
    ("length already extended", config(DYNAMIC), TRAINED, "scales beyond it only"),
    ("length already extended", config(LINEAR, original_max_position_embeddings=4096), None, "65536"),
    ("length already extended", config(yarn(original_max_position_embeddings=16_384)), TRAINED, "beyond the trained"),
    ("mscale_all_dim without its softmax factor", config(yarn(mscale=1.0, mscale_all_dim=1.0)), None, "llama does not"),
    ("mscale_all_dim without its softmax factor", config(yarn(mscale=1.0)), None, "ignored"),
    ("mscale_all_dim without its softmax factor", gguf("deepseek2", **SCALED), None, "yarn_log_multiplier"),
    ("position scale of queries dropped", config(YARN, model_type="ministral3"), None, "llama_4_scaling_beta"),
    ("position scale of queries dropped", config(YARN, use_logn_attn=True), None, "log n"),
    ("position scale of queries dropped", config(YARN, model_type="llama4", attn_temperature_tuning=False), None, "4"),
    ("position scale of queries dropped", gguf("mistral3", **SCALED), None, "temperature_scale"),
    ("lengths do not fit", config(YARN, max_position_embeddings=32_768), None, "beyond 4096 x 4"),
    ("lengths do not fit", config({**LISTS, "long_factor": [2.0] * 16}), None, "16 numbers, 32 frequencies"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "declared", "trained", "said"), WRONG)
def test_a_mistake_is_named(kind, declared, trained, said):
    found = looks_wrong(declared, trained)
    assert any(line.startswith(f"{kind}: ") and said in line for line in found), found


def test_every_check_is_tried():
    assert {kind for kind, *_ in WRONG} == set(CHECKS)


SOUND = [
    config(YARN),
    config({"rope_type": "default", "rope_theta": 500_000.0}),
    config({**DYNAMIC}, max_position_embeddings=4096),
    config(LINEAR, max_position_embeddings=4096),
    of_config({**LATENT, "max_position_embeddings": 16_384, "rope_parameters": yarn(mscale=1.0, mscale_all_dim=1.0)}),
    config(yarn(llama_4_scaling_beta=0.1), model_type="ministral3"),
    gguf(**SCALED),
    gguf(tensors={"rope_freqs.weight": [8.0] * 32}),
    gguf("mistral3", attention__temperature_scale=0.1, **SCALED),
    gguf("deepseek2", rope__scaling__yarn_log_multiplier=1.0, **SCALED),
]
LLAMA31 = {
    **LLAMA, "max_position_embeddings": 131_072, "rope_theta": 500_000.0,
    "rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}  # fmt: skip


@pytest.mark.parametrize("declared", [*SOUND, of_config(LLAMA31)])
@pytest.mark.parametrize("trained", [None, TRAINED])
def test_sound_settings_look_sound(declared, trained):
    wrong = looks_wrong(declared, trained if declared.rope_theta == 10_000 else None)
    assert wrong == []


@pytest.mark.parametrize(
    ("rope", "name", "params"),
    [
        ({"rope_type": "yarn", "factor": 4.0, "attn_factor": 0.5}, "yarn", {"attention_factor": temperature(4) * 0.5}),
        ({"rope_type": "deepseek_yarn", "factor": 4.0}, "yarn", {"factor": 4.0}),
        ({"rope_type": "ntk", "factor": 4.0}, "ntk_fixed", {"factor": 4.0}),
        ({"rope_type": "dynamic", "factor": 4.0}, "dynamic_ntk", {"factor": 4.0}),
        ({"rope_type": "dynamic", "alpha": 4.0}, "abf", {"rope_theta": 10_000.0 * 4 ** (64 / 62)}),
        ({**LISTS, "long_mscale": 1.2, "short_mscale": 1.2}, "longrope", {"temperature": 1.2}),
        ({"type": "linear", "factor": 2}, "linear", {"factor": 2.0}),
    ],
)
def test_words_of_one_engine_alone(rope, name, params):
    declared = config({"original_max_position_embeddings": 4096, **rope})
    method = recognise(declared.settings(), 16_384, TRAINED)
    assert method.name == name
    assert {key: getattr(method, key) for key in params} == pytest.approx(params)


def test_the_language_model_inside_a_larger_configuration():
    text = {
        **LLAMA,
        "max_position_embeddings": 4096,
        "rope_parameters": {"full_attention": YARN, "sliding_attention": {}},
    }
    declared = of_config({"model_type": "llava", "text_config": text, "vision_config": {"hidden_size": 8}})
    assert (declared.model_type, declared.rotary_dim, declared.original) == ("llama", 64, 4096)
    assert declared.settings().factor == 4.0


def test_a_gguf_with_factors_and_a_temperature_is_longrope():
    declared = gguf(tensors={"rope_freqs.weight": [2.0] * 32}, rope__scaling__attn_factor=1.25)
    method = recognise(declared.settings(), 16_384)
    assert (method.name, method.temperature, method.long_factor) == ("longrope", 1.25, [2.0] * 32)


@pytest.mark.parametrize(
    ("content", "said"),
    [("[1]", "must hold a JSON object"), ("{", "is not JSON"), ('{"a": 1}', "says nothing of rotations")],
)
def test_files_that_say_nothing_are_refused(content, said, tmp_path):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=said):
        read(tmp_path)


def test_the_command_says_it_in_words(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({**LLAMA, "max_position_embeddings": 65_536, "rope_parameters": YARN})
    )
    said = theory._declared(tmp_path, None)
    assert "method   yarn, factor 4, beta_fast 32, beta_slow 1" in said
    assert "looks wrong  factor applied twice" in said
    assert "1.1386" in said
