"""Geometries of known models, and a method's frequencies on them."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np

from harness.methods import METHODS, RopeFrequencies, RopeGeometry, build
from tests.reference import frequencies as reference

LLAMA2 = RopeGeometry(rotary_dim=128, rope_theta=1e4, original_max_position_embeddings=4096)
LLAMA3 = RopeGeometry(rotary_dim=128, rope_theta=5e5, original_max_position_embeddings=8192)
QWEN = RopeGeometry(rotary_dim=128, rope_theta=1e6, original_max_position_embeddings=32768)
SMALL = RopeGeometry(rotary_dim=64, rope_theta=1e4, original_max_position_embeddings=512)
PARTIAL = RopeGeometry(rotary_dim=20, rope_theta=1e4, original_max_position_embeddings=2048)
GEOMETRIES = [LLAMA2, LLAMA3, QWEN, SMALL, PARTIAL]

FREQUENCY = [name for name, method in METHODS.items() if method.kind == "frequency"]
TIGHT = 1e-12  # float64 against float64
FLOAT32 = 1e-6  # against implementations in float32
LONG = np.geomspace(1, 30, 64).tolist()
SHORT = np.linspace(1, 1.3, 64).tolist()


def parameters(name: str) -> set[str]:
    """The names of a method's parameters."""
    return {field.name for field in fields(METHODS[name])}


def params(name: str, geometry: RopeGeometry) -> dict[str, Any]:
    """What a method cannot do without."""
    if name == "longrope":
        return {"long_factor": np.linspace(1, 9, geometry.rotary_dim // 2).tolist()}
    return {}


def formula(name: str) -> Callable[..., list[float]]:
    """The method's own formula in tests/reference."""
    found: Callable[..., list[float]] | None = getattr(reference, name, None)
    assert found is not None, (
        f"{name} has nothing to be checked against. In tests/reference/frequencies.py write its formula as the source "
        f"has it, without harness/: def {name}(d: int, b: float) -> list[float], with trained, s or length where they "
        f"enter; and def {name}_attention(s: float) -> float where cosines and sines are multiplied."
    )
    return found


def frequencies(name: str, geometry: RopeGeometry, length: int, **given: Any) -> RopeFrequencies:
    """What a method gives with these parameters."""
    return build(name, params(name, geometry) | given, geometry, length)(geometry, length)
