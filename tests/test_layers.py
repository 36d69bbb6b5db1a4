"""Imports run downwards only: each row of LAYERS may import the rows below it, never its own or those above.

Inside a floor, neither files nor folders that lie side by side import each other in a circle.
"""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from tests import syntax

PACKAGE = Path(__file__).parents[1] / "harness"
LAYERS = [
    [
        "__main__",
        "collect",
        "compare",
        "export",
        "notebook",
        "plot",
        "report",
        "search",
        "theory",
        "train",
    ],  # what a user types
    ["external"],  # a command that is a folder
    ["cli"],
    ["runs", "longrope_search", "training"],  # what is done
    ["cells", "deployment", "figures"],  # what a cell is; what an engine is given; what is drawn
    ["config", "scaling_laws"],
    ["engine", "statistics"],
    ["results"],  # its rows are made from what lies in data
    ["models", "data"],
    ["methods", "published", "storage"],
    ["console", "errors", "logs", "torchrun"],
]
FLOOR = {room: number for number, row in enumerate(reversed(LAYERS)) for room in row}
FILES = {
    ".".join(("harness", *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): file
    for file in sorted(PACKAGE.rglob("*.py"))
}


def imported(file: Path) -> set[str]:
    """The package's modules that a file imports, late imports included."""
    names = set()
    for node in ast.walk(syntax.tree(file)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "harness":
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in FILES else str(node.module) for name in inner}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names if alias.name in FILES}
    return names


def test_every_room_has_a_floor() -> None:
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms - {"__init__", "conf"} == FLOOR.keys()


def test_imports_run_downwards() -> None:
    wrong = []
    for name, file in FILES.items():
        room = name.split(".")[1] if "." in name else "__init__"
        if room == "__init__":
            continue
        others = {module.split(".")[1] for module in imported(file) if "." in module} - {room}
        wrong += [f"{name} ({room}) imports {other}" for other in sorted(others) if FLOOR[other] >= FLOOR[room]]
    assert not wrong, "\n".join(["These imports run upwards; see LAYERS:", *wrong])


def test_only_models_and_training_know_transformers() -> None:
    """What others need of it models hands them; imports for types alone do not count."""
    others = {name: file for name, file in FILES.items() if not name.startswith(("harness.models", "harness.training"))}
    assert [name for name, file in others.items() if "transformers" in _libraries(syntax.tree(file))] == []


def _libraries(node: ast.AST) -> set[str]:
    """Top-level names that a file imports at run time, late imports included."""
    found = set()
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.Import):
            found |= {alias.name.split(".")[0] for alias in child.names}
        elif isinstance(child, ast.ImportFrom):
            found.add((child.module or "").split(".")[0])
        found |= _libraries(child)
    return found


def test_no_circle_among_files() -> None:
    graph = {name: imported(file) - {name} for name, file in FILES.items()}
    assert _circle(graph) is None


def test_no_circle_among_folders() -> None:
    def folder(name: str) -> str:
        return name if FILES[name].name == "__init__.py" else name.rpartition(".")[0]

    graph: dict[str, set[str]] = {}
    for name, file in FILES.items():
        own = folder(name)
        beside = {other for other in map(folder, imported(file)) if not _one_holds_the_other(own, other)}
        graph.setdefault(own, set()).update(beside)
    assert _circle(graph) is None


def _one_holds_the_other(one: str, other: str) -> bool:
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _circle(graph: dict[str, set[str]]) -> list[str] | None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return None
