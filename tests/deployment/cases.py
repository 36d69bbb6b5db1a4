"""Methods, each with parameters that matter, for the tests of what becomes of them in an engine."""

from typing import Any

from harness.methods import Method, RopeGeometry, build
from harness.methods.modifiers.resonance import Resonant

FREQUENCY: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("none", {}),
    "abf": ("abf", {"rope_theta": 77_000.0}),
    "linear": ("linear", {"factor": 3.0}),
    "ntk": ("ntk", {"factor": 3.0}),
    "ntk_fixed": ("ntk_fixed", {"factor": 3.0}),
    "ntk_mixed": ("ntk_mixed", {"factor": 3.0}),
    "ntk_by_parts": ("ntk_by_parts", {"factor": 3.0}),
    "dynamic_linear": ("dynamic_linear", {"factor": 1.5}),
    "dynamic_ntk": ("dynamic_ntk", {}),
    "dynamic_ntk, factor 2": ("dynamic_ntk", {"factor": 2.0}),
    "dynamic_yarn": ("dynamic_yarn", {}),
    "yarn": ("yarn", {"factor": 3.0}),
    "yarn, betas": ("yarn", {"factor": 3.0, "beta_fast": 4.0, "beta_slow": 0.5}),
    "yarn, corners as they are": ("yarn", {"factor": 3.0, "beta_fast": 4.0, "beta_slow": 0.2, "truncate": False}),
    "yarn, rotations": ("yarn", {"factor": 3.0, "ramp": "rotations"}),
    "yarn, harmonic": ("yarn", {"factor": 3.0, "blend": "harmonic"}),
    "yarn, temperature": ("yarn", {"factor": 3.0, "attention_factor": 1.3}),
    "yarn, mscale": ("yarn", {"factor": 3.0, "mscale": 2.0, "mscale_all_dim": 0.5}),
    "yarn, rotations and mscale": (
        "yarn",
        {"factor": 3.0, "ramp": "rotations", "mscale": 2.0, "mscale_all_dim": 0.5},
    ),
    "yarn, geometric": ("yarn", {"factor": 3.0, "blend": "geometric"}),
    "yarn, extrapolation": ("yarn", {"factor": 3.0, "extrapolation_factor": 0.5}),
    "yarn, coefficient": ("yarn", {"factor": 3.0, "temperature_coefficient": 0.07}),
    "yarn, a list": ("yarn", {"static_factors": [2.0, 4.0]}),
    "llama3": ("llama3", {"factor": 3.0, "high_freq_factor": 3.0}),
    "abf, beta0": ("abf", {"base": "beta0"}),
    "cope": ("cope", {}),
    "p_rope": ("p_rope", {}),
    "power": ("power", {}),
    "truncated": ("truncated", {}),
    "longrope": ("longrope", {"factor": 3.0}),
    "longrope, a number": ("longrope", {"factor": 3.0, "temperature": 1.2}),
    "longrope, two numbers": ("longrope", {"factor": 3.0, "short_mscale": 1.1, "long_mscale": 1.3}),
    "longrope, switched": ("longrope", {"factor": 3.0, "short": True}),
    "longrope, dynamic": ("longrope", {"factor": 3.0, "dynamic": True}),
    "linear, resonant": ("linear", {"factor": 3.0, "resonance": True}),
}


def method(case: str, geometry: RopeGeometry, length: int) -> Method:
    """The method of a case for this geometry, resolved."""
    name, params = FREQUENCY[case]
    pairs = geometry.rotary_dim // 2
    params = dict(params)
    resonance, short = params.pop("resonance", False), params.pop("short", False)
    if name == "longrope":
        params["long_factor"] = [1 + 2 * i / pairs for i in range(pairs)]
        params |= {"short_factor": [1 + i / pairs for i in range(pairs)]} if short else {}
    built = build(name, params, geometry, length)
    return Resonant(method=built) if resonance else built
