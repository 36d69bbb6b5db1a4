"""What a user did wrong, said in one line."""

import difflib
import shlex
from collections.abc import Iterable
from pathlib import Path


def one_line(error: BaseException) -> str:
    """What an error says, its line breaks and runs of blanks taken out."""
    return " ".join(str(error).split())


def first_line(error: BaseException) -> str:
    """The first line of what an error says; its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class UserError(ValueError):
    """A mistake of the user's: one line on stderr, exit code 2, no traceback."""


def unknown(kind: str, given: str, known: Iterable[str]) -> UserError:
    """The error for a name that does not exist: what was given, the nearest name, what is known."""
    names = sorted(known)
    shared = f"{given.rpartition('.')[0]}."  # of two keys, what lies in front of their names says nothing
    start = len(shared) if all(name.startswith(shared) for name in names) else 0
    folded = {name[start:].lower(): name for name in names}
    near = difflib.get_close_matches(given[start:].lower(), folded, n=1, cutoff=0.5)
    hint = f" Did you mean {folded[near[0]]!r}?" if near else ""
    return UserError(f"Unknown {kind} {given!r}.{hint} Known: {', '.join(names)}.")


def install(extra: str) -> str:
    """The command that installs an extra of this package: from its checkout, where it runs from one."""
    checkout = Path(__file__).parents[1]
    if (checkout / "pyproject.toml").is_file():
        return f"pip install -e {shlex.quote(f'{checkout}[{extra}]')}"
    return f"pip install 'longctx-harness[{extra}]'"
