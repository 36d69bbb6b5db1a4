"""The house keeps its shape: small functions and files, known types, and each library behind the door of one room."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import syntax
from tests.test_layers import FILES, LAYERS, PACKAGE

COMMANDS = set(LAYERS[0])
LOOSE = COMMANDS | {"__init__", "cli", "console", "errors", "logs", "notebook", "torchrun"}
LONGEST_FUNCTION, LONGEST_FILE = 45, 250  # lines; of a function those of code, of a file all
LARGEST_SHARE_OF_ANY = 0.04
ARRAYS = {"NDArray", "ndarray", "Tensor"}
DIMENSION = r"(?:\.\.\.|[\w/*+-]+(?: [\w/*+-]+){0,4})"  # n, rotary_dim // 2, rows or 1
SHAPE = re.compile(rf"\((?:\.\.\.|{DIMENSION},|{DIMENSION}(?:, {DIMENSION})+|)\)")  # (n,), (rows, n), (...), ()
Function = ast.FunctionDef | ast.AsyncFunctionDef

# Who may import a library, as beginnings of module names.
CONFIGURATION = (
    "harness.cli",
    "harness.config",
    "harness.external.__main__",
    *(f"harness.{name}" for name in COMMANDS),
)
DOORS = {
    "transformers": ("harness.models", "harness.training"),
    "hydra": CONFIGURATION,
    "omegaconf": CONFIGURATION,
    "pyarrow": ("harness.results", "harness.data.containers", "harness.data.unpacking"),
}
WRITERS = {"to_parquet", "write_table", "write_to_dataset", "write_dataset", "ParquetWriter"}  # of parquet


def functions(tree: ast.AST) -> Iterator[Function]:
    yield from (node for node in ast.walk(tree) if isinstance(node, Function))


def public_functions(tree: ast.Module) -> Iterator[Function]:
    """Of modules and public classes, not those inside functions."""
    holders = [tree, *(n for n in tree.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_"))]
    yield from (node for holder in holders for node in holder.body if isinstance(node, Function))


def annotations(tree: ast.AST) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, Function):
            every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
            yield from (argument.annotation for argument in every if argument and argument.annotation)
            if node.returns is not None:
                yield node.returns
        elif isinstance(node, ast.AnnAssign):
            yield node.annotation


def names(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} | {
        n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)
    }


def libraries(tree: ast.AST) -> set[str]:
    """What is imported, late imports included; names for types alone bring nothing in."""
    types_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in names(node.test)
        for inner in ast.walk(node)
    }
    nodes = [node for node in ast.walk(tree) if id(node) not in types_only]
    imported = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    imported += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return {name.split(".")[0] for name in imported}


def aliases(names_of: set[str]) -> set[str]:
    """The names that files give to types made of these; of functions that return them it is no type."""
    given = (node for tree in TREES.values() for node in tree.body if isinstance(node, ast.Assign))
    return {
        target.id
        for node in given
        for target in node.targets
        if isinstance(target, ast.Name)
        and isinstance(node.value, ast.Subscript | ast.BinOp)
        and names(node.value) & names_of
        and "Callable" not in names(node.value)
    }


TREES = {name: syntax.tree(file) for name, file in FILES.items()}


def test_loose_files_are_the_commands_and_the_ground_floor() -> None:
    assert {file.stem for file in PACKAGE.glob("*.py")} == LOOSE


def test_functions_are_a_screen_long() -> None:
    long = []
    for name, tree in TREES.items():
        lines = FILES[name].read_text().splitlines()
        for function in functions(tree):
            described = function.body[0].end_lineno if ast.get_docstring(function) else None
            documentation = range(function.body[0].lineno, described + 1) if described else range(0)
            code = [
                number
                for number in range(function.lineno, (function.end_lineno or 0) + 1)
                if number not in documentation and lines[number - 1].strip() and lines[number - 1].strip()[0] != "#"
            ]
            if len(code) >= LONGEST_FUNCTION:
                long.append(f"{name}.{function.name}: {len(code)} lines")
    assert not long


def test_files_hold_one_concept() -> None:
    counts = {name: len(file.read_text().splitlines()) for name, file in FILES.items()}
    assert not {name: count for name, count in counts.items() if count >= LONGEST_FILE}


def test_few_annotations_say_any() -> None:
    said = [annotation for tree in TREES.values() for annotation in annotations(tree)]
    any_of = {"Any"} | aliases({"Any"})
    unknown = [annotation for annotation in said if names(annotation) & any_of]
    assert len(unknown) <= LARGEST_SHARE_OF_ANY * len(said), f"{len(unknown)} of {len(said)}"


def test_only_results_write_parquet() -> None:
    """Users' parquet is read by data/containers."""
    wrong = [name for name, tree in TREES.items() if names(tree) & WRITERS and not name.startswith("harness.results.")]
    assert not wrong


@pytest.mark.parametrize("library", DOORS)
def test_libraries_stay_behind_their_doors(library: str) -> None:
    allowed = DOORS[library]
    wrong = [
        name
        for name, tree in TREES.items()
        if library in libraries(tree) and not any(f"{name}.".startswith(f"{door}.") for door in allowed)
    ]
    assert not wrong


def test_methods_and_windows_are_pure() -> None:
    """No torch where a formula is imported; the torch parts of encodings are imported late."""
    pure = [name for name in FILES if name.startswith("harness.methods") and ".encoding.modules" not in name]
    wrong = [
        name
        for name in [*pure, "harness.data.windows"]
        if any("torch" in libraries(node) for node in TREES[name].body if isinstance(node, ast.Import | ast.ImportFrom))
    ]
    assert not wrong


@pytest.mark.parametrize("words", ["(n,)", "(rotary_dim // 2,)", "(rows or 1, 1, length)", "(..., head_dim)", "(...)"])
def test_a_shape_is_known(words: str) -> None:
    assert SHAPE.search(f"Losses {words}, in nats.")


@pytest.mark.parametrize("words", ["(in nats)", "the shape", "(by hand, as the authors of the paper did)", "(eq. 3)"])
def test_prose_is_no_shape(words: str) -> None:
    assert not SHAPE.search(f"Losses {words}, in nats.")


def test_functions_that_return_arrays_say_their_shape() -> None:
    arrays = ARRAYS | aliases(ARRAYS)
    silent = [
        f"{name}.{function.name}"
        for name, tree in TREES.items()
        for function in public_functions(tree)
        if not function.name.startswith("_")
        and function.returns is not None
        and names(function.returns) & arrays
        and not SHAPE.search(ast.get_docstring(function) or "")
    ]
    assert not silent


@pytest.mark.parametrize("file", sorted((PACKAGE.parent / "benchmarks").glob("*.py")), ids=lambda file: file.stem)
def test_benchmarks_import_what_is_there(file: Path) -> None:
    nodes = [node for node in ast.walk(syntax.tree(file)) if isinstance(node, ast.ImportFrom)]
    for module, node in ((node.module or "", node) for node in nodes):
        for alias in node.names if module.split(".")[0] == "harness" else []:
            found = f"{module}.{alias.name}" in FILES or hasattr(importlib.import_module(module), alias.name)
            assert found, f"{module} has no {alias.name}"
