"""The theory of extrapolation against the numbers of arXiv:2310.05209 and against counting turns."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harness import theory
from harness.errors import UserError
from harness.figures import files, spectrum
from harness.methods import METHODS, RopeGeometry, build
from harness.scaling_laws import bounds
from tests.reference.frequencies import wavelengths as reference_wavelengths

LLAMA2 = RopeGeometry(rotary_dim=128, rope_theta=1e4, original_max_position_embeddings=4096)
LLAMA3 = RopeGeometry(rotary_dim=128, rope_theta=5e5, original_max_position_embeddings=8192)
SMALL = RopeGeometry(rotary_dim=64, rope_theta=1e4, original_max_position_embeddings=512)
SMALL_1K = RopeGeometry(rotary_dim=64, rope_theta=1e4, original_max_position_embeddings=1024)
TINY_BASE = RopeGeometry(rotary_dim=128, rope_theta=500.0, original_max_position_embeddings=4096)


def scaled(name: str, geometry: RopeGeometry, ctx: int, **given: float) -> np.ndarray:
    inv_freq: np.ndarray = build(name, given, geometry, ctx)(geometry, ctx).inv_freq
    return inv_freq


@pytest.mark.parametrize(("geometry", "d_extra"), [(LLAMA2, 92), (LLAMA3, 70), (SMALL, 32), (SMALL_1K, 36)], ids=str)
def test_critical_dimension_is_the_papers(geometry: RopeGeometry, d_extra: int) -> None:
    trained = geometry.original_max_position_embeddings
    assert bounds.critical_dimension(geometry.inv_freq, trained) == d_extra
    turns = math.log(trained / (2 * math.pi), geometry.rope_theta)
    assert d_extra == 2 * math.ceil(geometry.rotary_dim / 2 * turns)


@pytest.mark.parametrize(
    ("geometry", "base", "tokens"),
    [
        (LLAMA2, 2e4, 7754),
        (LLAMA2, 4e4, 12762),
        (LLAMA2, 5e5, 78400),
        (LLAMA2, 1e6, 129027),
        (SMALL, 1e5, 1987),
        (SMALL, 5e5, 4443),
        (SMALL, 1e6, 6283),
        (SMALL_1K, 1e5, 4080),
        (SMALL_1K, 5e5, 10089),
        (SMALL_1K, 1e6, 14900),
    ],
)
def test_extrapolation_bound_of_another_base(geometry: RopeGeometry, base: float, tokens: int) -> None:
    trained = geometry.original_max_position_embeddings
    assert round(bounds.extrapolation_bound(geometry, scaled("abf", geometry, trained, rope_theta=base))) == tokens
    assert round(bounds.tuned_bound(geometry, base, trained)) == tokens


def test_tuned_bound_is_the_tuning_length_up_to_the_critical_base() -> None:
    assert bounds.tuned_bound(LLAMA2, 71_700, 16384) == 16384
    assert bounds.tuned_bound(LLAMA2, 71_800, 16384) == pytest.approx(2 * math.pi * 71_800 ** (92 / 128))
    # with a base below the critical one the channels that training did not see turn within tuning
    inside = bounds.critical_dimension(scaled("abf", LLAMA2, 16384, rope_theta=60_000), 16384)
    assert inside == 2 * math.ceil(64 * math.log(16384 / (2 * math.pi), 60_000)) > 90


@pytest.mark.parametrize(
    ("geometry", "tuned", "base"),
    [
        (LLAMA2, 4096, 10_000),
        (LLAMA2, 8192, 26_784),
        (LLAMA2, 16384, 71_738),
        (LLAMA2, 32768, 192_144),
        (SMALL, 1024, 42_665),
        (SMALL, 2048, 182_029),
        (SMALL, 4096, 776_621),
        (SMALL, 8192, 3_313_438),
        (SMALL_1K, 2048, 35_021),
        (SMALL_1K, 16384, 1_504_229),
    ],
)
def test_critical_base(geometry: RopeGeometry, tuned: int, base: int) -> None:
    assert bounds.critical_base(geometry, tuned) == pytest.approx(base, abs=1)


def test_small_bases() -> None:
    assert [round(base) for base in bounds.small_bases(4096)] == [2608, 1304, 652]
    assert [round(base, 1) for base in bounds.small_bases(512)] == [325.9, 163.0, 81.5]
    assert [round(base, 1) for base in bounds.small_bases(1024)] == [651.9, 325.9, 163.0]
    # what they mean: below the last the limit of wavelengths, 2 pi base, is within the window
    assert 2 * math.pi * bounds.small_bases(4096).whole == pytest.approx(4096)


@pytest.mark.parametrize(
    ("name", "extrapolation", "trained_range"),
    [("none", 4712, 4096), ("ntk", 21507, 18696), ("yarn", 37694, 32768), ("linear", 37694, 32768)],
)
def test_bounds_of_llama2_at_eight_times(name: str, extrapolation: int, trained_range: int) -> None:
    inv_freq = scaled(name, LLAMA2, 32768)
    assert round(bounds.extrapolation_bound(LLAMA2, inv_freq)) == extrapolation
    assert round(bounds.trained_range_bound(LLAMA2, inv_freq)) == trained_range


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.kind == "frequency"])
def test_trained_range_bound_by_turning_every_channel(name: str) -> None:
    params = {"long_factor": np.geomspace(1, 20, 64).tolist()} if name == "longrope" else {}
    inv_freq = build(name, params, LLAMA2, 32768)(LLAMA2, 32768).inv_freq
    unseen = np.array(reference_wavelengths(128, 1e4)) >= 4096
    largest = 4096 * LLAMA2.inv_freq[unseen]  # angles at the end of a trained window
    bound = bounds.trained_range_bound(LLAMA2, inv_freq)
    assert np.all(inv_freq[unseen] * bound <= largest * (1 + 1e-12))
    assert np.any(inv_freq[unseen] * bound * 1.0001 > largest)


def test_no_bound_where_training_saw_every_channel_turn() -> None:
    assert bounds.critical_dimension(TINY_BASE.inv_freq, 4096) == 128
    assert bounds.extrapolation_bound(TINY_BASE, TINY_BASE.inv_freq) == math.inf
    assert bounds.trained_range_bound(TINY_BASE, TINY_BASE.inv_freq) == math.inf


def test_wavelengths() -> None:
    np.testing.assert_allclose(bounds.wavelengths(LLAMA2.inv_freq), reference_wavelengths(128, 1e4), rtol=1e-12)
    assert bounds.wavelengths(np.array([1.0, 0.0])).tolist() == [2 * math.pi, math.inf]


def test_table_of_methods_has_every_method_once() -> None:
    table = bounds.methods_table()
    assert table["method"].tolist() == list(METHODS)
    assert table.set_index("method")["depends_on_length"]["dynamic_ntk"] == "yes"
    assert table.set_index("method")["depends_on_length"]["longrope"] == "by its options"


def test_table_of_bounds_has_numbers_or_says_why_not() -> None:
    table = bounds.table(LLAMA2, 32768).set_index("method")
    assert list(table.index) == [name for name, method in METHODS.items() if method.kind != "encoding"]
    assert set(table["critical_dimension"]) == {92}
    silent = table["trained_range_bound"].isna() & (table["note"] == "")
    assert not silent.any()
    assert "factors" in table["note"]["longrope"]
    given = bounds.table(LLAMA2, 32768, ["longrope"], {"longrope": {"factors": "ft_la2_128k"}}).iloc[0]
    assert given["trained_range_bound"] == pytest.approx(131072)
    assert given["note"] == ""


def test_given_parameters_are_not_forgiven() -> None:
    with pytest.raises(UserError, match="factor must be >= 1"):
        bounds.table(LLAMA2, 32768, ["yarn"], {"yarn": {"factor": 0.5}})
    with pytest.raises(UserError, match="Did you mean 'yarn'"):
        bounds.table(LLAMA2, 32768, ["yarm"])


def test_spectrum_joins_equal_methods_and_is_drawn(tmp_path: Path) -> None:
    table = bounds.spectrum(LLAMA2, 32768, ["none", "ntk", "dynamic_ntk", "yarn"])
    assert table["method"].unique().tolist() == ["none", "ntk, dynamic_ntk", "yarn"]
    ntk = table[table["method"] == "ntk, dynamic_ntk"]
    assert ntk["dimension"].tolist() == list(range(0, 128, 2))
    assert ntk["stretch"].iloc[[0, -1]].tolist() == pytest.approx([1, 8])
    figure = spectrum.draw(table, LLAMA2, 32768)
    lines = figure.axes[0].get_lines()
    assert {line.get_label() for line in lines} >= {"none", "ntk, dynamic_ntk", "yarn"}
    heights = [line.get_ydata()[0] for line in lines if len(set(line.get_ydata())) == 1]
    assert sorted(heights) == [4096, 32768]
    drawn = files.save(figure, tmp_path / "spectrum")
    assert [path.suffix for path in drawn] == [".svg", ".png"]


def test_report_names_the_numbers() -> None:
    everything = theory.report(LLAMA2, 16384, list(bounds.OF_ROTARY_MODELS), {})
    assert max(map(len, everything.splitlines())) <= theory.WIDTH
    for heading in ("critical", "tuned", "extrapolates", "in range", "base bound"):
        assert everything.count(f"\n{heading}  ") == 1  # it is explained below the table
    words = theory.report(LLAMA2, 16384, ["none", "yarn", "native"], {})
    for number in ("92", "71738", "4712", "4096", "16384", "18847", "501187"):
        assert number in words


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "harness.theory", *arguments], capture_output=True, text=True)


def test_command_prints_the_table_of_methods() -> None:
    done = command()
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in METHODS)
    assert "arXiv:2309.00071" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= theory.WIDTH


@pytest.mark.parametrize("name", ["alibi", "native", "dca"])
def test_methods_without_frequencies_of_their_own_leave_nothing_to_draw(name: str) -> None:
    assert bounds.spectrum(LLAMA2, 32768, [name]).empty
    done = command("model=reference", "ctx=1024", f"methods=[{name}]")
    assert (done.returncode, done.stderr) == (0, "")
    assert name in done.stdout


def test_command_reports_mistakes_in_one_line() -> None:
    done = command("ctx=4096")
    assert done.returncode == 2
    assert "give both model=... and ctx=..." in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
