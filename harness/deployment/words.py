"""Methods in words."""

from harness.methods.base import Method, parameters
from harness.methods.modifiers.resonance import Resonant


def described(method: Method) -> str:
    """A method by its name and every parameter that is set: `yarn, factor 4, beta_fast 32, ...`."""
    if isinstance(method, Resonant):
        return f"{described(method.method)}, resonant"
    given = ((name, value) for name, value in parameters(method).items() if value is not None)
    return ", ".join([method.name, *(f"{name} {_short(value)}" for name, value in given)])


def _short(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return f"[{value[0]:g} ... {value[-1]:g}] ({len(value)})"
    return str(value)


def cache_note(kv_cache: str) -> str:
    """What to set beside the settings where keys and values were rounded: method.kv_cache is a flag of an engine.

    SGLang 0.5.23 (`srt/arg_groups/fields/model.py`); llama.cpp of llama-cpp-python 0.3.36 (`common/arg.cpp`).
    """
    if kv_cache == "fp8_e4m3":
        flag = "SGLang: --kv-cache-dtype fp8_e4m3"
    elif kv_cache in ("q8_0", "q4_0"):
        flag = f"llama.cpp: --cache-type-k {kv_cache} --cache-type-v {kv_cache}"
    else:
        flag = "not looked up in any engine"
    return f"kv_cache {kv_cache} was measured and is no part of these settings; {flag}"
