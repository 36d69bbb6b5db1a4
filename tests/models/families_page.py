"""Writes docs/families.md from the installed transformers: `python -m tests.models.families_page [FAMILY ...]`.

Every family is checked in a process of its own (tests.models.family_checks); with names, only these, and on the screen.
"""

import multiprocessing
import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import transformers

from tests.models.family_checks import (
    EAGER_DIFFERS,
    ENDING,
    LOOSE,
    OF_ATTENTION,
    OWN_SCALING_DIFFERS,
    ROTARY,
    Checked,
    checked,
)
from tests.models.tiny_families import ALL, VARIANTS

PAGE = Path(__file__).parents[2] / "docs" / "families.md"
REASONS = {  # what a refusal says: whose reason it is
    "is no causal language model": "predicts from both sides, or encodes and decodes: no causal language model",
    "tokens alone: .*(pixel|image|inputs_embeds|language|'state')": "needs pictures, or what another model hands it",
    "requires the .* library": "transformers needs a library for it that is not installed",
    "Unrecognized configuration": "transformers has no such class for it",
    "Class validation error|layer types producing a cache": "transformers refuses its own default configuration",
    "draws random numbers": "draws random numbers in every forward",
}
OURS = "another reason"  # which is a fault of this project


def reason(found: Checked) -> str:
    """Whose reason it is that a family is refused."""
    return next((whose for says, whose in REASONS.items() if re.search(says, found.refused)), OURS)


def page(families: Iterable[Checked]) -> str:
    """The page as Markdown."""
    families = sorted(families, key=lambda found: found.family)
    variants = [found for found in families if found.family in VARIANTS]
    families = [found for found in families if found.family not in VARIANTS]
    run = [found for found in families if not found.refused]
    reasons = Counter(reason(found) for found in families if found.refused) | Counter({OURS: 0})
    counts = [
        f"| {name} | {reasons[name]} |"
        for name in [*dict.fromkeys(REASONS.values()), OURS]
        if name == OURS or reasons[name]
    ]
    return "\n".join(
        [
            "# Model families",
            "",
            "Written by `python -m tests.models.families_page` from tiny random models of every causal and",
            f"image-text family of transformers {transformers.__version__}; `tests/models/test_all_families.py` (slow)",
            "is the same loop as a test. A family *runs* when `native` is bit-equal to the model itself, `none` equals",
            "the model with no scaling declared, `linear` and `yarn` equal the same model whose own configuration",
            "declares them (float32, 1e-5 of its largest logit), and the model is bit-equal afterwards.",
            "",
            *_exceptions(),
            "",
            f"Families: {len(families)}; run: {len(run)}; refused: {len(families) - len(run)}.",
            "",
            "| refused because it | families |",
            "|---|---|",
            *counts,
            "",
            f"Of those that run, {sum(found.kind == ROTARY for found in run)} rotate queries and keys. All frequency",
            "methods run on these, and those that change attention where the last column says so. The others run under",
            f"`none` and `native`; those with {ENDING} up to where they end.",
            "",
            "## Families that run",
            "",
            "| family | positions | methods that change attention |",
            "|---|---|---|",
            *map(_row, run),
            "",
            "## What a checkpoint may declare otherwise",
            "",
            "Configurations that make another model of a family than its default does; checked in the same way.",
            "",
            "| family | positions | methods that change attention |",
            "|---|---|---|",
            *map(_row, variants),
            "",
            "## Families that are refused",
            "",
            "| family | what the harness says |",
            "|---|---|",
            *(f"| {found.family} | {_cell(found.refused)} |" for found in families if found.refused),
            "",
        ]
    )


def _exceptions() -> list[str]:
    """What the comparison leaves out, and why."""
    loose = [f"- {family}: compared to {bound:g}." for family, bound in sorted(LOOSE.items())]
    own = [f"- {family}: not compared with a scaling of its own: {why}." for family, why in OWN_SCALING_DIFFERS.items()]
    eager = [f"- {family}: {why}." for family, why in EAGER_DIFFERS.items()]
    return ["Exceptions:", "", *loose, *own, *eager, "- Where a family's code lets none be declared, nothing is."]


def _row(found: Checked) -> str:
    return f"| {found.family} | {found.kind or _cell(found.refused)} | {_attention(found)} |"


def _attention(found: Checked) -> str:
    said = {found.methods[name] for name in OF_ATTENTION if name in found.methods}
    if not said:
        return "-"
    return "act" if said == {"acts"} else _cell("; ".join(sorted(said - {"acts"})))


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "/")[:220]


def _each(families: list[str]) -> Iterable[Checked]:
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=8) as pool:
        for found in pool.imap(checked, families):
            print(found.family, found.refused or found.faults or "runs", flush=True)
            yield found


if __name__ == "__main__":
    every = list(_each(sys.argv[1:] or [*ALL, *VARIANTS]))
    if not sys.argv[1:]:
        PAGE.write_text(page(every), encoding="utf-8")
