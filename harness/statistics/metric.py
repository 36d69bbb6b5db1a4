"""What a metric is: rows that are made from the tables of results, and the ratio of sums over documents that they give.

Everything that is said of perplexity (its interval, its paired ratio, a comparison before and after, a curve) is said
of every metric from its rows. They are those of the windows table, or have its columns of the cell and the document,
`window`, `weight` and the two that the metric names. All metrics stand in `harness.statistics.metrics.METRICS`.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd

from harness.errors import UserError, unknown

log = logging.getLogger(__name__)

Load = Callable[[str], pd.DataFrame]  # rows of a results table by its name; UserError where there are none
Scale = Literal["exp", "ratio", "difference"]
Together = Literal["union", "intersection"]
SHORT = "nll_short_sum"  # an optional column of a metric's rows: nats of the same tokens in short windows
NOTE = "note"  # an optional column of a metric's rows: what its counts count, in words


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the metrics of long contexts leave open; those that do not need it ignore it."""

    evaluators: tuple[str, ...] = ("dca", "yarn")  # whose losses choose the key tokens: METHOD, MODEL or MODEL/METHOD
    together: Together = "union"  # of the key tokens of several evaluators
    min_gain: float = 2.0  # nats: a key token's loss falls by more with the long context (alpha)
    max_nll: float = 2.0  # nats: and is smaller than this there (-beta)
    order: int = 2  # of far copies: tokens that must have stood before
    judge: Load | None = None  # where the evaluators' cells are read; None: where the others are
    near: int | None = None  # tokens: a far copy has no occurrence so near; None: the length of the short windows

    def __post_init__(self) -> None:
        if isinstance(self.evaluators, str):
            object.__setattr__(self, "evaluators", (self.evaluators,))
        if not isinstance(self.evaluators, list | tuple) or not all(isinstance(one, str) for one in self.evaluators):
            raise UserError(f"evaluators must be names of methods or models, got {self.evaluators!r}.")
        if not self.evaluators:
            raise UserError("evaluators must name at least one method or model, got none.")
        for key in ("min_gain", "max_nll"):
            if type(getattr(self, key)) not in (int, float):
                raise UserError(f"{key} must be a number (nats), got {getattr(self, key)!r}.")
        if self.together not in get_args(Together):
            raise unknown("way of taking evaluators together", str(self.together), get_args(Together))
        if type(self.order) is not int or self.order < 1:
            raise UserError(f"order of far copies must be an integer >= 1 (tokens), got {self.order!r}.")
        if self.near is not None and (type(self.near) is not int or self.near < 1):
            raise UserError(f"near must be null or an integer >= 1 (tokens), got {self.near!r}.")


PLAIN = Choice()


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number of a cell: a ratio of sums over documents, sum of `total` over sum of `count`, on a scale.

    The scale: "exp", the value is exp of the ratio, and two values are compared by their quotient; "ratio", the value
    is the ratio, which is positive, compared by the quotient; "difference", the value is the ratio, of any sign,
    compared by the difference.
    """

    name: str  # in commands, and of its column in tables
    title: str  # on axes and above tables
    rows: Callable[[Load, Choice], pd.DataFrame]  # a row a window, or a row a document; UserError where it cannot be
    scale: Scale = "exp"
    total: str = "nll_sum"
    count: str = "num_scored"
    higher_is_better: bool = False
    even: float | None = None  # the value that is neither good nor bad, where there is one
    of_tokens: bool = False  # made from token rows, where cells stand beside others: short windows, evaluators
    of_positions: bool = False  # its rows are bins of positions, as those of the positions table
    unit: str = "document"  # of sampling, as tables name it
    of_shares: bool = False  # a document's value is a share of few things: found or not
    of_text: bool = False  # what is counted is not in every window: there is no mean of windows

    @property
    def neutral(self) -> float:
        """What a comparison of two equal values gives: 1 of quotients, 0 of differences."""
        return 0.0 if self.scale == "difference" else 1.0

    def value(self, combined: float) -> float:
        """A value, or a comparison of two, from what intervals are made of."""
        return combined if self.scale == "difference" else float(np.exp(combined))

    def change(self, comparison: float) -> float:
        """How much worse a value is than another by their comparison: relative, or in units of a difference."""
        change = comparison - self.neutral
        return -change if self.higher_is_better else change


def of_texts(load: Load) -> pd.DataFrame:
    """The windows of cells that hide no needles, others named in a warning; UserError where all of them do.

    A cell of needles holds every answer twice, after the right number and after a wrong one: a mean over both says
    nothing.
    """
    rows = load("windows")
    hidden = rows["depth"].notna() if "depth" in rows else pd.Series(False, index=rows.index)
    cells = rows.loc[hidden, "cell_id"].nunique()
    if cells and hidden.all():
        raise UserError(f"all {cells} cells hide needles, right and wrong answers; {_OF_NEEDLES}.")
    if cells:
        log.warning("left out: cells that hide needles (%d); %s", cells, _OF_NEEDLES)
    return rows[~hidden]


_OF_NEEDLES = "they are measured by metric needle_gain or needle_accuracy"
PERPLEXITY = Metric(name="perplexity", title="perplexity", rows=lambda load, choice: of_texts(load))

LOSS = Metric(  # of the figure of positions, no metric of cells
    name="nll", title="loss (nats a token)", rows=lambda load, choice: load("positions"), scale="difference"
)


def _bits(load: Load, choice: Choice) -> pd.DataFrame:
    rows = of_texts(load)
    return rows.assign(bits=rows["nll_sum"] / np.log(2))


def _with_words(load: Load, choice: Choice) -> pd.DataFrame:
    rows = of_texts(load)
    if "num_words" not in rows or rows["num_words"].isna().any():
        raise UserError("word_perplexity needs cells whose words are counted; compute those of before with force=true.")
    return rows


BYTE_PERPLEXITY = Metric(
    name="byte_perplexity",
    title="perplexity of a byte",
    rows=lambda load, choice: of_texts(load),
    count="num_bytes",
    of_text=True,
)
WORD_PERPLEXITY = Metric(
    name="word_perplexity", title="perplexity of a word", rows=_with_words, count="num_words", of_text=True
)
BITS_PER_BYTE = Metric(
    name="bits_per_byte",
    title="bits per byte",
    rows=_bits,
    scale="ratio",
    total="bits",
    count="num_bytes",
    of_text=True,
)
