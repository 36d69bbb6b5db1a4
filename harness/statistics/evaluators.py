"""Evaluators: the cells whose losses say which tokens are key tokens for all others."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.errors import UserError, unknown
from harness.statistics.lines import tokens as as_length
from harness.statistics.metric import Choice
from harness.statistics.spans import inside, merged, spans
from harness.statistics.token_losses import TOKEN, Cell, Lacking, TokenLosses

Flags = NDArray[np.bool_]


def is_key(losses: pd.DataFrame, choice: Choice) -> Flags:
    """Which tokens an evaluator's own losses make key tokens, (num_tokens,); losses: `nll` and `nll_short`, nats.

    The loss falls by more than `min_gain` from the short windows to the long one, and is less than `max_nll` there. A
    token without a short window is none.
    """
    fell = losses["nll_short"] - losses["nll"] > choice.min_gain
    return (fell & (losses["nll"] < choice.max_nll)).to_numpy()


@dataclass(frozen=True)
class Evaluators:
    """The cells of the evaluators, and what they choose."""

    losses: TokenLosses
    choice: Choice
    _masks: dict[str, Flags] = field(default_factory=dict)  # by cell_id, of all its rows

    @property
    def names(self) -> str:
        """`dca or yarn`: as they are taken together."""
        return (" or " if self.choice.together == "union" else " and ").join(self.choice.evaluators)

    def key_tokens(self, cell: Cell, rows: pd.DataFrame) -> Flags:
        """Which tokens of a long cell, (num_tokens,), are key tokens by the evaluators together. Raises UserError."""
        masks = [self._by(cell, rows, self._of(cell, name)) for name in self.choice.evaluators]
        return (np.logical_or if self.choice.together == "union" else np.logical_and).reduce(masks)

    def _of(self, cell: Cell, name: str) -> Cell:
        """The evaluator's cell on the same text: of the same model and length where it is named by its method."""
        cells = self.losses.long
        model, _, method = name.rpartition("/")
        methods, models = {c["method"] for c in cells}, {c["model"] for c in cells}
        if not model and method in models - methods:
            model, method = method, ""
        found = [
            c
            for c in cells
            if c["model"] == (model or cell["model"])
            and method in ("", c["method"])
            and c["dataset"] == cell["dataset"]
        ]
        if not found:
            known = {*methods, *models, *(f"{c['model']}/{c['method']}" for c in cells)}
            if name in known:
                raise Lacking(f"The evaluator {name} has no cell of {model or cell['model']} on {cell['dataset']}.")
            raise unknown("evaluator", name, sorted(known))
        found = [c for c in found if c["dataset_fingerprint"] == cell["dataset_fingerprint"]] or found
        same = [c for c in found if c["ctx"] == cell["ctx"]]
        if not same and found[0]["model"] == cell["model"]:
            raise Lacking(f"The evaluator {name} has no cell of ctx {as_length(cell['ctx'])} on {cell['dataset']}.")
        longest = max(c["ctx"] for c in found)
        return self._only(name, same or [c for c in found if c["ctx"] == longest])

    def _only(self, name: str, found: list[Cell]) -> Cell:
        """The one cell of an evaluator; of several that with the method's parameters as they are by default."""
        lines = {c["cell_id"]: self.losses.lines(c) for c in found}
        plain = [c for c in found if c["method"] in lines[c["cell_id"]]] or found
        if len(plain) > 1:
            known = sorted({f"{c['model']}/{c['method']} ({line})" for c in plain for line in lines[c["cell_id"]]})
            raise UserError(
                f"The evaluator {name} is one of several cells; name one by MODEL/METHOD: {', '.join(known)}."
            )
        return plain[0]

    def _by(self, cell: Cell, rows: pd.DataFrame, judge: Cell) -> Flags:
        """Key tokens of one evaluator: the same tokens, or across tokenizers those whose text lies in a key span."""
        theirs = self.losses.rows(judge)
        if judge["cell_id"] not in self._masks:
            pair = self.losses.pair(judge)
            chosen = pair.losses.loc[is_key(pair.losses, self.choice), TOKEN]
            self._masks[judge["cell_id"]] = _among(theirs, chosen)
        mask = self._masks[judge["cell_id"]]
        if judge["dataset_fingerprint"] == cell["dataset_fingerprint"]:
            return _among(rows, theirs.loc[mask, TOKEN])
        return _by_text(cell, rows, judge, theirs, mask)


def _among(rows: pd.DataFrame, chosen: pd.DataFrame) -> Flags:
    return pd.MultiIndex.from_frame(rows[TOKEN]).isin(pd.MultiIndex.from_frame(chosen))


def _by_text(cell: Cell, rows: pd.DataFrame, judge: Cell, theirs: pd.DataFrame, mask: Flags) -> Flags:
    """Tokens whose characters lie within those of the evaluator's key tokens, document by document."""
    for side, own in ((cell, rows), (judge, theirs)):
        if own["byte_end"].isna().any():
            raise UserError(
                f"An evaluator with other documents needs the text's place of every token, which {side['model']} "
                f"{side['method']} of an older harness lacks; run it with force=true."
            )
    apart = set(rows["document"]) ^ set(theirs["document"])
    if apart:
        raise UserError(
            f"The evaluator {judge['model']} and {cell['model']} have different documents of {cell['dataset']}: "
            f"{min(apart)!r} is of one alone."
        )
    chosen = {}
    for name, own in theirs.assign(is_key=mask).sort_values("token").groupby("document"):
        begins, ends = spans(own)
        keys = own["is_key"].to_numpy(bool)
        chosen[name] = merged(begins[keys], ends[keys])
    found = np.zeros(len(rows), bool)
    for name, own in rows.reset_index(drop=True).sort_values("token").groupby("document"):
        found[own.index] = inside(spans(own), chosen[name])
    return found
