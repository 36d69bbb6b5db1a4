"""What an installation brings along: every package and every file that the code reads beside itself."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


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
