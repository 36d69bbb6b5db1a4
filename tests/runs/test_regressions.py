"""Deliberate regressions against results/baseline, judged as `make compare` judges them; and noise, which is none."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_module
from numpy.typing import NDArray
from torch import Tensor

from harness.cells.prepare import prepare
from harness.config.schema import parse
from harness.data import documents
from harness.engine import nll
from harness.methods.base import RopeGeometry
from harness.methods.frequency import ntk, yarn
from harness.results import store
from harness.runs import runner
from harness.statistics.before_after import Comparison, compare

ROOT = Path(__file__).parents[2]
BASELINE = ROOT / "results" / "baseline"
SHORT, LONG = "ctx=256", "ctx=1024"


def tolerance() -> float:
    """What `make compare` lets pass."""
    (found,) = re.findall(r"--tolerance (\S+)", (ROOT / "Makefile").read_text())
    return float(found)


@pytest.fixture(scope="module", autouse=True)
def tokenized_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def rerun(folder: Path, *overrides: str) -> Comparison:
    """One cell of the baseline's sweep computed again, and compared with the baseline."""
    given = ["experiment=baseline", f"results_dir={folder}", f"plots_dir={folder}", *overrides]
    with initialize_config_module("harness.conf", version_base="1.3"):
        parsed = parse(compose("config", given), given)
    (outcome,) = runner.run(prepare([parsed], "run", sweep=True), raise_mistakes=True)
    assert outcome.status == "computed", outcome.message
    result = compare(store.load_results(BASELINE), store.load_results(folder), tolerance())
    assert len(result.cells) == 1
    assert result.missing["baseline"] == result.refused == []
    return result


def line(result: Comparison) -> pd.Series:
    return result.cells.iloc[0]


def test_baseline_is_the_sweep_of_its_preset_and_names_no_place() -> None:
    rows = store.load_results(BASELINE)
    with initialize_config_module("harness.conf", version_base="1.3"):
        params = compose("config", ["experiment=baseline"], return_hydra_config=True).hydra.sweeper.params
    methods, lengths = params["method"].split(","), [int(ctx) for ctx in params["ctx"].split(",")]
    cells = rows.drop_duplicates("cell_id")
    assert sorted(zip(cells["method"], cells["ctx"], strict=True)) == sorted((m, c) for m in methods for c in lengths)
    assert set(rows.groupby("cell_id")["document"].nunique()) == {6}
    for file in BASELINE.rglob("*.parquet"):
        assert not re.search(r'"[^"]*(?<![\w.])/\w', str(store.provenance(file)).replace("'", '"'))


def ntk_with_a_wrong_exponent(geometry: RopeGeometry, factor: float) -> NDArray[np.float64]:
    """rope_theta factor in place of rope_theta factor^(d / (d - 2))."""
    pair = np.arange(geometry.rotary_dim // 2)
    return geometry.inv_freq * factor ** (-2 * pair / geometry.rotary_dim)


def yarn_upside_down(method: yarn.Yarn, geometry: RopeGeometry) -> NDArray[np.float64]:
    """Fast frequencies interpolated, slow ones kept."""
    return yarn.dimension_ramp(geometry, method.beta_fast, method.beta_slow)[::-1]


@pytest.mark.parametrize(
    ("method", "place", "name", "wrong"),
    [
        ("ntk", ntk, "ntk_aware", ntk_with_a_wrong_exponent),
        pytest.param("yarn", yarn.Yarn, "_interpolated_share", yarn_upside_down, marks=pytest.mark.slow),
    ],
)
def test_a_wrong_frequency_formula_is_caught(
    method: str, place: object, name: str, wrong: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, name, wrong)
    found = rerun(tmp_path, f"method={method}", LONG)
    assert line(found)["verdict"] == "worse"
    assert found.exit_code == 1


LONGEST_PROBE = 64  # tokens, of a model without windows


def test_a_shifted_label_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens judged by the prediction of their successor, in windows alone: what the short probe at load cannot see."""
    right = nll._loss

    def shifted(logits: Tensor, targets: Tensor) -> Tensor:
        return right(logits, targets.roll(1, dims=1) if targets.shape[1] > LONGEST_PROBE else targets)

    monkeypatch.setattr(nll, "_loss", shifted)
    found = rerun(tmp_path, "method=none", SHORT)
    assert line(found)["verdict"] == "worse"
    assert line(found)["ratio"] > 2
    assert found.exit_code == 1


def test_a_truncated_document_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One document that lost its last five tokens behind the back of the fingerprint."""
    load = documents.load_with

    def truncating(*arguments: Any) -> documents.DocumentSet:
        whole = load(*arguments)
        third = whole.documents[2]
        whole.documents[2] = third._replace(ids=third.ids[:-5], byte_ends=third.byte_ends[:-5])
        return whole

    monkeypatch.setattr(documents, "load_with", truncating)
    found = rerun(tmp_path, "method=none", SHORT)
    assert line(found)["verdict"] == "different"
    assert "1 documents have other scored tokens" in line(found)["note"]
    assert "1275 before and 1270 after" in line(found)["note"]
    assert found.exit_code == 1


@pytest.mark.slow
def test_batch_sizes_and_threads_are_no_alarm(tmp_path: Path) -> None:
    """Twenty reruns, of a short and of a long cell in turn."""
    cells = [("method=linear", SHORT), ("method=yarn", LONG)]
    threads = torch.get_num_threads()
    ratios = []
    try:
        for number, batch in enumerate([256, 512, 1024, 1280, 2048, 2560, 3072, 4096, 6144, 16384] * 2):
            torch.set_num_threads(1 + (number // 2 + number // 10) % 4)
            chosen = cells[(number + number // 10) % 2]
            found = rerun(tmp_path / str(number), *chosen, f"engine.tokens_per_batch={batch}")
            assert found.exit_code == 0, line(found)
            ratios.append(line(found)["ratio"])
    finally:
        torch.set_num_threads(threads)
    assert len(ratios) == 20
    assert max(abs(ratio - 1) for ratio in ratios) < tolerance() / 10
