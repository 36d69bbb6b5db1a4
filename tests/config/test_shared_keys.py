"""Fixed keys beside a group that a sweep chooses from."""

import re
import sys

import pytest
from hydra import compose, initialize_config_module

from harness import cli
from harness.config import shared_keys
from harness.errors import UserError


def applied(*cells: str) -> tuple[list[str], list[str]]:
    with initialize_config_module("harness.conf", version_base="1.3"):
        kept, lines = shared_keys.applied([cell.split() for cell in cells], lambda o: compose("config", o))
    return [" ".join(cell) for cell in kept], lines


def test_a_key_applies_to_every_choice_that_has_it() -> None:
    cells = ["method=yarn method.factor=4", "method=linear method.factor=4"]
    assert applied(*cells) == (cells, [])


@pytest.mark.parametrize(
    ("group", "without", "with_it", "override"),
    [
        ("method", "none", "yarn", "method.factor=4"),
        ("method", "linear", "yarn", "method.beta_fast=16"),
        ("protocol", "single_pass", "sliding", "protocol.stride=512"),
        ("protocol", "sliding", "fixed_targets", "protocol.num_targets=8"),
        ("model", "reference", "hf", "model.path=/models/a"),
        ("model", "llama2_7b", "hf", "model.package=own_weights"),
        ("data", "sotu", "text", "data.path=/texts/a.txt"),
        ("data", "text", "needles", "data.needles.repeats=2"),
    ],
)
def test_a_choice_without_the_key_runs_without_it_and_one_line_says_so(group, without, with_it, override) -> None:
    kept, (line,) = applied(f"{group}={without} {override}", f"{group}={with_it} {override}")
    assert kept == [f"{group}={without}", f"{group}={with_it} {override}"]
    key = override.partition("=")[0]
    assert line == f"{group}={without} runs without {key}, which it does not have"


def test_a_swept_key_makes_no_cell_twice() -> None:
    kept, _ = applied(*[f"method={m} method.factor={f} ctx=8" for m in ("none", "yarn") for f in (2, 4)])
    assert kept == [
        "method=none ctx=8",
        "method=yarn method.factor=2 ctx=8",
        "method=yarn method.factor=4 ctx=8",
    ]


def test_a_key_that_no_choice_has_is_an_error_with_the_nearest_of_any() -> None:
    with pytest.raises(UserError, match=r"Unknown key 'method.factr'. Did you mean 'method.factor'\?"):
        applied("method=none method.factr=4", "method=yarn method.factr=4")


@pytest.mark.parametrize(
    ("typed", "shortened"),
    [
        ("-m method=yarn,linear method.factor=4 ctx=8", "-m method=yarn,linear ctx=8"),
        ("ctx=8 --multirun data.path='x[1].txt' model.revision=null", "ctx=8 --multirun"),
        ("-m data.num_documents=2,3 engine.dtype=float32 +method.factor=4", "-m engine.dtype=float32 +method.factor=4"),
        ("method=yarn method.factor=4", "method=yarn method.factor=4"),
    ],
)
def test_keys_of_groups_wait_in_a_sweep_alone(typed: str, shortened: str, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["harness", *typed.split()])
    shared_keys.hold()
    assert sys.argv == ["harness", *shortened.split()]
    overrides = [argument for argument in typed.split() if not argument.startswith("-")]
    assert shared_keys.release([argument for argument in sys.argv[1:] if "=" in argument]) == overrides
    assert sys.argv == ["harness", *typed.split()]


@pytest.mark.parametrize(
    ("choices", "cells", "line"),
    [
        ("method=yarn,linear method.factor=4", 2, None),
        ("method=none,yarn method.factor=2,4", 3, "method=none runs without method.factor, which it does not have"),
        ("method=none,yarn,native method.beta_fast=16", 3, "method=none, method=native run without method.beta_fast"),
        ("protocol=single_pass,sliding protocol.stride=32", 2, "protocol=single_pass runs without protocol.stride"),
        ("protocol=single_pass,disjoint,sliding protocol.stride=32", 3, "protocol=single_pass, protocol=disjoint run"),
        ("model=reference,hf model.path={model}", 2, "model=reference runs without model.path, which it does not"),
        ("data=text,sotu data.path={texts}", 2, "data=sotu runs without data.path, which it does not have"),
        ("data=text,sotu data.path={texts} data.num_documents=2", 2, "data=sotu runs without data.path"),
        ("method=none,yarn method.query_scale={name:power,exponent:1} method.query_scale.exponent=0.2", 2, None),
    ],
)
def test_a_sweep_on_the_command_line_shares_its_keys(place, monkeypatch, capsys, caplog, choices, cells, line) -> None:
    swept = choices.partition("=")[0]
    fixed = [o for o in place.overrides if not re.match(rf"{swept}[.=]", o)]
    choices = choices.format(model=place.model, texts=place.texts) if "{name" not in choices else choices
    typed = ["harness", "-m", *fixed, *choices.split(), "ctx=64", "dry_run=true"]
    monkeypatch.setattr(sys, "argv", list(typed))
    cli.main()
    assert capsys.readouterr().out.count(" to do ") == cells
    assert line is None or line in caplog.text
    assert caplog.text.count("without") == (line is not None)
    assert sys.argv == typed  # which results record


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ("model=reference model.path=/nope", "give model.path (directory or hub id) or model.package, got both"),
        ("model=reference,smollm2 model.path=/nope", "got both"),
        ("data=sotu data.path=/nope", "Unknown key 'data.path'"),
        ("data=needles,passkey protocol=targets data.path=/nope", "reads no data.path"),
        ("data=sotu,text data.pth=/nope", "Unknown key 'data.pth'. Did you mean 'data.path'?"),
        ("model=reference,hf model.pth=/nope", "Unknown key 'model.pth'. Did you mean 'model.path'?"),
    ],
)
def test_what_no_choice_takes_is_an_error_of_one_line(choices, words, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["harness", "-m", *choices.split(), "ctx=64", "dry_run=true"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
