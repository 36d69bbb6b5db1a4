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
