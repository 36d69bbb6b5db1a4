"""Evaluations shared by processes: none is paid twice."""

import multiprocessing
import os
import time
from pathlib import Path

from harness.longrope_search.evaluations import Evaluations
from harness.storage.leases import Leases


def _count(folder: Path, keys: list[str], log: Path) -> None:
    def compute(batch: list[str]) -> list[dict[str, float]]:
        with log.open("a") as stream:
            stream.write("".join(f"{key} {len(batch)} {os.getpid()}\n" for key in batch))
        time.sleep(0.01)
        return [{"nll": len(key) + 0.1} for key in batch]

    with Leases() as leases:
        batches = [{key: key for key in keys[begin : begin + 7]} for begin in range(0, len(keys), 7)]
        found = Evaluations(folder, leases).get(batches, compute)
        assert set(found) == set(keys)
        assert all(found[key] == {"nll": len(key) + 0.1} for key in keys)


def test_processes_share_evaluations_and_none_is_paid_twice(tmp_path: Path) -> None:
    keys, log = [f"genome{i}" for i in range(60)], tmp_path / "log"
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_count, args=(tmp_path / "evaluations", keys, log)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    done = [line.split() for line in log.read_text().splitlines()]
    assert sorted(key for key, _, _ in done) == sorted(keys)
    assert [int(size) for _, size, _ in done].count(7) == 56  # of 60, the last batch holds four
    assert len({pid for _, _, pid in done}) > 1
    assert not list((tmp_path / "evaluations").glob("*.lease"))


def test_a_damaged_evaluation_is_computed_again(tmp_path: Path) -> None:
    def get() -> dict[str, dict[str, float]]:
        with Leases() as leases:
            return Evaluations(tmp_path, leases).get([{"a": 2.5}], lambda items: [{"nll": item} for item in items])

    assert get() == {"a": {"nll": 2.5}}
    (file,) = tmp_path.glob("*.json")
    whole = file.read_text()
    file.write_text(whole[:9])
    assert get() == {"a": {"nll": 2.5}}
    assert file.read_text() == whole


def test_a_batch_is_known_by_all_its_members(tmp_path: Path) -> None:
    computed: list[list[float]] = []

    def compute(items: list[float]) -> list[dict[str, float]]:
        computed.append(items)
        return [{"nll": item} for item in items]

    with Leases() as leases:
        evaluations = Evaluations(tmp_path, leases)
        for batch in ({"a": 1.0, "b": 2.0}, {"a": 1.0}, {"a": 1.0, "b": 2.0}):
            assert evaluations.get([batch], compute) == {key: {"nll": value} for key, value in batch.items()}
    assert computed == [[1.0, 2.0], [1.0]]
