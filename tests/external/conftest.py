"""A tiny model with a BOS, cells of it computed here, and the same model behind a server."""

import json
import sys

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from harness import cli
from harness.external.__main__ import main
from tests.external.server import Engine
from tests.sweeps import Place
from tests.tiny import VOCABULARY

BOS = 1


def save_tokenizer(folder):
    """Words w0 w2 w3 ... and a BOS of its own, which no text gets by itself."""
    vocabulary = {f"w{i}": i for i in range(VOCABULARY)}
    vocabulary["<s>"] = vocabulary.pop("w1")
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.add_special_tokens([AddedToken("<s>", special=True)])
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0", bos_token="<s>").save_pretrained(folder)


class External(Place):
    """Commands of harness.external in this process, and the cells that they are compared with."""

    def __init__(self, folder):
        super().__init__(folder, documents=2, tokens=48)
        save_tokenizer(self.model)
        self.patch = pytest.MonkeyPatch()

    @property
    def engine(self):
        model = AutoModelForCausalLM.from_pretrained(self.model, dtype=torch.float32, attn_implementation="eager")
        return Engine(model.eval(), PreTrainedTokenizerFast.from_pretrained(self.model))

    @property
    def common(self):
        """Overrides that a cell and an engine's cell share."""
        return [o for o in self.overrides if not o.startswith(("engine.", "results_dir="))]

    def command(self, action, *overrides, results="theirs"):
        """The words of a command of harness.external."""
        return ["external", action, *self.common, f"results_dir={self.folder / results}", *overrides]

    def run(self, action, *overrides, **options):
        """A command of harness.external; returns its exit code."""
        return self._run(main, self.command(action, *overrides, **options))

    def fetch_command(self, url, dialect, *overrides, **options):
        """A fetch under the usual names."""
        names = ["name=tiny-engine", "computed_by='engine 1.0'", "wait_s=0.01"]
        return self.command("fetch", f"url={url}", f"dialect={dialect}", *names, *overrides, **options)

    def fetch(self, url, dialect, *overrides, **options):
        """The same, run; returns its exit code."""
        return self._run(main, self.fetch_command(url, dialect, *overrides, **options))

    def compute(self, *overrides, flags=()):
        """The same cells, computed here."""
        engine = ["engine.device=cpu", "engine.dtype=float32", f"results_dir={self.folder / 'ours'}"]
        return self._run(cli.main, ["harness", *flags, *self.common, *engine, *overrides])

    def run_other(self, command, *arguments):
        """Another command of the package, in this process."""
        assert self._run(command, [*arguments]) == 0

    def _run(self, command, arguments):
        self.patch.setattr(sys, "argv", arguments)
        try:
            command()
        except SystemExit as ended:
            return ended.code
        finally:
            self.patch.undo()
        return 0

    def prompts(self, *overrides):
        """The windows as the file says them."""
        file = self.folder / "prompts.jsonl"
        assert self.run("prompts", f"file={file}", *overrides) == 0
        return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture
def external(tmp_path, own_cache):
    return External(tmp_path)


@pytest.fixture
def engine(external):
    return external.engine
