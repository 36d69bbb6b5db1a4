"""Setting an attribute for the length of a `with` block."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def swapped(owner: Any, name: str, value: Any) -> Iterator[None]:
    """`owner.name` is `value` until the block ends; then exactly what it was, instance attribute or not."""
    own = vars(owner)
    had = name in own
    before = own[name] if had else getattr(owner, name)  # some configurations refuse to be asked for what they hold
    setattr(owner, name, value)
    try:
        yield
    finally:
        if had or name not in own:  # a buffer lies elsewhere than in the instance's dictionary
            setattr(owner, name, before)
        else:
            delattr(owner, name)
