"""Token rows side by side: each cell of long windows, and the short windows of the same tokens.

Long: `single_pass`, one pass over the first L tokens. Short: `sliding` without BOS, windows of K + S tokens within the
trained length of which the last S are scored, all of them, so that every token from the K-th on has K to K + S - 1
tokens before it. Both with save_tokens=true.
"""

import json
import logging
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import pandas as pd

from harness.errors import UserError
from harness.statistics.lines import label
from harness.statistics.lines import tokens as as_length
from harness.statistics.metric import Load
from harness.statistics.paired import cell_table

log = logging.getLogger(__name__)
# Of a long cell and its short windows.
SAME = ["model", "model_revision", "model_fingerprint", "dataset", "dataset_fingerprint", "dtype"]
TOKEN = ["document_index", "token"]
PRESET = "python -m harness -m experiment=long_context makes both"
Cell = dict[Hashable, Any]  # the columns of a cell


class Lacking(UserError):
    """A cell does not have what a metric is made of, where others may."""


class Pair(NamedTuple):
    """A long cell and its short windows; `losses`: a row a token of both, from the K-th on."""

    cell: Cell
    short: Cell
    losses: pd.DataFrame  # columns of token rows, nll and nll_short in float64 nats

    @property
    def before(self) -> int:
        """K, the tokens before each at least."""
        return context_before(self.short)


def context_before(short: Cell) -> int:
    """K of a cell of short windows, in tokens."""
    return int(short["ctx"] - short["stride"])


@dataclass(frozen=True)
class TokenLosses:
    """The cells of a set of results that kept the losses of their tokens."""

    cells: pd.DataFrame  # identifying columns, one line a cell
    tokens: dict[str, pd.DataFrame]  # token rows by cell_id
    sampled: frozenset[str]  # cells of which some windows were scored only

    @cached_property
    def long(self) -> list[Cell]:
        """Cells of one pass. Raises UserError where there are none."""
        found = self.cells[(self.cells["protocol"] == "single_pass") & self._kept]
        if found.empty:
            raise UserError(
                "Metrics of long contexts need cells of protocol=single_pass with save_tokens=true, and there are "
                f"none ({PRESET})."
            )
        return found.to_dict("records")

    @cached_property
    def short(self) -> pd.DataFrame:
        """Cells of short windows, one line each. Raises UserError where there are none that serve."""
        policy = self.cells["protocol_params"].map(lambda text: json.loads(text).get("bos"))
        windows = self.cells[(self.cells["protocol"] == "sliding") & (policy == "none")]
        windows = windows[windows["stride"] < windows["ctx"]]
        if windows.empty:
            raise UserError(
                "There are no short windows to compare with: run protocol=sliding protocol.bos=none protocol.stride=S "
                f"protocol.max_windows=null ctx=K+S save_tokens=true on the same documents ({PRESET})."
            )
        trained = windows["original_max_position_embeddings"]
        within = windows[~(windows["ctx"] > trained)]
        if within.empty:
            raise UserError(
                f"Short windows must lie within the trained length of {int(trained.max())} tokens, got "
                f"ctx={int(windows['ctx'].min())}."
            )
        whole = within[~within["cell_id"].isin(self.sampled)]
        if whole.empty:
            raise UserError(
                "All short windows must be scored (protocol.max_windows=null); those of "
                f"{named(within.iloc[0].to_dict())} are a sample."
            )
        kept = whole[whole["cell_id"].isin(self.tokens.keys())]
        if kept.empty:
            raise UserError(
                f"The short windows of {named(whole.iloc[0].to_dict())} have no losses of tokens: run them with "
                "save_tokens=true."
            )
        return kept

    @property
    def _kept(self) -> pd.Series:
        return self.cells["cell_id"].isin(self.tokens.keys())

    def rows(self, cell: Cell) -> pd.DataFrame:
        """Token rows of a cell, losses in float64."""
        return self.tokens[cell["cell_id"]].astype({"nll": float}).reset_index(drop=True)

    @cached_property
    def _lines(self) -> dict[str, set[str]]:
        return {str(i): set(names) for i, names in label(self.cells).groupby("cell_id")["curve"]}

    def lines(self, cell: Cell) -> set[str]:
        """Names of the lines that a cell lies on."""
        return self._lines[cell["cell_id"]]

    def short_of(self, cell: Cell) -> Cell:
        """The short windows with most context of a long cell: under its own method, or of the model as it is (`none`).

        Raises UserError where there are none on the same documents.
        """
        alike = self.short[(self.short[SAME].fillna("") == pd.Series(cell)[SAME].fillna("")).all(axis=1)]
        near = {one["cell_id"]: _nearness(cell, one) for one in alike.to_dict("records")}
        nearest = min((n for n in near.values() if n is not None), default=None)
        found = [one for one in alike.to_dict("records") if nearest is not None and near[one["cell_id"]] == nearest]
        if not found:
            known = sorted({named(one) for one in self.short.to_dict("records")})
            raise Lacking(
                f"There are no short windows on the documents of {named(cell)}; there are: {'; '.join(known)}."
            )
        return max(found, key=lambda one: (context_before(one), one["ctx"], one["cell_id"]))

    def pair(self, cell: Cell) -> Pair:
        """A long cell beside its short windows. Raises UserError where it has none."""
        short = self.short_of(cell)
        beside = self.tokens[short["cell_id"]]
        beside = beside.loc[beside["token"] >= context_before(short), [*TOKEN, "nll"]].astype({"nll": float})
        losses = self.rows(cell).merge(beside, on=TOKEN, suffixes=("", "_short"))
        if losses.empty:
            raise Lacking(f"{named(cell)} has no token behind the {context_before(short)} of its short windows.")
        return Pair(cell, short, losses)

    def beside(self, cell: Cell) -> pd.DataFrame:
        """Token rows of a cell with `nll_short`; NaN where there is no short window of a token."""
        rows = self.rows(cell)
        try:
            losses = self.pair(cell).losses
        except UserError:
            return rows.assign(nll_short=float("nan"))
        return rows.merge(losses[[*TOKEN, "nll_short"]], on=TOKEN, how="left")


def _nearness(long: Cell, short: Cell) -> int | None:
    """0: under the very method; 1: under that which its factor gives at this length; 2: as it is; None: another."""
    if short["method"] == long["method"]:
        if short["method_params"] == long["method_params"]:
            return 0
        ours, theirs = (_settings(one) for one in (long, short))
        if ours == theirs and _is_automatic(long) and _is_automatic(short):
            return 1
    return 2 if short["method"] == "none" else None


def _settings(cell: Cell) -> dict[str, Any]:
    """The parameters of its method without the factor."""
    return {key: value for key, value in json.loads(cell["method_params"]).items() if key != "factor"}


def _is_automatic(cell: Cell) -> bool:
    """Whether its factor follows from its length."""
    return bool(cell["factor"] == max(1.0, cell["ctx"] / cell["original_max_position_embeddings"]))


def read(load: Load) -> TokenLosses:
    """The tables of `load` as they are needed here. Raises UserError where no token rows were kept."""
    windows, rows = load("windows"), token_rows(load)
    sampled = frozenset(windows.loc[windows["weight"] != 1, "cell_id"])
    return TokenLosses(cell_table(windows), {str(i): own for i, own in rows.groupby("cell_id", sort=False)}, sampled)


def token_rows(load: Load) -> pd.DataFrame:
    """The tokens table. Raises UserError that says how to get one."""
    try:
        return load("tokens")
    except UserError as error:
        raise UserError(f"Metrics of long contexts need token rows: run with save_tokens=true; {error}") from None


def of_each(cells: Iterable[Cell], rows: Callable[[Cell], pd.DataFrame]) -> pd.DataFrame:
    """The rows of all cells; one that is Lacking is left out with a warning.

    Raises the first such error where all are.
    """
    found, errors = [], []
    for cell in cells:
        try:
            found.append(rows(cell))
        except Lacking as error:
            errors.append(error)
    if not found:
        raise errors[0]
    if errors:
        others = f" ({len(errors) - 1} more like it)" if len(errors) > 1 else ""
        log.warning("left out: %s%s", errors[0], others)
    return pd.concat(found, ignore_index=True)


def named(cell: Cell) -> str:
    """A cell in one phrase: reference dca ctx 4k on sotu 1f00ab34."""
    documents = f"{cell['dataset']} {str(cell['dataset_fingerprint'])[:8]}"
    return f"{cell['model']} {cell['method']} ctx {as_length(cell['ctx'])} on {documents}"


def document_rows(cell: Cell, kept: pd.DataFrame, note: str, **sums: pd.Series) -> pd.DataFrame:
    """A metric's rows of one cell, one a document that has any of the `kept` tokens: their count, and sums by name.

    kept: some of the cell's token rows. A sum with an unknown loss in it is NaN.
    """
    document = [kept["document_index"], kept["document"]]
    values = pd.DataFrame(sums)
    rows = values.groupby(document, sort=True).sum().mask(values.isna().groupby(document, sort=True).any())
    rows = rows.assign(num_scored=kept.groupby(document, sort=True).size()).reset_index()
    return rows.assign(**{str(k): v for k, v in cell.items()}, window=0, weight=1.0, note=note)
