"""What a protocol consists of besides its class: a step that is missing fails here, saying what to write and where."""

from dataclasses import dataclass, fields
from inspect import isabstract
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from harness.data import protocols
from harness.data.protocols import PROTOCOLS
from harness.data.strided import Strided
from harness.data.windows import Protocol, Window, plan, window
from tests.evaluations import protocol_named
from tests.reference.protocols import DEFINITIONS

ROOT = Path(__file__).parents[2]
DRAWN = {"fixed_targets": ((8, 16), 3), "last": ((8,), None)}  # ctx, scored tokens; all others at ctx = 8


def missing(protocol: type[Protocol]) -> list[str]:
    """The steps that were not taken for this protocol, one sentence each."""
    name = protocol.name
    steps = []
    if PROTOCOLS.get(name) is not protocol:
        steps.append(f"harness/data/protocols.py: add {protocol.__name__} to PROTOCOLS.")
    own = {field.name: field.default for field in fields(protocol)}
    file = ROOT / "conf" / "protocol" / f"{name}.yaml"
    written = OmegaConf.to_container(OmegaConf.load(file)) if file.exists() else {}
    if {**written, "max_windows": None} != {"name": name, **own}:
        lines = "; ".join(f"{key}: {'null' if value is None else value}" for key, value in own.items())
        steps.append(f"conf/protocol/{name}.yaml: write `name: {name}` and every field with its default ({lines}).")
    if name not in DEFINITIONS:
        steps.append(
            f"tests/reference/protocols.py: add {name!r} to DEFINITIONS: the windows of a document and which of their "
            "tokens are scored, written from the definition and not from the class."
        )
    text = (ROOT / "docs" / "protocols.md").read_text()
    drawn = drawing(protocol)
    begin = text.find(f"**`{name}`**")
    section = text[begin : text.find("\n\n**`", begin + 1)] if begin >= 0 else ""
    if f"\n\n{drawn}\n" not in f"{section}\n":
        steps.append(f"docs/protocols.md: under `## Windows` write **`{name}`**, what it is, and its drawing:\n{drawn}")
    row = next(
        line for line in (ROOT / "docs" / "choices.md").read_text().splitlines() if line.startswith("| `protocol=` |")
    )
    if name not in row.replace("`", " ").split():
        steps.append(f"docs/choices.md: name {name} in the row of `protocol=`.")
    return steps


def drawing(protocol: type[Protocol]) -> str:
    """A window a line over 20 tokens: `#` scored, `-` seen, `.` not seen; stride 4, no BOS."""
    lengths, num_targets = DRAWN.get(protocol.name, ((8,), 3))
    options = {"bos": "none", "stride": 4, "num_targets": num_targets}
    own = {field.name for field in fields(protocol)}
    made = protocol(**{key: value for key, value in options.items() if key in own})
    return "\n".join(_line(w, 20) for ctx in lengths for w in plan(20, ctx, made, num_targets=num_targets))


def _line(w: Window, num_tokens: int) -> str:
    return "    " + "." * w.begin + "-" * (w.score_from - w.begin) + "#" * w.num_scored + "." * (num_tokens - w.end)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_step_of_a_protocol_is_taken(name):
    assert not (steps := missing(PROTOCOLS[name])), "\n".join(["", *steps])


def test_every_class_is_registered():
    classes = [c for c in vars(protocols).values() if isinstance(c, type) and issubclass(c, Protocol)]
    assert [step for c in classes if not isabstract(c) for step in missing(c)] == []


@pytest.mark.parametrize("file", sorted((ROOT / "conf" / "protocol").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_choice_on_the_command_line_is_a_protocol(file):
    assert file.stem in PROTOCOLS, f"{file.name} names no class of PROTOCOLS in harness/data/protocols.py"


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_says_what_it_is(name):
    protocol = PROTOCOLS[name]
    assert protocol.source
    assert protocol.__doc__
    assert hash(protocol_named(name, stride=3)) == hash(protocol_named(name, stride=3))  # frozen


@dataclass(frozen=True, kw_only=True)
class Halved(Strided):
    """A protocol of which nothing but the class was written."""

    name = "halved"
    source = "nobody"

    def windows(self, num_tokens, ctx):
        return [window(0, ctx, ctx // 2, False)]


def test_a_class_alone_is_told_every_other_step():
    entry, choice, reference, drawn, row = missing(Halved)
    assert entry == "harness/data/protocols.py: add Halved to PROTOCOLS."
    assert choice == (
        "conf/protocol/halved.yaml: write `name: halved` and every field with its default "
        "(bos: auto; max_windows: null; stride: 256)."
    )
    assert "tests/reference/protocols.py: add 'halved' to DEFINITIONS" in reference
    assert drawn.startswith("docs/protocols.md: under `## Windows` write **`halved`**")
    assert drawn.endswith("\n    ----####............")
    assert row == "docs/choices.md: name halved in the row of `protocol=`."
