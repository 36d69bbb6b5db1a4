"""KL to a base through whole cells: both models at once or one after the other, killed, resumed, refused."""

import json
import logging
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

from harness.cells import beside
from harness.engine import states
from harness.errors import UserError
from harness.results import store
from harness.runs import checkpoints, runner
from harness.storage.files import StorageError
from tests.disks import no_room
from tests.reference import divergence as reference
from tests.sweeps import PLACES, Place

TABLES = ("windows", "positions", "tokens", "kl")
KEYS = ["cell_id", "document_index", "window", "position_begin", "weight", "token"]


def perturbed(place, amount=0.02):
    """A second checkpoint beside the place's: the same vocabulary, other weights."""
    folder = place.folder / "other"
    shutil.copytree(place.model, folder, dirs_exist_ok=True)
    model = AutoModelForCausalLM.from_pretrained(folder)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += amount * torch.randn(parameter.shape, generator=draw)
    model.save_pretrained(folder)
    return folder


def with_base(folder):
    return ("model@base.model=hf", f"base.model.path={folder}", "base.model.name=other")


def rows(place, table):
    read = store.load_results(place.results, table).drop(columns=PLACES, errors="ignore")
    return read.sort_values([k for k in KEYS if k in read], ignore_index=True)


def assert_same(place, other):
    for table in TABLES:
        pd.testing.assert_frame_equal(rows(place, table), rows(other, table), check_exact=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A cell against another checkpoint, both models at once."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("undisturbed")
        patch.setenv("HARNESS_CACHE", str(folder / "cache"))
        place = Place(folder)
        common = with_base(perturbed(place))
        (outcome,) = runner.run(place.prepared("method=none ctx=32 protocol=sliding protocol.stride=8", common=common))
        assert outcome.status == "computed", outcome.message
        return place


@pytest.fixture
def again(undisturbed, tmp_path):
    """The same cell with results of its own, the base's states on disk."""
    place = Place.__new__(Place)
    place.__dict__ |= undisturbed.__dict__
    place.results = tmp_path / "results"
    return place


def stored(place):
    common = (*with_base(place.folder / "other"), "base.at_once=false")
    return place.prepared("method=none ctx=32 protocol=sliding protocol.stride=8", common=common)


def test_cells_equal_the_definition_on_full_logits(undisturbed):
    tokens, windows = rows(undisturbed, "tokens"), rows(undisturbed, "windows")
    models = [
        AutoModelForCausalLM.from_pretrained(path).double()
        for path in (undisturbed.model, undisturbed.folder / "other")
    ]
    texts = [json.loads(line)["text"] for line in undisturbed.texts.read_text().splitlines()]
    ids = [[int(word.removeprefix("w")) for word in text.split()] for text in texts]
    checked = 0
    for window in windows.to_dict("records"):
        seen = torch.tensor([ids[window["document_index"]][window["begin"] : window["end"]]])
        with torch.inference_mode():
            own, base = (model(input_ids=seen).logits[0, :-1].numpy() for model in models)
        first = window["score_from"] - window["begin"] - 1
        expected = reference.kl(base, own)[first:]
        mine = tokens[(tokens["document_index"] == window["document_index"]) & (tokens["window"] == window["window"])]
        np.testing.assert_allclose(mine["kl"], expected, atol=1e-6)
        at = seen[0, 1:].numpy()[:, None]
        p, p_base = (np.exp(np.take_along_axis(reference.log_softmax(x), at, 1)[first:, 0]) for x in (own, base))
        np.testing.assert_allclose(mine["delta_p"], p - p_base, atol=1e-6)
        assert (mine["same_top"].to_numpy() == (own.argmax(-1) == base.argmax(-1))[first:]).all()
        checked += len(mine)
    assert checked == len(tokens) == windows["num_scored"].sum()
    assert 0 < tokens["same_top"].mean() < 1
    assert tokens["delta_p"].abs().max() > 1e-4


def test_bins_are_sums_of_tokens(undisturbed):
    tokens, bins = rows(undisturbed, "tokens"), rows(undisturbed, "kl")
    for column, sums in (
        ("kl", "kl_sum"),
        ("base_nll", "base_nll_sum"),
        ("nll", "nll_sum"),
        ("delta_p", "delta_p_sum"),
    ):
        np.testing.assert_allclose(bins[sums].sum(), tokens[column].astype(float).sum(), rtol=1e-5, err_msg=column)
    np.testing.assert_allclose(bins["delta_p_squares"].sum(), (tokens["delta_p"].astype(float) ** 2).sum(), rtol=1e-5)
    assert bins["num_same_top"].sum() == tokens["same_top"].sum()
    assert bins["num_scored"].sum() == len(tokens)


def test_losses_are_those_of_cells_without_a_base(undisturbed, again):
    cells = [
        f"model.path={p} method=none ctx=32 protocol=sliding protocol.stride=8"
        for p in (again.model, again.folder / "other")
    ]
    own, base = again.prepared(*cells, common=("save_tokens=true",))
    runner.run([own, base])
    compared, alone = rows(undisturbed, "tokens"), store.load_results(again.results, "tokens")
    order = ["document_index", "window", "token"]
    for column, one in (("nll", own), ("base_nll", base)):
        expected = alone[alone["cell_id"] == one.cell.cell_id].sort_values(order)["nll"]
        assert (compared.sort_values(order)[column].to_numpy() == expected.to_numpy()).all(), column
    assert (rows(undisturbed, "windows")["base_cell_id"] == base.cell.cell_id).all()


def test_states_on_disk_give_the_same_bits(undisturbed, again):
    (outcome,) = runner.run(stored(again))
    assert outcome.status == "computed", outcome.message
    assert_same(again, undisturbed)
    assert all(file.endswith(".parquet") for file in again.files())


@pytest.mark.parametrize("at_once", ["null", "true", "false"])
@pytest.mark.parametrize(("method", "base"), [("yarn", "yarn"), ("none", "linear base.method.factor=1")])
def test_methods_that_coincide_have_no_divergence(place, at_once, method, base):
    runner.run(place.prepared(f"method={method} ctx=64 method@base.method={base} base.at_once={at_once}"))
    tokens = rows(place, "tokens")
    assert len(tokens) == 4 * 63
    assert not tokens["kl"].any()
    assert not tokens["delta_p"].any()
    assert tokens["same_top"].all()


def test_one_model_under_two_methods_is_loaded_once(place, caplog):
    caplog.set_level(logging.INFO)
    common = ("method@base.method=none",)
    runner.run(place.prepared("method=linear ctx=16", "method=linear ctx=64", "method=yarn ctx=64", common=common))
    assert caplog.text.count("loaded model") == 1
    tokens = rows(place, "tokens")
    factor_one = tokens[tokens["cell_id"].isin(rows(place, "windows").query("ctx == 16")["cell_id"])]
    assert not factor_one["kl"].any()  # factor 1 within the trained length
    assert (tokens["kl"] > 0).mean() > 0.7


def test_lengths_of_a_single_pass_share_it_and_get_what_they_get_alone(place, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    cells = [f"method=none method@base.method=linear base.method.factor=2 ctx={ctx}" for ctx in (16, 32, 64)]
    runner.run(place.prepared(*cells))
    assert caplog.text.count("(0 of 4 documents were there)") == 3
    together = rows(place, "tokens"), rows(place, "kl")
    place.results = tmp_path / "alone"
    for cell in cells:
        runner.run(place.prepared(cell))
    for table, expected in zip(("tokens", "kl"), together, strict=True):
        got = rows(place, table)
        pd.testing.assert_frame_equal(got, expected, rtol=1e-4, atol=1e-6)
    apart = place.prepared(*(f"method=none method@base.method=dynamic_ntk ctx={ctx}" for ctx in (64, 128)))
    assert len({p.cell.pass_id for p in apart}) == 2  # the base depends on the length


# Killed, full, of another ---------------------------------------------------------------------------------------------


class Killed(BaseException):
    """What a signal does to a process, in miniature."""


def after(count, function):
    calls = []

    def counted(*args, **kwargs):
        calls.append(1)
        if len(calls) > count:
            raise Killed
        return function(*args, **kwargs)

    return counted


def test_killed_while_states_are_stored_it_goes_on_with_the_next_window(undisturbed, again, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(states.States, "write", after(5, states.States.write))
        with pytest.raises(Killed):
            runner.run(stored(again))
    assert len(list(again.results.rglob("*.states"))) == 5
    written = []
    write = states.States.write
    monkeypatch.setattr(states.States, "write", lambda self, *args: written.append(1) or write(self, *args))
    runner.run(stored(again))
    assert 0 < len(written) < len(rows(undisturbed, "windows"))
    assert_same(again, undisturbed)


def test_killed_while_tokens_are_compared_it_goes_on_with_the_next_document(undisturbed, again, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", after(2, checkpoints.save))
        with pytest.raises(Killed):
            runner.run(stored(again))
    monkeypatch.setattr(states.States, "write", after(0, None))  # none is missing
    runner.run(stored(again))
    assert "(2 of 4 documents were there)" in caplog.text
    assert_same(again, undisturbed)


def test_a_full_disk_is_one_line_and_the_command_goes_on(undisturbed, again):
    with pytest.raises(StorageError, match="the final hidden states of the base cannot be written to"), no_room(3000):
        runner.run(stored(again))
    assert not list(again.results.rglob("*.parquet"))
    runner.run(stored(again))
    assert_same(again, undisturbed)


def of_another_base(file):
    content = file.read_bytes()
    head, _, rest = content.partition(b"\n")
    file.write_bytes(head.replace(b'"base": "', b'"base": "0') + b"\n" + rest)


def torn(file):
    file.write_bytes(file.read_bytes()[:-7])


def one_byte_wrong(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def another_checksum(file):
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)


def longer(file):
    file.write_bytes(file.read_bytes() + b"0" * 64)


def empty(file):
    file.write_bytes(b"")


@pytest.mark.parametrize("damage", [of_another_base, torn, one_byte_wrong, another_checksum, longer, empty])
def test_states_that_are_not_the_bases_are_named_and_computed_again(undisturbed, again, monkeypatch, caplog, damage):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", after(0, None))
        with pytest.raises(Killed):
            runner.run(stored(again))
    files = sorted(again.results.rglob("*.states"))
    assert len(files) == len(rows(undisturbed, "windows"))
    damage(files[3])
    caplog.clear()
    runner.run(stored(again))
    assert caplog.text.count("is unusable") == 1
    assert files[3].name in caplog.text
    assert_same(again, undisturbed)


# Identity, and what is refused ----------------------------------------------------------------------------------------


def test_a_base_is_part_of_the_identity_where_it_is_given_and_only_there(place):
    none, same, linear, linear2, at_once, dtype = place.prepared(
        "method=none ctx=64",
        "method=none ctx=64 method@base.method=none",
        "method=none ctx=64 method@base.method=linear",
        "method=none ctx=64 method@base.method=linear base.method.factor=3",
        "method=none ctx=64 method@base.method=linear base.at_once=false",
        "method=none ctx=64 method@base.method=none base.dtype=bfloat16",
    )
    ids = [p.cell.cell_id for p in (none, same, linear, linear2, at_once, dtype)]
    assert len(set(ids)) == 5
    assert ids[4] == ids[2]
    assert same.cell.columns["base_cell_id"] == none.cell.cell_id
    assert none.cell.columns["base"] == ""
    assert linear2.cell.columns["base"] == "tiny linear, factor 3"
    assert dtype.cell.columns["base"] == "tiny none, bfloat16"


def test_another_base_model_is_another_cell(place):
    before = place.prepared("method=none ctx=32", common=with_base(perturbed(place)))
    after_it = place.prepared("method=none ctx=32", common=with_base(perturbed(place, 0.03)))
    assert before[0].cell.cell_id != after_it[0].cell.cell_id


def test_a_tokenizer_that_makes_other_tokens_of_the_texts_is_refused(place):
    folder = perturbed(place)
    file = folder / "tokenizer.json"
    state = json.loads(file.read_text())
    state["normalizer"] = {"type": "Replace", "pattern": {"String": "w41"}, "content": "w42"}
    file.write_text(json.dumps(state))
    (outcome,) = runner.run(place.prepared("method=none ctx=32", common=with_base(folder)))
    assert outcome.status == "failed"
    assert "base.model must have the tokenizer of model=tiny: document" in outcome.message


def test_a_tokenizer_of_other_files_and_the_same_tokens_will_do(place):
    folder = perturbed(place)
    file = folder / "tokenizer.json"
    state = json.loads(file.read_text())
    state["normalizer"] = {"type": "Replace", "pattern": {"String": "nowhere"}, "content": "w42"}
    file.write_text(json.dumps(state))
    (prepared,) = place.prepared("method=none ctx=32", common=with_base(folder))
    assert prepared.base.header.tokenizer_fingerprint != prepared.header.tokenizer_fingerprint
    (outcome,) = runner.run([prepared])
    assert outcome.status == "computed", outcome.message


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("base.at_once=true", "base.at_once needs a base"),
        ("base.method.kv_cache=int8", r"base.method.kv_cache needs base.method="),
        ("base.dtype=float33", "Unknown base.dtype 'float33'"),
        ("method@base.method=none engine.parallel=context", "engine.parallel=context cannot run base"),
    ],
)
def test_a_base_that_cannot_be_is_refused(place, overrides, message):
    with pytest.raises(UserError, match=message):
        place.configs(f"method=none ctx=32 {overrides}")


def test_a_model_that_hands_out_no_states_is_refused(place):
    (outcome,) = runner.run(place.prepared("method=none ctx=32 method@base.method=none engine.mode=plain"))
    assert outcome.status == "failed"
    assert "hands out no final hidden states" in outcome.message


def test_the_fit_of_two_models_is_decided_by_their_weights(place, monkeypatch):
    asked = []
    monkeypatch.setattr(beside, "fits", lambda weights, device: bool(asked.append((weights, device))))
    folder = perturbed(place)
    runner.run(place.prepared("method=none ctx=32", common=with_base(folder)))
    parameters = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(folder).parameters())
    assert asked == [(2 * 4 * parameters, "cpu")]
