"""What the scripts of others print, by naming a protocol.

Literals are from tests/reference/peers.py in float64, the reference model on a text of its own language; ours are from
cells in float32.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness import Averaging, load_results, summarize
from harness.runs.runner import run
from harness.statistics.summary import AGGREGATES
from tests.data.test_peers import REFERENCE, TEXTS, OnReference
from tests.reference import peers

LONG = [(text * 40)[: 1500 + 400 * number] for number, text in enumerate(TEXTS[:2])]  # two documents


@cache
def tokens():
    """The documents as token ids, and the BOS."""
    tokenizer = AutoTokenizer.from_pretrained(REFERENCE)
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in LONG]
    return ids, tokenizer.bos_token_id


@cache
def model():
    return AutoModelForCausalLM.from_pretrained(REFERENCE, dtype=torch.float64, attn_implementation="eager").eval()


@torch.no_grad()
def losses(ids):
    ids = torch.tensor([list(ids)])
    log_probs = model()(ids, use_cache=False).logits[0].log_softmax(-1)
    return -log_probs[:-1].gather(1, ids[0, 1:, None])[:, 0].numpy()


BEHIND_BOS = "protocol.bos=every_window"
ALONE = "protocol.bos=none"


class Case(NamedTuple):
    """A script: the cell that is the same, how its windows are averaged, the script's loop, and what that gives."""

    ours: str
    aggregate: str
    theirs: Callable[[list[list[int]], int], float]
    number: float
    documents: slice = slice(None)  # some scripts read one text


CASES = {
    "YaRN": Case(
        f"protocol=sliding ctx=128 protocol.stride=48 {BEHIND_BOS}",
        "window",
        lambda d, bos: peers.yarn(losses, d, 128, bos, stride=48),
        33.782359113088084,
    ),
    "YaRN --truncate": Case(
        f"protocol=single_pass ctx=128 {BEHIND_BOS}",
        "window",
        lambda d, bos: peers.yarn(losses, d, 128, bos, truncate=True),
        27.12218254553357,
    ),
    "LongRoPE": Case(
        f"protocol=sliding ctx=128 protocol.stride=32 data.max_tokens=320 {BEHIND_BOS}",
        "window",
        lambda d, bos: peers.longrope(losses, d, 128, bos, stride=32),
        16.402168924684766,
    ),
    "PoSE": Case(
        f"protocol=sliding ctx=128 protocol.stride=48 {BEHIND_BOS}",
        "token",
        lambda d, bos: peers.pose(losses, d, 128, bos, stride=48),
        21.64843973506403,
    ),
    "EasyContext": Case(
        f"protocol=single_pass ctx=200 {BEHIND_BOS}",
        "window",
        lambda d, bos: peers.easycontext(losses, d, 200, bos),
        22.749822263920525,
    ),
    "LongPPL's ppl": Case(
        f"protocol=single_pass ctx=256 {ALONE}",
        "token",
        lambda d, _: peers.longppl_plain(losses, d, 256),
        20.348505459621546,
    ),
    "evaluate": Case(
        f"protocol=single_pass ctx=128 {BEHIND_BOS}",
        "mean_of_perplexities",
        lambda d, bos: peers.evaluate(losses, d, 128, bos),
        27.48176993303418,
    ),
    "llama-perplexity without BOS": Case(
        f"protocol=second_half ctx=96 {ALONE}",
        "token",
        lambda d, _: peers.llama_cpp(losses, d[0], 96),
        21.417361647889944,
        slice(1),
    ),
    "llama-perplexity -c 64 --ppl-stride 48": Case(
        f"protocol=last ctx=88 protocol.stride=48 {ALONE}",
        "token",
        lambda d, _: peers.llama_cpp_stride(losses, d[0], 64, 48),
        22.569008374000624,
        slice(1),
    ),
}
PAGE = 19.203329191413747  # the page of transformers, ctx 128, stride 48, the first document


@pytest.mark.slow
def test_the_literals_are_what_the_loops_give():
    for name, case in CASES.items():
        assert case.theirs(*tokens()) == pytest.approx(case.number, rel=1e-9), name
    assert peers.transformers_page(losses, tokens()[0][0], 128, 48) == pytest.approx(PAGE, rel=1e-9)


def computed(folder, case, documents):
    """Rows of the cell, all windows scored."""
    place = OnReference(folder, LONG[documents])
    assert [o.status for o in run(place.prepared(f"{case} protocol.max_windows=null"))] == ["computed"]
    return load_results(place.results)


@pytest.mark.parametrize("name", CASES)
def test_the_number_of_a_script_is_had_by_naming_its_protocol(tmp_path, own_cache, name):
    case = CASES[name]
    rows = computed(tmp_path, case.ours, case.documents)
    ours = summarize(rows, Averaging(case.aggregate))["perplexity"].item()
    assert ours == pytest.approx(case.number, rel=1e-6)
    if rows["num_scored"].nunique() > 1:  # otherwise some averages are the same
        others = {summarize(rows, Averaging(aggregate))["perplexity"].item() for aggregate in AGGREGATES} - {ours}
        assert all(abs(other / case.number - 1) > 1e-6 for other in others)


def test_the_page_of_transformers_counts_a_token_too_few_in_all_windows_but_the_first(tmp_path, own_cache):
    rows = computed(tmp_path, f"protocol=sliding ctx=128 protocol.stride=48 {ALONE}", slice(1))
    counts = rows["num_scored"] - (rows["begin"] > 0)
    means = rows["nll_sum"] / rows["num_scored"]
    assert np.exp((means * counts).sum() / counts.sum()) == pytest.approx(PAGE, rel=1e-6)
    assert summarize(rows)["perplexity"].item() != pytest.approx(PAGE, rel=1e-5)  # all tokens counted
