"""Where a file lies, in as many words as tell it from its namesakes."""

import os

MOST = 4  # folders: more says much about a machine, and little about the file


def folders_above(path: str, shown: int = 1) -> str:
    """The last folders that `path` lies in, below the home directory where it is below that; "a/b", or "".

    shown: how many last parts of the path are named elsewhere already. A relative path says what it says: where it
    begins is not known.
    """
    home = os.path.expanduser("~").rstrip(os.sep) + os.sep
    parts = os.path.normpath(path.removeprefix(home)).split(os.sep)
    kept = [part for part in parts[:-shown] if part not in ("", os.curdir, os.pardir)]
    return "/".join(kept[-MOST:])
