"""Device and precision of a cell, known where it is prepared, which need not be where it is computed."""

import pytest

from harness.cells.device import Placement, placement
from harness.config.cluster import ClusterSpec
from harness.engine.spec import EngineSpec

GPU, CPU = Placement("cuda", "bfloat16"), Placement("cpu", "float32")


@pytest.mark.parametrize(
    ("engine", "cluster", "expected"),
    [
        ({}, {"name": "slurm"}, GPU),
        ({}, {"name": "slurm", "gpus": 0}, CPU),
        ({}, {"name": "gpus"}, GPU),
        ({"device": "cpu"}, {"name": "slurm"}, CPU),
        ({"device": "cuda:1"}, {}, Placement("cuda:1", "bfloat16")),
        ({"dtype": "float16"}, {"name": "gpus"}, Placement("cuda", "float16")),
        ({"device": "cpu", "dtype": "bfloat16"}, {}, Placement("cpu", "bfloat16")),
    ],
)
def test_placement_is_that_of_the_machine_that_will_compute(engine, cluster, expected):
    assert placement(EngineSpec(**engine), ClusterSpec(**cluster)) == expected


@pytest.mark.parametrize(("is_there", "expected"), [(True, GPU), (False, CPU)])
def test_placement_here_is_what_is_found_here(monkeypatch, is_there, expected):
    monkeypatch.setattr("torch.cuda.is_available", lambda: is_there)
    monkeypatch.setattr("glob.glob", lambda place: ["/dev/nvidia0"] if place == "/dev/nvidia*" else [])
    assert placement(EngineSpec()) == expected


def test_where_no_driver_shows_itself_torch_is_not_asked(monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("glob.glob", lambda place: [])
    monkeypatch.setattr("torch.cuda.is_available", lambda: 1 / 0)
    assert placement(EngineSpec()) == CPU
