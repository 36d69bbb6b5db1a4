"""What belongs to a method: its class, its name in METHODS, its YAML, its formula in tests/reference.

Whoever adds a method and forgets one of them reads here what to write, and where.
"""

import inspect
import pkgutil
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest
from omegaconf import OmegaConf

from harness import methods
from harness.methods import METHODS, Method
from harness.methods.base import Kind
from tests.methods.frequencies import FREQUENCY, formula

CONF = Path(__file__).parents[2] / "conf" / "method"
PARTS = ("modules", "modifiers")  # no methods in these


def written() -> list[type[Method]]:
    """Every class of a method that lies in a file of harness/methods."""
    found = []
    for module in pkgutil.walk_packages(methods.__path__, f"{methods.__name__}."):
        if not set(module.name.split(".")) & set(PARTS):
            classes = [c for c in vars(import_module(module.name)).values() if inspect.isclass(c)]
            found += [c for c in classes if c.__module__ == module.name and issubclass(c, Method)]
    return [method for method in found if not inspect.isabstract(method)]


def file(method: type[Method]) -> str:
    return method.__module__.replace(".", "/") + ".py"


@pytest.mark.parametrize("method", written(), ids=lambda method: method.__name__)
def test_every_class_is_named_in_methods(method: type[Method]) -> None:
    other = METHODS.get(method.name, method)
    assert other is method, f"{method.__name__} and {other.__name__} have one name: write another in {file(method)}"
    assert method in METHODS.values(), (
        f"{method.__name__} is not in METHODS: in harness/methods/__init__.py import it from {method.__module__} and "
        f"write {method.__name__} into METHODS."
    )


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_what_it_is(name: str) -> None:
    method = METHODS[name]
    assert method.kind in get_args(Kind)
    assert method.version >= 1
    for fact in ("name", "changes", "source"):
        assert getattr(method, fact, ""), f'{method.__name__}: in {file(method)} write {fact}: ClassVar[str] = "..."'
    assert "__dataclass_params__" in vars(method), (
        f"{method.__name__} is no dataclass of its own: in {file(method)} write above it "
        "@dataclass(frozen=True, kw_only=True)"
    )


@pytest.mark.parametrize("name", METHODS)
def test_configuration_writes_out_the_defaults(name: str) -> None:
    path = CONF / f"{name}.yaml"
    assert path.is_file(), f"conf/method/{name}.yaml is missing: write it, with the line `name: {name}`"
    found = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(found, dict)
    assert found.pop("name") == name
    defaults = {field.name: field.default for field in fields(METHODS[name])}
    assert found == defaults, f"conf/method/{name}.yaml: only what it holds can be overridden; write every default"


@pytest.mark.parametrize("name", sorted(path.stem for path in CONF.glob("*.yaml")))
def test_every_configuration_is_of_a_method(name: str) -> None:
    assert name in METHODS, (
        f"conf/method/{name}.yaml names no method: import its class in harness/methods/__init__.py and write it into "
        f"METHODS, its name: ClassVar[str] = {name!r}"
    )


@pytest.mark.parametrize("name", FREQUENCY)
def test_every_frequency_method_has_a_formula_of_its_own(name: str) -> None:
    assert callable(formula(name))
