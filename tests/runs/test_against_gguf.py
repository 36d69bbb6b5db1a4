"""KL to a base where weights come from GGUF files: in four bits against float32, against the definition."""

import copy
import json
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from harness.results import store
from harness.runs import runner
from tests import tiny_gguf
from tests.reference import divergence as reference
from tests.sweeps import Place
from tests.tiny import tiny_llama

pytest.importorskip("gguf")
LENGTH = 48
QUANTISED = "model.path={ggufs} model.gguf_file=q4_0.gguf model.name=q4_0"
FLOAT = ("base.model.gguf_file=f32.gguf", "base.model.name=f32")


class Files(Place):
    """One model as float32 GGUF, as Q4_0 and as a checkpoint of its own folder, with one tokenizer."""

    def __init__(self, folder):
        super().__init__(folder, documents=3, tokens=40)
        self.whole = tiny_llama(bos_token_id=1)
        self.quantised = copy.deepcopy(self.whole)
        self.ggufs = folder / "ggufs"
        self.ggufs.mkdir()
        tiny_gguf.save_gguf(self.ggufs / "f32.gguf", self.whole)
        tiny_gguf.save_gguf(self.ggufs / "q4_0.gguf", self.quantised, quantised=True)
        tokenizer = AutoTokenizer.from_pretrained(self.ggufs, gguf_file="f32.gguf")
        shutil.rmtree(self.model)
        self.whole.save_pretrained(self.model)
        tokenizer.save_pretrained(self.model)

    def cells(self, cell, *base):
        """A cell beside a base of the GGUF files' folder."""
        here = ("model@base.model=hf", f"base.model.path={self.ggufs}", f"ctx={LENGTH}", "method=none")
        return self.prepared(cell.format(ggufs=self.ggufs), common=(*here, *base))

    def tokens(self, cell, *base):
        """The rows of a cell's tokens, computed now."""
        shutil.rmtree(self.results, ignore_errors=True)
        (prepared,) = self.cells(cell, *base)
        (outcome,) = runner.run([prepared])
        assert outcome.status == "computed", outcome.message
        return store.load_results(self.results, "tokens").sort_values(["document_index", "token"])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("gguf")
        patch.setenv("HARNESS_CACHE", str(folder / "cache"))
        yield Files(folder)


@pytest.mark.parametrize("at_once", ["true", "false"])
def test_four_bits_against_float32_are_the_definition_on_the_numbers_of_the_blocks(files, at_once):
    tokens = files.tokens(f"{QUANTISED} base.at_once={at_once}", *FLOAT)
    models = files.quantised.double(), files.whole.double()
    tokenizer = AutoTokenizer.from_pretrained(files.model)
    expected = []
    for line in files.texts.read_text().splitlines():
        ids = torch.tensor([tokenizer(json.loads(line)["text"])["input_ids"][:LENGTH]])
        with torch.inference_mode():
            own, base = (model(input_ids=ids).logits[0, :-1].numpy() for model in models)
        expected.append(reference.kl(base, own))
    assert len(expected) == 3
    np.testing.assert_allclose(tokens["kl"], np.concatenate(expected), atol=1e-6)
    assert tokens["kl"].mean() > 1e-3


def test_a_float32_file_and_the_checkpoint_that_it_was_made_from_are_one_model(files):
    tokens = files.tokens("model.name=checkpoint", *FLOAT)
    assert len(tokens) == 3 * (LENGTH - 1)
    assert not tokens["kl"].any()
    assert tokens["same_top"].all()


def test_which_file_the_base_is_makes_another_cell(files):
    of = [files.cells(QUANTISED, f"base.model.gguf_file={file}") for file in ("f32.gguf", "q4_0.gguf")]
    assert of[0][0].cell.cell_id != of[1][0].cell.cell_id
