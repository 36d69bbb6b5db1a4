"""Values of a configuration against the annotations of a dataclass."""

import re
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import pytest

from harness.config.checks import admitted, chosen, section
from harness.data.protocols import PROTOCOLS, Sliding
from harness.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Spec:
    kind: ClassVar[str] = "spec"
    name: Literal["a", "b"] = "a"
    size: int | None = None
    share: float = 0.5
    either: int | str = 1
    lines: list[str] = field(default_factory=list)
    free: Any = None


@pytest.mark.parametrize(
    ("annotation", "kinds"),
    [
        (Any, set()),
        (int | None, {int, type(None)}),
        (Literal["a", "b"] | None, {str, type(None)}),
        (list[str], {list}),
        (dict[str, Any], {dict}),
    ],
)
def test_annotations_admit_types(annotation, kinds):
    assert admitted(annotation) == kinds


def test_values_that_fit_are_taken_as_they_are():
    given = {"name": "b", "size": None, "either": "x", "lines": ["x"], "free": [1]}
    assert section(Spec, {"spec": given}, "spec") == Spec(**given)
    assert section(Spec, {}, "spec") == Spec()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"size": 1.5}, "spec.size must be an integer, got 1.5."),
        ({"share": "half"}, "spec.share must be a number, got 'half'."),
        ({"name": 3}, "spec.name must be text, got 3."),
        ({"lines": "abc"}, "spec.lines must be a list, got 'abc'."),
        ({"sise": 1}, "Unknown key 'spec.sise'. Did you mean 'spec.size'?"),
        ({"kind": "x"}, "Unknown key 'spec.kind'."),
    ],
)
def test_values_that_do_not_fit_are_named_with_what_is_allowed(given, message):
    with pytest.raises(UserError) as raised:
        section(Spec, {"spec": given}, "spec")
    assert str(raised.value).startswith(message)


def test_a_group_that_is_chosen_by_name_has_the_fields_of_the_choice():
    assert chosen(PROTOCOLS, {"protocol": {"name": "sliding", "stride": 7}}, "protocol") == Sliding(stride=7)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "slding"}, "Unknown protocol 'slding'. Did you mean 'sliding'?"),
        ({}, "Unknown protocol ''. Known: disjoint, "),
        (
            {"name": "single_pass", "stride": 512},
            "Unknown key 'protocol.stride'. Known: protocol.bos, protocol.max_windows, protocol.name.",
        ),
        ({"name": "sliding", "strid": 512}, "Unknown key 'protocol.strid'. Did you mean 'protocol.stride'?"),
        ({"name": "fixed_targets", "num_targets": None}, "protocol.num_targets must be an integer, got None."),
        ({"name": "sliding", "stride": True}, "protocol.stride must be an integer, got True."),
    ],
)
def test_what_the_choice_does_not_have_is_an_unknown_key(given, message):
    with pytest.raises(UserError, match=re.escape(message)):
        chosen(PROTOCOLS, {"protocol": given}, "protocol")
