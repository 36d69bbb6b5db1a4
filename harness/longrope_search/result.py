"""What a search hands out: the table of its individuals, and the factors file that method=longrope reads."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from harness.longrope_search.evolution import Individual, best
from harness.storage.files import write_text


def table(individuals: Sequence[Individual]) -> pd.DataFrame:
    """One line an individual, in the order of the search.

    Columns: `evaluation` (from 1), `generation`, `origin`, `nll` (nats a token), `perplexity`, `best_perplexity`
    (so far), `unscaled_prefix` (tokens), `critical_pair`, `factors` (one a frequency).
    """
    frame = pd.DataFrame(
        {
            "evaluation": np.arange(1, len(individuals) + 1),
            "generation": [one.generation for one in individuals],
            "origin": [one.origin for one in individuals],
            "nll": [one.nll for one in individuals],
            "unscaled_prefix": [one.genome.unscaled_prefix for one in individuals],
            "critical_pair": pd.array([one.genome.critical_pair for one in individuals], dtype="Int64"),
            "factors": [list(one.genome.factors) for one in individuals],
        }
    )
    perplexity = np.exp(frame["nll"])
    return frame.assign(perplexity=perplexity, best_perplexity=perplexity.cummin())


class Found(NamedTuple):
    """The best individual at one length, what it is compared to, and how the search got there."""

    long_factor: list[float]  # (rotary_dim // 2,)
    unscaled_prefix: int  # tokens
    critical_pair: int | None
    perplexity: float
    found_in_generation: int
    seeds: dict[str, float]  # perplexities of the individuals that the search began with
    methods: dict[str, float]  # perplexities of the seeds' methods as the harness runs them, own temperature and all
    history: dict[str, list[float]]  # after each generation: evaluations so far, the best perplexity


def found(individuals: Sequence[Individual], methods_nll: Mapping[str, float]) -> Found:
    """What was found by all these individuals; methods_nll: losses in nats a token of the seeds' methods."""
    winner = best(individuals, 1)[0]
    history = table(individuals).groupby("generation").agg({"evaluation": "max", "best_perplexity": "min"})
    return Found(
        long_factor=list(winner.genome.factors),
        unscaled_prefix=winner.genome.unscaled_prefix,
        critical_pair=winner.genome.critical_pair,
        perplexity=math.exp(winner.nll),
        found_in_generation=winner.generation,
        seeds={one.origin: math.exp(one.nll) for one in individuals if one.origin not in ("mutation", "crossover")},
        methods={name: math.exp(nll) for name, nll in methods_nll.items()},
        history={str(name): values for name, values in history.reset_index().to_dict("list").items()},
    )


def summary(content: Mapping[str, Any]) -> str:
    """Of a factors file: the perplexity of what was found at each length beside what the search began with."""
    lines = [
        {"ctx": stage["target_ctx"], "found": stage["perplexity"]}
        | {f"{name} factors": value for name, value in stage["seeds"].items()}
        | {f"method={name}": value for name, value in stage["methods"].items()}
        for stage in content["stages"]
    ]
    return pd.DataFrame(lines).set_index("ctx").T.to_string(float_format="{:.4g}".format)


def write_json(file: Path, content: Mapping[str, object]) -> None:
    """Write readable JSON atomically, lists of numbers on one line each."""
    write_text(file, _text(content, 0) + "\n")


def _text(value: object, depth: int) -> str:
    inner, outer = "\n" + " " * (depth + 1), "\n" + " " * depth
    if isinstance(value, dict) and value:
        lines = [f"{json.dumps(key)}: {_text(item, depth + 1)}" for key, item in value.items()]
        return "{" + inner + f",{inner}".join(lines) + outer + "}"
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return "[" + inner + f",{inner}".join(_text(item, depth + 1) for item in value) + outer + "]"
    return json.dumps(value, allow_nan=False)
