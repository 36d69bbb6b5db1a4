"""One search from its configuration to its files: one model load, one stage a length."""

import dataclasses
import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm.auto import tqdm

from harness import methods
from harness.cells.device import placement
from harness.data.documents import DocumentSet
from harness.engine.ready import ready
from harness.figures import search as figures
from harness.figures.files import save
from harness.longrope_search import progress, result
from harness.longrope_search.config import SearchConfig, parameters
from harness.longrope_search.evaluated import FOUND, compare
from harness.longrope_search.evaluations import Evaluations, Record
from harness.longrope_search.evolution import Individual, evolve
from harness.longrope_search.known import Known, know
from harness.longrope_search.objective import Objective, takes_rows
from harness.longrope_search.result import Found
from harness.longrope_search.space import SEED_METHODS, Genome, Space, seeds
from harness.methods.base import Method
from harness.results import parquet, store
from harness.storage.leases import Leases

log = logging.getLogger(__name__)
VERSION = 2  # of what a search does: raised when the same recipe would take another course
GPU_BATCH = 16  # individuals


class Stage(NamedTuple):
    """The search at one length, finished."""

    ctx: int  # tokens
    found: Found
    individuals: list[Individual]
    content: dict[str, object]  # of the factors file


def search(config: SearchConfig) -> list[Path]:
    """Search at every length and write factors, individuals and figures; returns the files, the factors first.

    Raises UserError for a mistake in the configuration, StorageError where nothing can be written.
    """
    known = know(config)
    for ctx in config.ctx:
        progress.claim(_folder(config, ctx), _recipe(config, known, ctx))
    engine, trained, device = ready(
        config.model, config.engine, *placement(config.engine), identified=known.identity.model_fingerprint
    )
    together = takes_rows(engine, trained)
    stages, files = [], []
    with Leases() as leases:
        for ctx in config.ctx:
            judge = Objective(
                engine, trained, known.judged[ctx], ctx,
                dataclasses.replace(config.protocol, bos=known.identity.bos),
                config.seed, device, known.header.prefix_token_id, together, known.search_set.shorter,
            )  # fmt: skip
            stage = _stage(config, known, judge, leases)
            stages.append(stage.content | _evaluated(config, known, judge, stage, leases))
            files += _write_stage(config, stage, seeds(known.spaces[ctx], ctx))
    factors = config.output_dir / "factors.json"
    result.write_json(factors, _about(config, known) | {"stages": stages})
    return [factors, *files]


def _folder(config: SearchConfig, ctx: int) -> Path:
    return config.output_dir / f"ctx{ctx}"


def _recipe(config: SearchConfig, known: Known, ctx: int) -> dict[str, object]:
    """All that determines the course of a search at one length, and nothing that does not."""
    protocol = dataclasses.replace(config.protocol, bos=known.identity.bos)
    return {
        "version": VERSION,
        "model": known.identity.model_fingerprint,
        "sliding_window": config.model.sliding_window,
        "geometry": known.geometry.values,
        "ctx": ctx,
        "search": parameters(config.search) | {"batch": _batch(config)},
        "seed": config.seed,
        "protocol": [protocol.name, protocol.parameters()],
        "search_set": known.identity.dataset_fingerprint,
        "dtype": known.identity.dtype,
    } | ({} if known.search_set.shorter == "error" else {"shorter": known.search_set.shorter})


def _batch(config: SearchConfig) -> int:
    """Individuals judged together. They save a GPU launches; a CPU is busy with one, and a kill costs a batch."""
    return config.search.batch or (1 if placement(config.engine).device == "cpu" else GPU_BATCH)


def _stage(config: SearchConfig, known: Known, judge: Objective, leases: Leases) -> Stage:
    """Search at one length."""
    folder, space = _folder(config, judge.ctx), known.spaces[judge.ctx]
    evaluations = Evaluations(folder / "evaluations", leases)
    baselines = {name: methods.build(name, {}, known.geometry, judge.ctx) for name in SEED_METHODS}
    yardsticks = evaluations.get([baselines], lambda batch: [{"nll": nll} for nll in judge.nll(batch)])
    individuals = progress.load(folder, config.search.iterations)
    spec, size = config.search, _batch(config)
    total = spec.population + spec.iterations * (spec.mutations + spec.crossovers)
    with tqdm(total=total, desc=f"search ctx={judge.ctx}", unit="eval", dynamic_ncols=True, mininterval=1.0) as bar:
        bar.update(len(individuals))

        def evaluate(genomes: Sequence[Genome]) -> list[float]:
            paid = {one.genome.key: one.nll for one in individuals}
            new = [(key, genome) for key, genome in {g.key: g for g in genomes}.items() if key not in paid]
            batches = [dict(new[begin : begin + size]) for begin in range(0, len(new), size)]
            made = evaluations.get(batches, lambda batch: _measure(judge, space, batch, spec.temperature), bar.update)
            bar.update(len(genomes) - len(new))
            losses = paid | {key: record["nll"] for key, record in made.items()}
            return [losses[genome.key] for genome in genomes]

        for born in evolve(space, seeds(space, judge.ctx), spec, evaluate, config.seed, individuals):
            individuals += born
            progress.save(folder, individuals)
            bar.set_postfix_str(f"generation {born[0].generation}, best {_best_perplexity(individuals):.4f}")
    found = result.found(individuals, {name: record["nll"] for name, record in yardsticks.items()})
    asked = {"target_ctx": judge.ctx, "factor": space.factor, "temperature": spec.temperature}
    asked |= {} if spec.objective == "perplexity" else {"objective": spec.objective}
    work = {"evaluations": len(individuals), "recipe": _recipe(config, known, judge.ctx)}
    return Stage(judge.ctx, found, individuals, {**asked, **found._asdict(), **work})


def _evaluated(config: SearchConfig, known: Known, judge: Objective, stage: Stage, leases: Leases) -> dict[str, object]:
    """What was found at a length beside the search's seeds, on the evaluation documents; {} where these do not do."""
    documents = known.evaluated.get(stage.ctx)
    if documents is None:
        return {}
    space, temperature, found = known.spaces[stage.ctx], config.search.temperature, stage.found
    winner = Genome(tuple(found.long_factor), found.unscaled_prefix, found.critical_pair)
    named: dict[str, Method] = {FOUND: winner.method(space.factor, temperature)}
    named |= {f"{name} factors": g.method(space.factor, temperature) for name, g in seeds(space, stage.ctx).items()}
    named |= {f"method={name}": methods.build(name, {}, known.geometry, stage.ctx) for name in SEED_METHODS}
    on = judge._replace(documents=documents, shorter=known.evaluation_set.shorter)
    evaluations = Evaluations(_folder(config, stage.ctx) / "evaluations", leases)
    return {"evaluated": compare(on, named, evaluations, known.evaluation_set.fingerprint)}


def _measure(judge: Objective, space: Space, genomes: Sequence[Genome], temperature: str | float) -> list[Record]:
    assert all(space.admits(genome) for genome in genomes), genomes
    started = time.monotonic()
    losses = judge.nll([genome.method(space.factor, temperature) for genome in genomes])
    seconds = (time.monotonic() - started) / len(genomes)
    return [
        Record(
            factors=genome.factors,
            unscaled_prefix=genome.unscaled_prefix,
            critical_pair=genome.critical_pair,
            nll=nll,
            seconds=seconds,
        )
        for genome, nll in zip(genomes, losses, strict=True)
    ]


def _best_perplexity(individuals: Sequence[Individual]) -> float:
    return math.exp(min(one.nll for one in individuals))


def _about(config: SearchConfig, known: Known) -> dict[str, object]:
    """What the factors of all stages belong to."""
    about: dict[str, object] = {
        "model": config.model.name,
        "model_fingerprint": known.identity.model_fingerprint,
        **known.geometry.values,
        "search_documents": _named(known.search_set),
        "evaluation_documents": _named(known.evaluation_set),
    }
    if not config.search.finetuned:
        about["short_factor"] = [1.0] * (known.geometry.rotary_dim // 2)
    return about


def _named(documents: DocumentSet) -> dict[str, object]:
    return {
        "data": documents.name,
        "fingerprint": documents.fingerprint,
        "selection": documents.selection,
        "documents": [document.name for document in documents.documents],
    }


def _write_stage(config: SearchConfig, stage: Stage, started_from: dict[str, Genome]) -> list[Path]:
    """The parquet of individuals and the two figures of one length."""
    table = result.table(stage.individuals)
    individuals = _folder(config, stage.ctx) / "individuals.parquet"
    parquet.write_frame(individuals, table)
    aim = ", answers to needles" if config.search.objective == "needle" else ""
    title = f"{config.model.name}, ctx={stage.ctx}{aim}"
    curves = {name: genome.factors for name, genome in started_from.items()}
    stem = f"search_{store.safe(config.model.name)}_{stage.ctx}"
    drawn = [
        (figures.progress(table, stage.found.methods, title), f"{stem}_progress"),
        (figures.factors(stage.found.long_factor, curves, title), f"{stem}_factors"),
    ]
    return [individuals, *(path for figure, name in drawn for path in save(figure, config.plots_dir / name))]
