"""A search on disk: what it is a search of, and its individuals, generation after generation."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.longrope_search.evolution import Individual
from harness.longrope_search.space import Genome
from harness.storage import claims
from harness.storage.files import write_text

log = logging.getLogger(__name__)


def claim(folder: Path, recipe: Mapping[str, object]) -> None:
    """Mark `folder` as this search's; UserError where it holds another, naming what differs. Raises StorageError."""
    if not claims.check_unclaimed(folder, recipe, "search", "output_dir"):
        claims.claim(folder, recipe)


def save(folder: Path, individuals: Sequence[Individual]) -> None:
    """Write the individuals of all whole generations, atomically."""
    lines = [[list(one.genome.factors), *one.genome[1:], *one[1:]] for one in individuals]
    write_text(folder / "state.json", json.dumps(lines, allow_nan=False))


def load(folder: Path, iterations: int) -> list[Individual]:
    """The individuals of the whole generations that were saved, up to generation `iterations`."""
    try:
        lines = json.loads((folder / "state.json").read_text())
        saved = [Individual(Genome(tuple(line[0]), *line[1:3]), *line[3:]) for line in lines]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError) as error:
        log.warning("%s is damaged (%s); its generations are bred again", folder / "state.json", error)
        return []
    return [one for one in saved if one.generation <= iterations]
