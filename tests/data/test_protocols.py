"""Every protocol, aggregate and BOS policy against losses computed one token at a time in float64."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from harness import load_results, summarize
from harness import methods as registry
from harness.data.documents import Document
from harness.data.protocols import PROTOCOLS, Sliding
from harness.data.windows import BOS_POLICIES, plan
from harness.engine.engine import Engine
from harness.engine.spec import EngineSpec
from harness.errors import UserError
from harness.models.checkpoint.load import load
from harness.models.checkpoint.spec import ModelSpec
from harness.models.install import applied
from harness.runs.runner import run
from harness.statistics.summary import AGGREGATES, Averaging
from tests.evaluations import protocol_named, scores, windows_table
from tests.reference.protocols import Losses, Target, perplexities, targets
from tests.sweeps import Place
from tests.tiny import VOCABULARY, tiny_llama, tokens, with_scaling

TEXT = (
    "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a "
    "wife. However little known the feelings or views of such a man may be on his first entering a neighbourhood, "
    "this truth is so well fixed in the minds of the surrounding families, that he is considered as the rightful "
    "property of some one or other of their daughters."
)
POLICIES = ("none", "first_window", "every_window")
SHAPES = [(8, 3, 2), (13, 12, 12), (16, 5, 7)]  # ctx, stride, num_targets
LENGTHS = (30, 23, 16)  # tokens of the documents: the last windows end differently


class Case:
    """A model, documents, and what each of their tokens costs behind any context."""

    def __init__(self, model: torch.nn.Module, documents: list[Document], bos: int, shapes: int) -> None:
        self.documents, self.bos, self.shapes = documents, bos, SHAPES[:shapes]
        self.engine = Engine(model, EngineSpec())
        double = copy.deepcopy(model).double()
        self.losses = [Losses(double, d.ids.tolist(), bos) for d in documents]

    def expected(self, name, ctx, **options):
        """Scored tokens and their losses, for each document and window."""
        planned = [targets(name, d.num_tokens, ctx, **options) for d in self.documents]
        return planned, [
            [own.of(window) for window in windows] for own, windows in zip(self.losses, planned, strict=True)
        ]


@pytest.fixture(scope="module")
def reference_model():
    return load(ModelSpec(name="reference", package="harness.models.reference"))


@pytest.fixture(scope="module")
def reference(reference_model):
    ids = reference_model.tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    pieces = [ids[10 * i : 10 * i + n] for i, n in enumerate(LENGTHS[:2])]
    sizes = [[len(t) for t in reference_model.tokenizer.convert_ids_to_tokens(p)] for p in pieces]  # a byte a character
    documents = [
        Document(f"piece-{i}", np.array(p), np.concatenate([[0], np.cumsum(s)]))
        for i, (p, s) in enumerate(zip(pieces, sizes, strict=True))
    ]
    return Case(reference_model.model, documents, reference_model.tokenizer.bos_token_id, shapes=2)


@pytest.fixture(scope="module")
def tiny():
    documents = [
        Document(f"random-{n}", tokens(n, seed=n)[0].numpy(), 2 * np.arange(n + 1, dtype=np.int64)) for n in LENGTHS
    ]
    return Case(tiny_llama(), documents, 1, shapes=3)


@pytest.mark.parametrize("case", ["reference", "tiny"])
@pytest.mark.parametrize("bos", POLICIES)
@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_is_its_definition_token_by_token(request, case, name, bos):
    case = request.getfixturevalue(case)
    for ctx, stride, last in (*case.shapes, *([(26, 5, 4)] if PROTOCOLS[name].takes_shorter else [])):
        protocol = protocol_named(name, bos=bos, stride=stride, num_targets=last)
        found = scores(
            case.engine.token_nll,
            case.documents,
            ctx,
            protocol,
            tokens_per_batch=64,
            bos_token_id=case.bos,
            shorter="whole",
        )
        planned, losses = case.expected(name, ctx, bos=bos, stride=stride, last=last)
        for got, windows, by_window in zip(found, planned, losses, strict=True):
            assert [list(range(w.score_from, w.end)) for w in got.windows] == [[t.token for t in w] for w in windows]
            for nll, expected in zip(got.nll, by_window, strict=True):
                np.testing.assert_allclose(nll, expected, atol=1e-4, rtol=0)
        rows = windows_table(found, case.documents, ctx=ctx)
        for aggregate, expected in perplexities(losses).items():
            assert summarize(rows, Averaging(aggregate))["perplexity"].item() == pytest.approx(expected, rel=1e-4)


def test_every_aggregate_is_compared():
    assert perplexities([[[1.0]]]).keys() == set(AGGREGATES)


@pytest.mark.parametrize("name", ["sliding", "disjoint", "overlapping_full"])
def test_bits_per_byte_count_the_bytes_of_scored_tokens(reference, reference_model, name):
    protocol = protocol_named(name, bos="none", stride=5)
    found = scores(reference.engine.token_nll, reference.documents, 16, protocol)
    planned, losses = reference.expected(name, 16, bos="none", stride=5, last=None)
    scored = [d.ids[t.token] for d, ws in zip(reference.documents, planned, strict=True) for w in ws for t in w]
    num_bytes = sum(len(reference_model.tokenizer.decode([i]).encode()) for i in scored)
    bits = sum(x for d in losses for w in d for x in w) / np.log(2)
    summary = summarize(windows_table(found, reference.documents))
    assert summary["bits_per_byte"].item() == pytest.approx(bits / num_bytes, rel=1e-4)


@pytest.mark.parametrize(("ctx", "factor"), [(300, None), (600, 4.0)])
def test_long_windows_of_the_reference_model_are_exact_with_and_without_yarn(reference_model, ctx, factor):
    """Tokens drawn from all over the windows; YaRN's numbers come from transformers' own scaling."""
    ids = np.array(reference_model.tokenizer(TEXT * 8, add_special_tokens=False)["input_ids"][: ctx + 60])
    document = Document("text", ids, np.arange(len(ids) + 1))
    declared = {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": 512}
    peer = with_scaling(reference_model.model, **declared) if factor else copy.deepcopy(reference_model.model)
    method = registry.build(
        "yarn" if factor else "none", {"factor": factor} if factor else {}, reference_model.geometry, ctx
    )
    engine = Engine(reference_model.model, EngineSpec())
    protocol = Sliding(stride=64, bos="none")
    with applied(reference_model.model, method, ctx):
        (found,) = scores(engine.token_nll, [document], ctx, protocol, tokens_per_batch=700)
    losses = Losses(peer.double(), ids.tolist(), None)
    windows = targets("sliding", len(ids), ctx, bos="none", stride=64, last=None)
    for nll, window in zip(found.nll, windows, strict=True):
        picked = np.linspace(0, len(window) - 1, 3).astype(int)
        np.testing.assert_allclose(nll[picked], losses.of([window[i] for i in picked]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_uniform_logits_give_the_vocabulary_as_perplexity_through_a_whole_run(tmp_path, own_cache, name):
    place = Place(tmp_path, documents=2, tokens=50)
    model = tiny_llama()
    torch.nn.init.zeros_(model.lm_head.weight)
    model.save_pretrained(place.model)
    given = [f"protocol.{k}={v}" for k, v in (("stride", 7), ("num_targets", 5)) if hasattr(PROTOCOLS[name], k)]
    given += ["protocol.bos=none"] * PROTOCOLS[name].lends_eos  # its tokenizer has neither
    assert [o.status for o in run(place.prepared(" ".join([f"protocol={name} ctx=24", *given])))] == ["computed"]
    for aggregate in AGGREGATES:
        (perplexity,) = summarize(load_results(place.results), Averaging(aggregate))["perplexity"]
        assert perplexity == pytest.approx(VOCABULARY, rel=1e-6)  # also tells e from 2.71828


def test_the_definitions_themselves_on_windows_worked_by_hand():
    def scored(name, length, ctx, bos="none", stride=2, last=None):
        return [[t.token for t in w] for w in targets(name, length, ctx, bos=bos, stride=stride, last=last)]

    assert scored("sliding", 9, 4) == [[1, 2, 3], [4, 5], [6, 7], [8]]
    assert scored("disjoint", 9, 4) == [[1, 2, 3], [5, 6, 7]]
    assert scored("second_half", 20, 8, "every_window") == [[4, 5, 6], [12, 13, 14]]
    assert scored("second_half", 23, 8, "first_window") == [[4, 5, 6], [12, 13, 14], [20, 21, 22]]
    assert scored("rolling", 10, 4, "first_window") == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert targets("rolling", 10, 4, bos="first_window", stride=1, last=None)[-1] == [
        Target(8, 5, False),
        Target(9, 5, False),
    ]
    assert scored("last", 20, 8, "first_window", stride=4) == [
        [3, 4, 5, 6],
        [7, 8, 9, 10],
        [11, 12, 13, 14],
        [15, 16, 17, 18],
    ]
    assert scored("last", 9, 4) == [[2, 3], [4, 5], [6, 7]]
    assert targets("fixed_targets", 20, 8, bos="every_window", stride=1, last=2) == [
        [Target(18, 13, True), Target(19, 13, True)]
    ]


@pytest.mark.parametrize("bos", POLICIES)
@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_shortest_window_scores_something_or_is_refused(name, bos):
    """A window of two tokens, or three for the second half: one of context and one that is scored."""
    protocol = protocol_named(name, bos=bos, stride=1, num_targets=1)
    if name == "second_half":
        with pytest.raises(UserError, match="ctx must be at least 3 tokens for second_half"):
            plan(5, 2, protocol)
    windows = plan(5, 3 if name == "second_half" else 2, protocol)
    assert windows
    assert all(1 <= w.num_scored <= 1 + protocol.ahead for w in windows)


def test_every_policy_and_aggregate_is_documented():
    text = Path(__file__).parents[2].joinpath("docs", "protocols.md").read_text()
    assert all(f"| `{name}`" in text for name in (*BOS_POLICIES[1:], *AGGREGATES))
