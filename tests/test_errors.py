"""Every bad input that was thought of, tried: one line, the right exit code, and docs/errors.md says the same.

HARNESS_WRITE_DOCS=1 pytest tests/test_errors.py writes the page anew.
"""

import gzip
import json
import math
import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.errors import HydraException
from omegaconf import OmegaConf
from transformers import BertConfig, BertForMaskedLM, BertLMHeadModel

from harness import cli, collect, export, plot, theory, train
from harness.external import __main__ as external
from tests import hostile
from tests.statistics.token_cells import cell, short, write
from tests.sweeps import Place, save_texts
from tests.tiny import tiny_config, tiny_llama, tiny_model

PAGE = Path(__file__).parents[1] / "docs" / "errors.md"


class Bad(NamedTuple):
    """An input, what is wrong with it, and how the command ends."""

    what: str
    overrides: str  # {dir}: the folder that `prepare` filled
    code: int = 2


COMMAND_LINE = [
    Bad("a word for a number", "ctx=abc"),
    Bad("a fraction for a whole number", "ctx=512.5"),
    Bad("a number for true or false", "save_tokens=3"),
    Bad("no value", "ctx"),
    Bad("a length below two tokens", "ctx=1"),
    Bad("a mistyped method", "method=yarm"),
    Bad("a method in other letters", "method=YaRN"),
    Bad("no method at all", "method=null"),
    Bad("a mistyped group", "metod=yarn"),
    Bad("a mistyped model", "model=referense"),
    Bad("a mistyped protocol", "protocol=slidng"),
    Bad("a mistyped key", "protocol=sliding protocol.strid=64"),
    Bad("a mistyped parameter of a method", "method=yarn method.factr=2"),
    Bad("a parameter of another method", "method=linear method.beta_fast=3"),
    Bad("a parameter of another protocol", "protocol=single_pass protocol.stride=512"),
    Bad("a parameter of another protocol, added by force", "protocol=single_pass +protocol.stride=512"),
    Bad("a parameter that no method of a sweep has", "-m method=none,linear method.beta_fast=3"),
    Bad("a mistyped parameter in a sweep", "-m protocol=single_pass,sliding protocol.strid=16"),
    Bad("a key below a value", "ctx.x=3"),
    Bad("a key that is nothing", "bogus=1"),
    Bad("a key added by force", "+protocol.bogus=1"),
    Bad("code in a configuration", "+model._target_=os.system"),
    Bad("several values without -m", "ctx=512,1024"),
    Bad("a preset that sweeps, without -m", "experiment=main"),
    Bad("an interpolation of what is not there", "ctx=${nothing}"),
    Bad("a broken override", "ctx=[1,"),
    Bad("a name that Hydra's grammar takes apart", "model.path=runs/epoch=3"),
    Bad("a name of a file with a bracket", "data.path=books/x[1].txt"),
]
VALUES = [
    Bad("a factor that shrinks", "method=linear method.factor=0.5"),
    Bad("a negative factor", "method=yarn method.factor=-4"),
    Bad("a stride of zero", "protocol=sliding protocol.stride=0"),
    Bad("a stride beyond the window", "protocol=sliding protocol.stride=999"),
    Bad("a sample of one window", "protocol.max_windows=1"),
    Bad("no number of targets where one is needed", "protocol=fixed_targets protocol.num_targets=null"),
    Bad("more targets than the window holds", "protocol=fixed_targets protocol.num_targets=99"),
    Bad("an unknown BOS policy", "protocol.bos=sometimes"),
    Bad("a BOS that the tokenizer does not have", "protocol.bos=every_window"),
    Bad("an unknown dtype", "engine.dtype=int3"),
    Bad("an unknown device", "engine.device=gpu"),
    Bad("an unknown attention", "engine.attention=flash"),
    Bad("an unknown mode", "engine.mode=fast"),
    Bad("an unknown thing to share", "engine.parallel=tensors"),
    Bad("shared windows in a mode that cannot", "engine.parallel=context engine.mode=plain"),
    Bad("shared windows under a method that changes attention", "engine.parallel=context method=rerope"),
    Bad("shared windows under scaled queries", "engine.parallel=context method.query_scale=log_n"),
    Bad("a form of query scale that is not there", "method.query_scale=logn"),
    Bad("a parameter that a form lacks", "method.query_scale={name:power,beta:0.1}"),
    Bad("a key of older commands", "method.logn=true"),
    Bad("a key of older commands in a sweep", "-m method=none,yarn method.logn=true"),
    Bad("a cache that is not there", "method.kv_cache=fp8"),
    Bad("shared windows of a model over devices", "engine.parallel=context model.device_map=auto"),
    Bad("compiled layers over devices", "engine.compile=true model.device_map=auto"),
    Bad("devices by hand", "model.device_map=balanced"),
    Bad("a negative seed", "seed=-1"),
    Bad("an empty batch", "engine.tokens_per_batch=0"),
    Bad("less than no time", "engine.keep_every=-1"),
    Bad("a device that is not there", "engine.device=cuda"),
    Bad("short windows without -m", "save_tokens=true short_windows={ctx:16,stride:4}"),
    Bad("short windows beside cells without tokens", "-m short_windows={ctx:16,stride:4}"),
    Bad("short windows all of which are scored", "-m save_tokens=true short_windows={ctx:16,stride:16}"),
    Bad("short windows beyond the trained length", "-m save_tokens=true short_windows={ctx:64,stride:8}"),
]
DATA = [
    Bad("a path that does not exist", "data.path={dir}/nope.txt"),
    Bad("no path", "data.path=null"),
    Bad("an empty file", "data.path={dir}/empty.txt"),
    Bad("a file that is no text", "data.path={dir}/bytes.txt"),
    Bad("a file of another type", "data.path={dir}/texts.zip"),
    Bad("a pipe", "data.path=/dev/null"),
    Bad("a packed file that is cut off", "data.path={dir}/cut.txt.gz"),
    Bad("a comma that is not quoted", "data.path={dir}/comma.csv"),
    Bad("a column that is not there", "data.column=words"),
    Bad("a folder of several kinds of file", "data.path={dir}/mixed"),
    Bad("an empty folder", "data.path={dir}/void"),
    Bad("a folder that leads into itself", "data.path={dir}/loop"),
    Bad("a folder here in place of a hub's data set", "data.source=hub data.path={dir}/mixed"),
    Bad("documents shorter than the window", "ctx=4096"),
    Bad("more documents than there are", "data.num_documents=9"),
    Bad("a cut below the least length", "data.min_tokens=64 data.max_tokens=32"),
    Bad("a target in a file without columns", "data.path={dir}/mixed/a.txt data.target_column=answer"),
    Bad("a target's column that is not there", "protocol=targets data.target_column=answer"),
    Bad("targets under a protocol that scores other tokens", "data.path={dir}/asked.jsonl data.target_column=answer"),
    Bad(
        "a target longer than the window",
        "protocol=targets data.path={dir}/asked.jsonl data.target_column=answer ctx=8",
    ),
    Bad("a target that is empty", "protocol=targets data.path={dir}/mute.jsonl data.target_column=answer"),
    Bad(
        "a target without a prompt",
        "protocol=targets data.path={dir}/asked.jsonl data.column=none data.target_column=answer",
    ),
    Bad("targets of documents that are cut", "protocol=targets data.target_column=text data.max_tokens=64"),
    Bad("needles under a protocol that scores other tokens", "data=needles"),
    Bad("a depth beyond the end", "data=needles protocol=targets data.needles.depths=[0.5,1.5]"),
    Bad("a depth that is no number", "data=needles protocol=targets data.needles.depths=[half]"),
    Bad("one depth twice", "data=needles protocol=targets data.needles.depths=[0.5,0.5]"),
    Bad("no repeat of a needle", "data=needles protocol=targets data.needles.repeats=0"),
    Bad("more distractors than keys", "data=needles protocol=targets data.needles.distractors=16"),
    Bad("numbers of one digit", "data=needles protocol=targets data.needles.digits=1"),
    Bad("a mistyped template", "data=needles protocol=targets data.needles.templates=[passkee]"),
    Bad("a mistyped key of needles", "data=needles protocol=targets data.needles.depth=0.5"),
    Bad("a window that does not hold the needle", "data=passkey protocol=targets"),
    Bad(
        "a text too short for a haystack",
        "data=needles protocol=targets data.source=files data.path={dir}/asked.jsonl data.min_tokens=2 "
        "data.num_documents=1 ctx=512",
    ),
    Bad("an unknown selection", "data.selection=best"),
    Bad("a path for texts of a package", "data=needles protocol=targets data.path={dir}/mixed/a.txt"),
]
MODELS = [
    Bad("a path that does not exist", "model.path={dir}/nope"),
    Bad("a folder without a model", "model.path={dir}/void"),
    Bad("weights that are pickles", "model.path={dir}/pickled"),
    Bad("truncated weights", "model.path={dir}/truncated"),
    Bad("weights that lack a tensor", "model.path={dir}/lacking"),
    Bad("more layers than the config says", "model.path={dir}/deeper"),
    Bad("other shapes than the config says", "model.path={dir}/wider"),
    Bad("a pad token that is none", "model.path={dir}/padded"),
    Bad("a tokenizer of another model", "model.path={dir}/foreign"),
    Bad("an index that names a pickle", "model.path={dir}/smuggled"),
    Bad("an index that names what is not there", "model.path={dir}/parts"),
    Bad("an adapter without its model", "model.path={dir}/adapter"),
    Bad("a distributed checkpoint", "model.path={dir}/distributed"),
    Bad("a model that brings code", "model.path={dir}/code"),
    Bad("no causal language model", "model.path={dir}/bert"),
    Bad("no tokenizer", "model.path={dir}/mute"),
    Bad("an attention window of no tokens", "model.sliding_window=0"),
    Bad("an attention window where no layer sees one", "model.sliding_window=16"),
    Bad("a model that sees later tokens", "model.path={dir}/seeing"),
    Bad("attention that adds something twice", "model.path={dir}/biased engine.attention=eager ctx=16"),
]
BASES = [
    Bad("a model of another vocabulary", "base.model=hf base.model.path={dir}/foreign base.model.name=foreign"),
    Bad("a model with other tokens", "base.model=hf base.model.path={dir}/renamed base.model.name=renamed"),
    Bad("a model without a path", "base.model=hf"),
    Bad("a mistyped model", "base.model=smolm2"),
    Bad("a mistyped key", "base.modle=smollm2"),
    Bad("a key of its model that is none", "base.model=hf +base.model.pth=x"),
    Bad("a mistyped parameter of its method", "base.method=yarn base.method.factr=2"),
    Bad("a cache without a method", "base.method.kv_cache=int8"),
    Bad("an unknown precision", "base.dtype=int3"),
    Bad("a place without a base", "base.at_once=true"),
    Bad("shared windows", "base.method=none engine.parallel=context"),
    Bad("a model whose states are hidden", "base.method=none engine.mode=plain"),
]
PLACES = [
    Bad("results in a file", "results_dir={dir}/empty.txt"),
    Bad("results where nothing can be written", "results_dir=/proc/results"),
    Bad("figures where nothing can be written", "-m plots_dir=/proc/plots"),
    Bad("cluster=slurm without -m", "cluster=slurm"),
    Bad("cluster=gpus without -m", "cluster=gpus"),
    Bad("another launcher without -m", "hydra/launcher=basic"),
    Bad("a mistyped cluster", "cluster=slrum"),
    Bad("two places at once", "-m cluster=local,gpus"),
    Bad("a launcher and a cluster", "-m hydra/launcher=basic cluster=gpus"),
    Bad("a pool on a CPU without a size", "-m cluster=gpus"),
    Bad("a pool of none", "-m cluster=gpus cluster.workers=0"),
    Bad("a pool whose workers get one device", "-m cluster=gpus engine.device=cuda:1"),
    Bad("a time limit of nothing", "-m cluster=slurm cluster.minutes=0"),
    Bad("more grace than time", "-m cluster=slurm cluster.minutes=1 cluster.grace_s=90"),
    Bad("setup that is no list of lines", "-m cluster=slurm cluster.setup=[1]"),
    Bad("setup that is one line", "-m cluster=slurm cluster.setup=module"),
    Bad("no SLURM here", "-m cluster=slurm cluster.gpus=0"),
    Bad("a mistake in one cell of a sweep", "-m method=none,linear ctx=1,32"),
    Bad("a loss that is no number", "model.path={dir}/poisoned data.path={dir}/poison.jsonl", code=1),
]
COLLECT = [
    Bad("nothing was started", "results_dir={dir}/void"),
    Bad("a sweep that is not there", "results_dir={dir}/collected sweep=b"),
    Bad("a record that is none", "results_dir={dir}/collected sweep=a"),
]
EXPORT = [
    Bad("an engine that is not known", "to=vlm"),
    Bad("neither a length nor a factor", "method=yarn"),
    Bad("a length below two tokens", "method=yarn ctx=1"),
    Bad("results without a length", "results_dir={dir}/void"),
    Bad("results and a method", "results_dir={dir}/void ctx=64 method=yarn"),
    Bad("a metric that is not known", "results_dir={dir}/void ctx=64 best=perplexty"),
    Bad("no results", "results_dir={dir}/void ctx=64"),
    Bad("a folder that holds something", "method=yarn ctx=1024 output={dir}/mixed"),
    Bad("metadata for a model that is not GGUF", "method=yarn ctx=1024 to=llama_cpp output={dir}/new"),
]
LONG_CONTEXT = [
    Bad("no token rows kept", "results_dir={dir}/plain metric=longppl"),
    Bad("no single pass with its tokens", "results_dir={dir}/short metric=longppl"),
    Bad("no short windows", "results_dir={dir}/long metric=longppl"),
    Bad("short windows beyond the trained length", "results_dir={dir}/beyond metric=longppl"),
    Bad("a sample of the short windows", "results_dir={dir}/sampled metric=longppl"),
    Bad("short windows of other documents", "results_dir={dir}/other metric=longppl"),
    Bad("an evaluator that is not there", "results_dir={dir}/whole metric=longppl evaluator=yran"),
    Bad("no key token at all", "results_dir={dir}/whole metric=longppl"),
    Bad("no far copy at all", "results_dir={dir}/whole metric=far_copies"),
    Bad("copies of nothing", "results_dir={dir}/whole metric=far_copies order=0"),
    Bad("no evaluator", "results_dir={dir}/whole metric=longppl evaluator=[]"),
    Bad("evaluators taken together somehow", "results_dir={dir}/whole metric=longppl together=both"),
]
THEORY = [
    Bad("settings that are not there", "config={dir}/nope.json"),
    Bad("settings that say nothing", "config={dir}/smuggled/model.safetensors.index.json"),
    Bad("settings that are no JSON", "config={dir}/bytes.txt"),
]
ENGINE = "name=m computed_by=e"  # how rows call an engine's losses
EXTERNAL = [
    Bad("nothing that is to be done", "file={dir}/prompts.jsonl"),
    Bad("a mistyped action", "fecth url=http://localhost:8000"),
    Bad("a sweep", "prompts -m file={dir}/prompts.jsonl ctx=16,32"),
    Bad("no file to write", "prompts"),
    Bad("no length", "prompts file={dir}/prompts.jsonl ctx=[]"),
    Bad("a length that is no number", "prompts file={dir}/prompts.jsonl ctx=[16,x]"),
    Bad("prompts where nothing can be written", "prompts file=/proc/prompts.jsonl"),
    Bad("no name for the engine", "read file={dir}/empty.txt name=m"),
    Bad("a file that does not exist", f"read file={{dir}}/nope.jsonl {ENGINE}"),
    Bad("an empty file", f"read file={{dir}}/empty.txt {ENGINE}"),
    Bad("a file that is no text", f"read file={{dir}}/bytes.txt {ENGINE}"),
    Bad("a line that is cut off", f"read file={{dir}}/cut.jsonl {ENGINE}"),
    Bad("prompts in place of log-probabilities", f"read file={{dir}}/prompts-again.jsonl {ENGINE}"),
    Bad("log-probabilities of other windows", f"read file={{dir}}/others.jsonl {ENGINE}"),
    Bad("a window twice, with other numbers", f"read file={{dir}}/twice.jsonl {ENGINE}"),
    Bad("an unknown dialect", f"fetch url=http://localhost:8000 dialect=vlm {ENGINE}"),
    Bad("an address that is none", f"fetch url=localhost:8000 dialect=vllm {ENGINE}"),
    Bad("no requests at the same time", f"fetch url=http://localhost:8000 dialect=vllm parallel=0 {ENGINE}"),
    Bad("no server there", f"fetch url=http://127.0.0.1:9 dialect=vllm retries=0 {ENGINE}"),
    Bad("a key that is not there", f"fetch url=http://localhost:8000 dialect=vllm key_variable=NO_KEY {ENGINE}"),
    Bad("echo without a BOS", f"fetch url=http://localhost:8000 dialect=llama_cpp_python served=m {ENGINE}"),
]
PRESETS = [
    Bad(f"a preset: {what}", f"--config-dir={{dir}}/own experiment={name}")
    for name, what in {
        "scan": "a bracket that is not closed",
        "tab": "a tab",
        "latin": "not UTF-8",
        "python": "a Python object",
        "twice": "a key twice",
        "list": "a list",
        "defaults": "defaults that are no list",
        "unpackaged": "without its first line",
        "number": "a number for a key",
        "unknown": "a mistyped key",
        "aliases": "aliases of aliases",
        "within": "an alias within itself",
        "endless": "ten megabytes",
    }.items()
]
CHECKPOINTS = [
    Bad(f"a checkpoint: {name.replace('_', ' ')}", f"model.path={{dir}}/{name}")
    for name in (*hostile.CONFIGS, *hostile.FILES, "pipe_config.json", "pipe_tokenizer.json", "pipe_model.safetensors")
]
HOSTILE = [
    Bad("documents nested without end", "data.path={dir}/deep.jsonl"),
    Bad("a number for a document", "data.path={dir}/number.jsonl"),
    Bad("a row that is a list", "data.path={dir}/row.jsonl"),
    Bad("half a character", "data.path={dir}/half.jsonl"),
    Bad("a pipe for a text", "data.path={dir}/pipe.txt"),
    Bad("factors nested without end", "method=longrope method.factors={dir}/factors_deep.json"),
    Bad("a factor of 400 digits", "method=longrope method.factors={dir}/factors_large.json"),
    Bad("words for factors", "method=longrope method.factors={dir}/factors_text.json"),
    Bad("a home of nobody", "results_dir='~nosuchuser/x'"),
    Bad("a relative package", "model.path=null model.package=.own"),
    Bad("a number beyond all tables", "seed=99999999999999999999"),
    Bad("null for a folder", "results_dir=null"),
    Bad("a list for a folder", "plots_dir=[a,b]"),
    Bad("a list for a label", "experiment_name=[a]"),
    Bad("a variable that is not set", "experiment_name=${oc.env:NOPE}"),
    Bad("an interpolation of itself", "experiment_name=${experiment_name}"),
    Bad("a glob that meets nothing", "-m ctx=glob(*)"),
    Bad("a range of no step", "-m ctx=range(2,8,0)"),
    Bad("a grid without end", "-m ctx=range(2,1000000000)"),
    Bad("a sweep's configuration asked for", "-m --cfg=job"),
    Bad("--resolve alone", "--resolve"),
    Bad("a launcher that is none", "-m hydra.launcher._target_=os.system"),
    Bad("Hydra's folder where nothing can be written", "hydra.run.dir=/proc/x"),
]
PLOT = [
    Bad("null for a list", "formats=null"),
    Bad("a format that is not known", "formats=svgz"),
    Bad("null for a folder", "results_dir=null"),
    Bad("a number for panels", "columns=5"),
]
TRAIN = [
    Bad("a preset that does not exist", "train=posee"),
    Bad("a mistyped key", "train.pose.target=8192"),
    Bad("a number for a group of keys", "train.pose=8192"),
    Bad("nothing for a group of keys", "train.long_ce=null"),
    Bad("a mistyped loss", "train.loss=longce"),
    Bad("a short context as long as the window", "train.loss=long_ce train.ctx=256"),
    Bad("positions that end before the window", "train.pose.target_ctx=256"),
    Bad("no number of steps", "train.steps=null"),
    Bad("steps beyond all bounds", "train.steps=99999999999999999999"),
    Bad("a rate beyond all bounds", "train.learning_rate=1e400"),
    Bad("no directory", "train.output_dir="),
    Bad("books without their names", "train.corpus={dir}/empty.txt"),
    Bad("names without books", "train.titles={dir}/empty.txt"),
    Bad("books that are not there", "train.corpus={dir}/nope.txt train.titles={dir}/nope.json"),
    Bad("a start that is no checkpoint", "train.init_from={dir}/void train.output_dir={dir}/trained"),
    Bad("a parameter out of its range", "train=drope method.share=2"),
    Bad("a modifier of evaluation", "method.query_scale=log_n"),
    Bad("a seed that is no number", "seed=abc"),
]

SECTIONS = {
    "Command line": COMMAND_LINE,
    "Values": VALUES,
    "Documents": DATA,
    "Models": MODELS,
    "A base": BASES,
    "Places and results": PLACES,
    "Presets of one's own": PRESETS,
    "Checkpoints with anything in them": CHECKPOINTS,
    "Whatever else": HOSTILE,
    "python -m harness.plot": PLOT,
    "python -m harness.collect": COLLECT,
    "python -m harness.export": EXPORT,
    "python -m harness.plot, long contexts": LONG_CONTEXT,
    "python -m harness.theory": THEORY,
    "python -m harness.train": TRAIN,
    "python -m harness.external": EXTERNAL,
}
OTHERS = {  # sections of commands of their own
    "python -m harness.plot": plot.main,
    "python -m harness.collect": collect.main,
    "python -m harness.export": export.main,
    "python -m harness.plot, long contexts": plot.main,
    "python -m harness.theory": theory.main,
    "python -m harness.train": train.main,
    "python -m harness.external": external.main,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A place with good inputs and bad ones."""
    place = Place(tmp_path_factory.mktemp("errors"))
    at = place.folder
    for name in ("void", "mixed", "loop"):
        (at / name).mkdir()
    (at / "empty.txt").touch()
    (at / "bytes.txt").write_bytes(b"\xff\xfe\x00text\xc3")
    (at / "texts.zip").write_bytes(b"PK")
    (at / "cut.txt.gz").write_bytes(gzip.compress(b"a text of some words")[:-9])
    (at / "comma.csv").write_text("text\nOne, two\n")
    (at / "loop" / "up").symlink_to(at / "loop")
    (at / "mixed" / "a.txt").write_text("text")
    (at / "mixed" / "b.jsonl").write_text('{"text": "text"}\n')
    asked = {"text": " ".join(f"w{i}" for i in range(30)), "none": "", "answer": " w1 w2 w3 w4 w5 w6 w7 w8"}
    (at / "asked.jsonl").write_text(json.dumps(asked) + "\n")
    (at / "mute.jsonl").write_text(json.dumps(asked | {"answer": ""}) + "\n")
    save_texts(at / "poison.jsonl", poison_at=3)
    (at / "cut.jsonl").write_text('{"id": "0123456789abcdef", "logpr')
    (at / "prompts-again.jsonl").write_text('{"id": "0123456789abcdef", "ids": [1, 2]}\n')
    (at / "others.jsonl").write_text('{"id": "0123456789abcdef", "logprobs": [null, -2.5]}\n')
    (at / "twice.jsonl").write_text("".join(f'{{"id": "0", "logprobs": [null, {v}]}}\n' for v in (-1.5, -2.5)))
    _bad_models(place)
    hostile.write(at, place.model)
    _results_without(at)
    record = at / "collected" / ".jobs" / "a1" / "sweep.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    with pytest.MonkeyPatch.context() as patch:
        for key in ("HARNESS_CACHE", "HF_HOME"):
            patch.setenv(key, place.environment[key])
        patch.setenv("PATH", "/nonexistent")  # no sbatch, no git
        yield place


def _results_without(at):
    """Results that lack what metrics of long contexts are made of."""
    long, wide = ([[math.nan, *[loss] * 11]] for loss in (3.0, 3.5))
    own = [cell(long, method="dca"), cell(long, method="yarn")]
    beside = {
        "long": [],
        "beyond": [short(wide, ctx=9)],
        "sampled": [short(wide, weight=2.5)],
        "other": [short(wide, dataset_fingerprint="other")],
        "whole": [short(wide)],
    }
    for name, others in beside.items():
        write(at / name, *own, *others)
    write(at / "short", short(wide))
    write(at / "plain", {"windows": own[0]["windows"]})


def _bad_models(place):
    at, good = place.folder, place.model
    for name in ("pickled", "truncated", "lacking", "code", "mute", "distributed"):
        shutil.copytree(good, at / name)
    _bad_checkpoints(at, good)
    (at / "distributed" / ".metadata").touch()
    (at / "pickled" / "model.safetensors").rename(at / "pickled" / "pytorch_model.bin")
    weights = at / "truncated" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    _drop_a_tensor(at / "lacking" / "model.safetensors")
    config = at / "code" / "config.json"
    brings = '{"auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}, "model_type": "own",'
    config.write_text(config.read_text().replace('"model_type": "llama",', "").replace("{", brings, 1))
    (at / "code" / "own.py").write_text("raise SystemExit('this code has run')")
    for file in at.glob("mute/tokenizer*"):
        file.unlink()
    tiny = BertConfig(vocab_size=96, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    BertForMaskedLM(tiny).save_pretrained(at / "bert")
    BertLMHeadModel(tiny).save_pretrained(at / "seeing")
    biased = tiny_config("falcon", alibi=True, multi_query=False)
    tiny_model(biased).save_pretrained(at / "biased")
    for file in good.glob("tokenizer*"):
        for folder in ("bert", "seeing", "biased"):
            shutil.copy(file, at / folder)
    Place(at / "elsewhere", poison_at=3).model.rename(at / "poisoned")


def _bad_checkpoints(at, good):
    """Weights, configuration and tokenizer that do not belong together."""
    changes = {
        "deeper": {"num_hidden_layers": 1},
        "wider": {"intermediate_size": 80},
        "padded": {"pad_token_id": 96},
        "smuggled": {},
        "parts": {},
    }
    for name, values in changes.items():
        shutil.copytree(good, at / name)
        config = json.loads((at / name / "config.json").read_text())
        (at / name / "config.json").write_text(json.dumps(config | values))
    for name, shard in (("smuggled", "weights.bin"), ("parts", "parts/1.safetensors")):
        (at / name / "model.safetensors").unlink()
        index = {"metadata": {}, "weight_map": {"model.norm.weight": shard}}
        (at / name / "model.safetensors.index.json").write_text(json.dumps(index))
    tiny_llama(vocab_size=48).save_pretrained(at / "foreign")
    for file in good.glob("tokenizer*"):
        shutil.copy(file, at / "foreign")
    shutil.copytree(good, at / "renamed")
    words = (at / "renamed" / "tokenizer.json").read_text()
    (at / "renamed" / "tokenizer.json").write_text(words.replace('"w17"', '"v17"'))
    (at / "adapter").mkdir()
    card = {"peft_type": "LORA", "base_model_name_or_path": "somebody/base"}
    (at / "adapter" / "adapter_config.json").write_text(json.dumps(card))


def _drop_a_tensor(file):
    from safetensors.torch import load_file, save_file

    tensors = load_file(file)
    del tensors["model.norm.weight"]
    save_file(tensors, file, metadata={"format": "pt"})


def attempt(main, arguments, monkeypatch, capsys):
    """The exit code of a command that runs in this process, and its last line of output."""
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capsys.readouterr()
    errors = [line for line in shown.err.splitlines() if line.startswith("error: ")]
    failures = [line for line in shown.out.splitlines() if line.startswith("FAILED")]
    assert "Traceback" not in shown.err
    (line,) = errors or failures
    return ended.value.code, line


@pytest.mark.parametrize("key", ["data.path", "model.path", "results_dir"])
@pytest.mark.parametrize(
    "name", ["runs/epoch=3", "it's/x.txt", "x#1.jsonl", "a/{b}.csv", "~/x.txt", "x[1].txt", "a&b.gz"]
)
def test_a_name_quoted_as_the_line_says_is_that_name(key, name):
    given = ["data=text", "model=hf", f"{key}={name}"]
    with initialize_config_module("harness.conf", version_base="1.3"):
        with pytest.raises(HydraException) as raised:
            compose("config", given)
        (quoted,) = shlex.split(cli.said_by(raised.value).split("; quote a value that is a name: ")[1])
        assert OmegaConf.select(compose("config", [*given[:2], quoted]), key) == name


def usual_overrides(place, overrides):
    """What makes a good cell, less what these overrides say themselves."""
    named = {o.partition("=")[0] for o in overrides}
    groups = tuple(f"{group}." for group in named & {"model", "data", "protocol"})
    return [o for o in [*place.overrides, "ctx=32"] if o.partition("=")[0] not in named and not o.startswith(groups)]


def message(place, section, bad, monkeypatch, capsys):
    """What a bad input gets, with the folder's name taken out."""
    overrides = bad.overrides.replace("{dir}", str(place.folder)).split()
    usual = usual_overrides(place, overrides)
    if section == "python -m harness.external":
        common = [o for o in usual if not o.startswith("engine.")]
        code, line = attempt(external.main, ["external", *overrides[:1], *common, *overrides[1:]], monkeypatch, capsys)
    elif section in OTHERS:
        code, line = attempt(OTHERS[section], [section.rpartition(".")[2], *overrides], monkeypatch, capsys)
    else:
        flags, given = [o for o in overrides if o.startswith("-")], [o for o in overrides if not o.startswith("-")]
        code, line = attempt(cli.main, ["harness", *flags, *usual, *given], monkeypatch, capsys)
    assert code == bad.code
    line = line.replace(shlex.join(usual), "...").replace(str(place.folder), "DIR")
    line = re.sub(r"Known: .*", "Known: ...", line)
    if bad in CHECKPOINTS + HOSTILE:  # the reason is a library's, in the words of its version
        line = re.sub(r"(cannot read [^:]*|cannot be read|is not JSON|describes no model): .*", r"\1: ...", line)
    return re.sub(r" \(traceback in .*\)", "", line).removeprefix("error: ")


def cases():
    return [(section, bad) for section, listed in SECTIONS.items() for bad in listed]


@pytest.fixture(scope="module")
def page():
    """The messages of this run; written to the page where that is asked for."""
    found: dict[str, dict[Bad, str]] = {section: {} for section in SECTIONS}
    yield found
    if os.environ.get("HARNESS_WRITE_DOCS") and all(len(found[s]) == len(SECTIONS[s]) for s in SECTIONS):
        PAGE.write_text(render(found))


def row(bad, text):
    shown = " ".join("..." if o.startswith("data.path={dir}/poison") else o for o in bad.overrides.split())
    shown = shown.replace("{dir}", "DIR")
    return f"| {bad.what} | `{shown}` | {bad.code} | {text.replace('|', chr(92) + '|')} |"


def render(found):
    lines = [
        "# What bad inputs get",
        "",
        "One line on stderr and exit code 2 for a mistake, before the first cell; exit code 1 where a cell failed",
        "(in the report at the end, its traceback in its own log). Every line of these tables was tried: the page",
        "is written by the test that tries them, which fails where a message is not the one below.",
    ]
    for section, messages in found.items():
        lines += [
            "",
            f"## {section}",
            "",
            "| what is wrong | given | exit code | message |",
            "| --- | --- | --- | --- |",
        ]
        lines += [row(bad, text) for bad, text in messages.items()]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(("section", "bad"), cases(), ids=lambda value: getattr(value, "what", value))
def test_a_bad_input_gets_the_line_that_the_page_says(folder, page, section, bad, monkeypatch, capsys):
    if "cuda" in bad.overrides and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    text = page[section][bad] = message(folder, section, bad, monkeypatch, capsys)
    assert "\n" not in text
    if not os.environ.get("HARNESS_WRITE_DOCS"):
        assert row(bad, text) in PAGE.read_text().splitlines()


def test_code_that_a_checkpoint_brings_did_not_run(folder):
    assert not list(folder.folder.rglob("modules/transformers_modules/**/own.py"))


def test_nothing_was_written_outside(folder):
    assert not (folder.folder / "results").exists() or not list((folder.folder / "results").rglob("*.parquet"))
