"""Checkpoints of documents: bit for bit as saved, and never taken for what they are not."""

import numpy as np
import pytest

from harness.data.scores import Scores
from harness.data.windows import Window
from harness.runs import checkpoints

PLAN = [[Window(0, 5, 1), Window(2, 7, 5)], [Window(0, 4, 1)]]


def scores(document):
    draw = np.random.default_rng(document)
    return Scores(document, PLAN[document], [draw.random(w.num_scored, np.float32) for w in PLAN[document]])


def test_losses_come_back_bit_for_bit(tmp_path):
    folder = tmp_path / "cell.checkpoint"
    checkpoints.save(folder, scores(1))
    checkpoints.save(folder, scores(0))
    for loaded, saved in zip(checkpoints.load(folder, PLAN), (scores(0), scores(1)), strict=True):
        assert loaded.document == saved.document
        assert loaded.windows == saved.windows
        for one, other in zip(loaded.nll, saved.nll, strict=True):
            assert one.dtype == np.float32
            assert one.tobytes() == other.tobytes()
    checkpoints.discard(folder)
    assert not folder.exists()
    assert checkpoints.load(folder, PLAN) == []


def truncated(file):
    file.write_bytes(file.read_bytes()[:-30])


def one_byte_wrong(file):
    content = bytearray(file.read_bytes())
    content[content.index(b"losses.npy") + 140] ^= 1  # inside the losses
    file.write_bytes(content)


def of_other_windows(file):
    np.savez(file, counts=np.array([3, 3]), losses=np.zeros(6, np.float32))


def in_float64(file):
    np.savez(file, counts=np.array([4, 2]), losses=np.zeros(6))


def with_too_few_losses(file):
    np.savez(file, counts=np.array([4, 2]), losses=np.zeros(5, np.float32))


def foreign(file):
    file.write_text("hello")


@pytest.mark.parametrize(
    "damage", [truncated, one_byte_wrong, of_other_windows, in_float64, with_too_few_losses, foreign]
)
def test_what_is_no_checkpoint_is_named_and_its_document_computed_again(tmp_path, caplog, damage):
    for document in (0, 1):
        checkpoints.save(tmp_path, scores(document))
    damage(tmp_path / "0.npz")
    assert [s.document for s in checkpoints.load(tmp_path, PLAN)] == [1]
    assert str(tmp_path / "0.npz") in caplog.text
    assert not (tmp_path / "0.npz").exists()
