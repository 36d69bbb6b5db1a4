"""What identifies a cell: that of a cell that was computed long ago is what it was."""

from pathlib import Path

from hydra import compose, initialize_config_module

from harness.cells.prepare import prepare
from harness.config.schema import parse
from harness.results import store

BASELINE = Path(__file__).parents[2] / "results" / "baseline"


def test_cells_of_the_committed_baseline_are_recognised_as_finished():
    rows = store.load_results(BASELINE).drop_duplicates("cell_id")
    configs = []
    with initialize_config_module("harness.conf", version_base="1.3"):
        for method, ctx in zip(rows["method"], rows["ctx"], strict=True):
            overrides = ["experiment=baseline", f"method={method}", f"ctx={ctx}", f"results_dir={BASELINE}"]
            configs.append(parse(compose("config", overrides), overrides))
    prepared = prepare(configs, "run", sweep=True)
    assert [p.cell.cell_id for p in prepared] == rows["cell_id"].tolist()
    assert all(p.files.is_finished() for p in prepared)
