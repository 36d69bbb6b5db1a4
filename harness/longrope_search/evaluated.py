"""What a search found beside what it began with, on the evaluation documents: by these no individual was chosen."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from harness.longrope_search.evaluations import Evaluations, Record
from harness.longrope_search.objective import Objective
from harness.methods.base import Method
from harness.statistics.intervals import interval

FOUND = "found"  # what the others are compared with
Sums = list[tuple[float, float]]  # by document: nats, and tokens (their weights)


class Beside(NamedTuple):
    """One competitor on the evaluation documents."""

    perplexity: float  # token aggregate
    found_over_it: float  # the found factors' perplexity over this one, paired over documents
    low: float | None  # 95 % limits; None where there are too few documents
    high: float | None


def compare(
    judge: Objective, named: Mapping[str, Method], evaluations: Evaluations, fingerprint: str
) -> dict[str, dict[str, Any]]:
    """The values of `Beside` by name, the found factors (`named[FOUND]`) first; paid once, as evaluations are.

    judge: over the evaluation documents; fingerprint: of these. Raises NonFiniteLoss, StorageError.
    """

    def measure(methods: Sequence[Method]) -> list[Record]:
        return [Record(nll=_mean(sums), documents=sums) for sums in judge.sums(methods)]

    keyed = {f"{name} on {fingerprint}, {method!r}": method for name, method in named.items()}
    records = evaluations.get([keyed], measure)
    sums = {name: records[key]["documents"] for name, key in zip(named, keyed, strict=True)}
    return {name: _beside(sums[FOUND], sums[name])._asdict() for name in sorted(sums, key=lambda name: name != FOUND)}


def _mean(sums: Sums) -> float:
    return math.fsum(nats for nats, _ in sums) / math.fsum(tokens for _, tokens in sums)


def _beside(found: Sums, other: Sums) -> Beside:
    both = np.array([found, other])  # (2, documents, 2)
    over = interval(both[:, :, 0].T, both[:, :, 1].T, np.array([1.0, -1.0]))
    low, high = (None if math.isnan(limit) else math.exp(limit) for limit in over[1:])
    return Beside(math.exp(_mean(other)), math.exp(over.value), low, high)


def table(content: Mapping[str, Any]) -> str | None:
    """Of a factors file: perplexities on the evaluation documents, and the ratios of what was found; None: of none."""
    columns: dict[str, dict[str, str]] = {}
    for stage in content["stages"]:
        for name, values in (stage.get("evaluated") or {}).items():
            beside = Beside(**values)
            columns.setdefault(f"ctx {stage['target_ctx']}", {})[name] = f"{beside.perplexity:.4g}"
            if name != FOUND:
                columns.setdefault(f"found / it, ctx {stage['target_ctx']}", {})[name] = _ratio(beside)
    return pd.DataFrame(columns).fillna("").to_string() if columns else None


def _ratio(beside: Beside) -> str:
    limits = "" if beside.low is None else f" [{beside.low:.4f}, {beside.high:.4f}]"
    return f"{beside.found_over_it:.4f}{limits}"
