"""Python files as syntax trees, each read once."""

import ast
import gc
from functools import cache
from pathlib import Path


@cache
def tree(file: Path) -> ast.Module:
    """The file's tree.

    A collection of garbage while CPython 3.11 builds a tree may end in "SystemError: AST constructor recursion depth
    mismatch", so there is none.
    """
    gc.disable()
    try:
        return ast.parse(file.read_text())
    finally:
        gc.enable()
