"""What --help of every command begins with."""

import argparse
import re
from pathlib import Path

import pytest
import yaml

from harness import compare, report

CONF = Path(__file__).parents[2] / "conf"
HELPS = {file.stem: yaml.safe_load(file.read_text())["hydra"]["help"]["header"] for file in sorted(CONF.glob("*.yaml"))}
PARSERS: dict[str, argparse.ArgumentParser] = {"compare": compare.parser(), "report": report.parser()}
SHOWN = HELPS | {name: parser.format_help() for name, parser in PARSERS.items()}


@pytest.mark.parametrize("name", SHOWN)
def test_help_begins_with_three_examples(name: str) -> None:
    module = "harness" if name == "config" else f"harness.{name}"
    examples = re.findall(rf"^ +python -m {module} ?.*$", SHOWN[name], re.MULTILINE)
    assert len(examples) >= 3
    assert all(len(example) <= 120 for example in examples)
