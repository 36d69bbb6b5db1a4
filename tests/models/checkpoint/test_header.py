"""What is known of a model without its weights is remembered by what its files hold, and needs no heavy import then."""

import subprocess
import sys
from dataclasses import asdict

from harness.models.checkpoint import header as module
from harness.models.checkpoint.header import header
from harness.models.checkpoint.spec import ModelSpec

REFERENCE = ModelSpec(name="reference", package="harness.models.reference")
AGAIN = """
import sys
from harness.models.checkpoint.header import header
from harness.models.checkpoint.spec import ModelSpec
found = header(ModelSpec(name="reference", package="harness.models.reference"))
print(found, *[name for name in ("torch", "transformers") if name in sys.modules], sep="|")
"""


def test_a_header_that_is_remembered_is_the_same_and_imports_nothing_heavy(own_cache) -> None:
    first = header(REFERENCE)
    again = subprocess.run([sys.executable, "-c", AGAIN], capture_output=True, text=True, check=True).stdout.strip()
    assert again == repr(first)


def test_a_header_is_read_anew_where_the_programs_are_others_or_the_entry_is_damaged(own_cache, monkeypatch) -> None:
    first = header(REFERENCE)
    read = []
    monkeypatch.setattr(module, "_read", lambda spec, fingerprint: read.append(spec) or first)
    assert asdict(header(REFERENCE)) == asdict(first)
    assert not read
    monkeypatch.setattr(module, "_version", lambda package: "99")
    header(REFERENCE)
    assert len(read) == 1
    for entry in (module.cache.root() / "headers").iterdir():
        entry.write_text("{")
    header(REFERENCE)
    assert len(read) == 2
