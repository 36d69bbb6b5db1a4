"""The presets of papers: they compose, every cell of their grid is valid, and they ask for what the papers did."""

from importlib.resources import files

import pytest
from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from harness import published
from harness.config.schema import Config, parse
from harness.published import overlay

PAPERS = {
    "pi_table1": ("pi", "Table 1", "linear"),
    "yarn_figure1": ("yarn", "data/proofpile-long-small.csv", "yarn"),
    "longrope_table5": ("longrope", "Table 5", "longrope"),
    "scaling_laws_bases": ("scaling_rope", None, "abf"),
}
PRESETS = [f"{name}{size}" for name in PAPERS for size in ("", "_small")]


def composed(*overrides: str) -> DictConfig:
    with initialize_config_module("harness.conf", version_base="1.3"):
        return compose("config", list(overrides), return_hydra_config=True)


def choices(preset: str) -> dict[str, list[str]]:
    """The values that a preset sweeps, as the sweeper reads them."""
    parser = OverridesParser.create()
    params = composed(f"experiment={preset}").hydra.sweeper.params
    parsed = parser.parse_overrides([f"{key}={value}" for key, value in params.items()])
    return {one.key_or_group: list(one.sweep_string_iterator()) for one in parsed}


def cells(preset: str) -> list[Config]:
    path = [] if preset.endswith("_small") else ["model.path=weights"]
    grid: list[list[str]] = [[]]
    for key, values in choices(preset).items():
        grid = [[*cell, f"{key}={value}"] for cell in grid for value in values]
    picked = grid if len(grid) <= 4 else [grid[0], grid[1], grid[-1]]
    return [parse(composed(f"experiment={preset}", *path, *cell)) for cell in picked]


def test_every_preset_of_a_paper_has_a_small_one() -> None:
    names = {file.name for file in files("harness.conf").joinpath("experiment").iterdir()}
    assert names >= {f"{preset}.yaml" for preset in PRESETS}


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_is_valid_at_both_ends_of_its_grid(preset: str) -> None:
    parsed = cells(preset)
    assert {cell.experiment for cell in parsed} == {preset}
    assert {cell.method.name for cell in parsed} == {PAPERS[preset.removesuffix("_small")][2]}
    longest = max(cell.ctx for cell in parsed)
    assert all(cell.data.min_tokens >= longest for cell in parsed)
    if preset.endswith("_small"):
        assert {cell.model.name for cell in parsed} == {"reference"}
        assert longest <= 8192


@pytest.mark.parametrize("preset", ["pi_table1", "yarn_figure1", "longrope_table5"])
def test_preset_has_the_lengths_and_protocol_of_its_paper(preset: str) -> None:
    paper, table, _ = PAPERS[preset]
    rows = published.select(paper, table)
    lengths = {int(length) for length in choices(preset)["ctx"]}
    printed = {int(length) for length in rows["ctx"]}
    assert lengths == (printed - {262144} if preset == "longrope_table5" else printed)
    cell = cells(preset)[0]
    measure = overlay.MEASURES[rows["protocol_class"].iloc[0]]
    assert cell.protocol.name == measure.protocol
    for name, value in measure.params.items():
        assert getattr(cell.protocol, name) == value
    assert cell.data.name == rows["dataset"].iloc[0]
    assert cell.protocol.max_windows is None
