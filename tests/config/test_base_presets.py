"""The presets that compare with a base, and what `base.*` composes to."""

import pytest

from harness import cli
from harness.config.schema import Config, parse
from tests.config.test_experiments import choices, composed


def cells(preset: str, *given: str) -> list[Config]:
    """Both ends of a preset's grid."""
    swept = choices(preset)
    ends = [[f"{key}={values[place]}" for key, values in swept.items()] for place in (0, -1)]
    return [parse(composed(f"experiment={preset}", *given, *end)) for end in ends]


@pytest.mark.parametrize(
    ("preset", "given", "method"),
    [
        ("static_factor_cost", (), "yarn"),
        ("kv_cache", (), "yarn"),
        ("quantised", ("base.model.path=somewhere", "base.model.name=f16"), "native"),
    ],
)
def test_preset_is_valid_at_both_ends_of_its_grid(preset: str, given: tuple[str, ...], method: str) -> None:
    for cell in cells(preset, *given):
        assert cell.experiment == preset
        assert cell.base is not None
        assert cell.of_base is not None
        assert cell.of_base.base is None
        assert cell.method.name == cell.of_base.method.name == method
        assert cell.data.min_tokens >= cell.ctx
        assert cell.keeps_tokens


def test_the_base_of_a_static_factor_has_the_factor_that_the_length_asks_for() -> None:
    for cell in cells("static_factor_cost"):
        assert cell.method.params["factor"] in (2, 8)
        assert cell.of_base is not None
        assert cell.of_base.method.params["factor"] is None


def test_what_a_base_does_not_name_is_as_in_the_cell() -> None:
    one = parse(composed("method=ntk", "method.kv_cache=int8", "base.dtype=bfloat16"))
    assert one.of_base is not None
    assert (one.of_base.model, one.of_base.method) == (one.model, one.method)
    assert (one.of_base.engine.dtype, one.engine.dtype) == ("bfloat16", "auto")
    other = parse(
        composed("method=ntk", "method.kv_cache=int8", "method@base.method=yarn", "base.method.kv_cache=q8_0")
    )
    assert other.of_base is not None
    assert other.of_base.method.modifiers == {"kv_cache": "q8_0"}
    assert parse(composed()).base is None


def test_groups_of_a_base_are_written_like_those_of_the_cell() -> None:
    given = ["-m", "base.model=smollm2", "base.method=yarn,ntk", "base.method.factor=2", "model.name=base.model=x"]
    expected = ["-m", "model@base.model=smollm2", "method@base.method=yarn,ntk", *given[3:]]
    assert cli.with_base_groups(given) == expected
