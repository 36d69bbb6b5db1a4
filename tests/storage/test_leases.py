"""Leases: one holder at a time; the dead are known at once where that is possible, and by silence elsewhere."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from harness.storage import leases
from harness.storage.files import StorageError
from harness.storage.leases import Leases


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(leases, "BEAT_S", 0.05)
    monkeypatch.setattr(leases, "EXPIRY_S", 0.4)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "model" / "cell.lease"


def foreign(file, **fields):
    """A lease as a process of another machine would leave it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"owner": "other", "machine": "elsewhere", "pid": 1, "started": "1", **fields}))


def test_one_holder_at_a_time(file):
    with Leases() as first, Leases() as second:
        assert first.acquire([file])
        assert not second.acquire([file])
        first.release([file])
        assert not file.exists()
        assert second.acquire([file])
    assert not file.exists()


def test_all_or_none(file):
    other = file.with_name("other.lease")
    with Leases() as first, Leases() as second:
        assert first.acquire([other])
        assert not second.acquire([file, other])
        assert not file.exists()


def test_a_living_holder_keeps_its_lease_beyond_the_expiry(file):
    with Leases() as first, Leases() as second:
        assert first.acquire([file])
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            assert not second.acquire([file])
            time.sleep(0.02)


def test_a_silent_holder_elsewhere_is_dead_after_the_expiry_and_not_before(file):
    foreign(file)
    with Leases() as mine:
        started = time.monotonic()
        while not mine.acquire([file]):
            time.sleep(0.02)
        assert 0.4 < time.monotonic() - started < 3


@pytest.mark.parametrize("skew_s", [-86_400, -3600, 3600, 86_400])
def test_clocks_of_other_machines_do_not_matter(file, skew_s):
    foreign(file)
    stop = threading.Event()

    def beat():  # a living holder whose clock is wrong
        tick = time.time() + skew_s
        while not stop.wait(0.05):
            tick += 0.05
            os.utime(file, (tick, tick))

    holder = threading.Thread(target=beat)
    holder.start()
    with Leases() as mine:
        end = time.monotonic() + 0.9
        while time.monotonic() < end:
            assert not mine.acquire([file])
            time.sleep(0.02)
        stop.set()
        holder.join()
        while not mine.acquire([file]):
            assert time.monotonic() < end + 3
            time.sleep(0.02)


def test_a_killed_holder_on_this_machine_is_known_at_once(file, monkeypatch):
    monkeypatch.setattr(leases, "EXPIRY_S", 3600)
    code = (
        "import sys, pathlib, time; from harness.storage.leases import Leases\n"
        "with Leases() as l: print(l.acquire([pathlib.Path(sys.argv[1])]), flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(file)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline().strip() == "True"
        with Leases() as mine:
            assert not mine.acquire([file])
            holder.kill()
            holder.wait()
            assert mine.acquire([file])


def test_a_job_that_was_queued_again_takes_its_own_lease_back(file, monkeypatch):
    monkeypatch.setattr(leases, "EXPIRY_S", 3600)
    foreign(file, job="17", restarts=0)
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    with Leases() as same_start:  # another task of the same job, on another node
        assert not same_start.acquire([file])
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with Leases() as later_start:
        assert later_start.acquire([file])


def test_of_many_that_find_a_dead_lease_one_takes_it(file):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for _ in range(20):
        foreign(file, machine=leases._machine(), pid=dead.pid, started="1")
        holders = [Leases() for _ in range(6)]
        barrier, won = threading.Barrier(6), []

        def grab(one, barrier=barrier, won=won):
            barrier.wait()
            if one.acquire([file]):
                won.append(one)

        threads = [threading.Thread(target=grab, args=(one,)) for one in holders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        won[0].release([file])
        assert list(file.parent.iterdir()) == []


def test_content_that_is_no_lease_is_judged_by_its_silence(file):
    file.parent.mkdir()
    file.write_bytes(b"\xff\x00 not json")
    with Leases() as mine:
        assert not mine.acquire([file])
        time.sleep(0.5)
        assert mine.acquire([file])


def test_a_lease_that_was_taken_over_is_left_alone(file, caplog):
    with Leases() as frozen:
        assert frozen.acquire([file])
        foreign(file)
        time.sleep(0.3)
        assert "taken over" in caplog.text
        frozen.release([file])
        assert file.exists()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "model").write_text("a file")
    with Leases() as mine, pytest.raises(StorageError):
        mine.acquire([tmp_path / "model" / "cell.lease"])
