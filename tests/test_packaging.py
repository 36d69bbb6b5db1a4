"""What an installation brings along: every package and every file that the code reads beside itself."""

import ast
import re
import tomllib
from pathlib import Path

from tests import syntax

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PYPROJECT["tool"]["setuptools"]
IMPORTED_AS = {"hydra-core": "hydra"}


def _installed_files() -> list[Path]:
    """Files, relative to the checkout, that belong into a wheel."""
    files = (file for top in ("harness", "hydra_plugins", "conf") for file in (ROOT / top).rglob("*"))
    return [file.relative_to(ROOT) for file in files if file.is_file() and "__pycache__" not in file.parts]


def _package(folder: Path) -> str:
    mapped = {source: name for name, source in SETUPTOOLS["package-dir"].items()}
    return ".".join([mapped.get(folder.parts[0], folder.parts[0]), *folder.parts[1:]])


def test_every_folder_with_files_is_a_listed_package() -> None:
    assert sorted({_package(file.parent) for file in _installed_files()} | {"hydra_plugins"}) == sorted(
        SETUPTOOLS["packages"]
    )


def test_every_kind_of_file_is_listed_as_package_data() -> None:
    suffixes = {f"*{file.suffix}" for file in _installed_files() if file.suffix != ".py"}
    assert suffixes <= set(SETUPTOOLS["package-data"]["*"])


def test_what_nothing_imports_at_run_time_is_no_dependency() -> None:
    trees = [syntax.tree(ROOT / file) for file in _installed_files() if file.suffix == ".py"]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    modules = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    modules += [name.name for node in nodes if isinstance(node, ast.Import) for name in node.names]
    wanted = [re.split(r"[<>=]", dependency)[0] for dependency in PYPROJECT["project"]["dependencies"]]
    assert {IMPORTED_AS.get(name, name) for name in wanted} <= {module.split(".")[0] for module in modules}
