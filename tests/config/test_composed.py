"""Cells of a sweep composed together are what Hydra composes of each alone."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from harness.config.checks import plain
from harness.config.composed import Composer
from harness.config.schema import config_of, parse

GROUPS = ("model", "method", "data", "protocol", "engine", "cluster", "experiment")
OTHER = ["7", "0.25", "other", "null", "false", "[1, 2]"]  # values to set


class Counted:
    """Hydra's composition, the one cell by cell, and ours beside it."""

    def __init__(self) -> None:
        self.loader = GlobalHydra.instance().config_loader()
        self.calls = 0

    def __call__(self, overrides: list[str]) -> DictConfig:
        self.calls += 1
        return compose("config", overrides)

    def composer(self) -> Composer:
        return Composer(self, lambda key: bool(self.loader.get_group_options(key)))


@contextmanager
def hydra() -> Iterator[Counted]:
    with initialize_config_module("harness.conf", version_base="1.3"):
        yield Counted()


def options(group: str) -> list[str]:
    with hydra() as made:
        return made.loader.get_group_options(group)


def leaves(values: dict, above: str = "") -> list[str]:
    return [
        key
        for name, value in values.items()
        for key in (leaves(value, f"{above}{name}.") if isinstance(value, dict) else [f"{above}{name}"])
    ]


@pytest.mark.parametrize("group", GROUPS)
def test_every_value_of_every_choice_is_set_as_hydra_sets_it(group: str) -> None:
    with hydra() as made:
        for choice in made.loader.get_group_options(group):
            composer = made.composer()
            chosen = [f"{group}={choice}"]
            alone = composer.values(chosen)
            calls = made.calls
            keys = [key for key in leaves(alone) if key != "model.name"]
            given = [f"{key}={OTHER[i % len(OTHER)]}" for i, key in enumerate(keys)]
            found = composer.values([*chosen, *given])
            assert made.calls == calls  # nothing was composed anew
            expected = plain(compose("config", [*chosen, *given]))
            assert found == expected
            assert [type(v) for v in found.values()] == [type(v) for v in expected.values()]


def test_there_are_choices_in_every_group() -> None:
    assert all(options(group) for group in GROUPS)


@pytest.mark.parametrize(
    "cells",
    [
        ("method=yarn method.factor=2 ctx=64", "method=yarn method.factor=4 ctx=64", "method=linear ctx=64"),
        ("experiment=encodings model.name=fire", "experiment=encodings model.name=nope"),  # its path names it
        ("data=text data.path='a b'", 'data=text data.path="x[1].txt"', "data=text data.path=null"),
        ("ctx=64 ctx=128", "ctx=128 ctx=64"),  # the last one stands
        ("+method.extra=1 method.extra=2", "method.extra=2 +method.extra=1"),
        ("++ctx=64 ctx=128", "ctx=128 ++ctx=64"),
        ("method=yarn ~method.factor", "method=yarn method.factor=2 ~method.factor"),
        ("method=yarn ~method.factor method.factor=2", "method=yarn method.factor=2"),
        ("ctx=${seed} seed=128", "ctx=${seed} seed=64"),
        ("results_dir=${oc.env:HOME}/x ctx=64", "results_dir=${hydra:job.name} ctx=64"),
        ("method={name: linear}", "method=yarn"),
        ("method.query_scale={name: floor, beta: 0.2}", "method.query_scale=log_n", "method.query_scale=null"),
        ("method.factor=2", "ctx.x=3", "bogus=1", "model=nothing", "ctx=???", "method=null"),
        ("hydra.job.name=x ctx=64", "ctx=64 hydra.job.name=x"),
        ("method=longrope method.factors=[1,2]", "data=text,sotu", "ctx="),
    ],
)
def test_whatever_is_less_plain_comes_out_as_of_hydra(cells: tuple[str, ...]) -> None:
    with hydra() as made:
        composer = made.composer()
        for cell in cells:
            overrides = _words(cell)
            assert _outcome(lambda: composer.values(overrides)) == _outcome(  # noqa: B023
                lambda: plain(compose("config", overrides))  # noqa: B023
            )


def test_cells_do_not_share_what_one_of_them_changes() -> None:
    with hydra() as made:
        composer = made.composer()
        first = composer.values(["method=longrope", "ctx=64"])
        first["method"]["name"] = "other"
        assert composer.values(["method=longrope", "ctx=64"])["method"]["name"] == "longrope"


def test_configurations_are_those_of_hydra() -> None:
    cell = ["method=yarn", "method.factor=2", "protocol=single_pass", "ctx=64"]
    with hydra() as made:
        assert config_of(made.composer().values(cell), cell) == parse(compose("config", cell), cell)


def _words(cell: str) -> list[str]:
    """Overrides, which blanks before a key part."""
    found: list[str] = []
    for word in cell.split(" "):
        if "=" in word or word.startswith("~"):
            found.append(word)
        else:
            found[-1] += f" {word}"
    return found


def _outcome(make):
    try:
        return make()
    except Exception as error:
        return type(error), str(error)
