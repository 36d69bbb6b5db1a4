"""How often intervals over documents cover the truth: ours, and Student's t on the same standard error.

    python benchmarks/coverage.py [repeats]          (with pip install "longctx-harness[benchmarks]", for SciPy)

Documents are drawn from known distributions of loss (nats) and length; the truth is the ratio over a million documents.
"""

import sys

import numpy as np
from scipy import stats

from harness.statistics.intervals import contrast, interval


def documents(kind: str, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Losses and lengths of n documents, each (n, 1)."""
    lengths = np.exp(rng.normal(0, 0.5, n)) if kind.endswith("uneven") else np.ones(n)
    losses = {
        "normal": lambda: rng.normal(3, 0.3, n),
        "lognormal": lambda: 1 + np.exp(rng.normal(0, 0.5, n)),
        "exponential": lambda: 2 + rng.exponential(0.5, n),
    }[kind.split(",")[0]]()
    return (losses * lengths)[:, None], lengths[:, None]


def student(y: np.ndarray, x: np.ndarray) -> tuple[float, float]:
    """Linearised standard error times Student's t."""
    n = len(y)
    (value,), (error,) = contrast(np.ones((1, n)), y, x, np.ones(1), log=False)
    reach = stats.t.ppf(0.975, n - 1) * error
    return value - reach, value + reach


def main(repeats: int) -> None:
    widths = ["median width", "widest 5 %"]
    head = ["losses", "n", "studentised bootstrap", *widths, "Student's t", *widths]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for kind in ("normal", "lognormal", "exponential", "exponential, uneven"):
        y, x = documents(kind, 1_000_000, np.random.default_rng(1))
        truth = y.sum() / x.sum()
        for n in (5, 10, 20, 100):
            rng = np.random.default_rng([n, 2])
            limits = []
            for _ in range(repeats):  # one draw of resamples for all, as cells of as many documents share it
                drawn = documents(kind, n, rng)
                limits.append((*interval(*drawn)[1:], *student(*drawn)))
            a, b, c, d = np.array(limits).T
            ours, theirs = np.mean((a <= truth) & (truth <= b)), np.mean((c <= truth) & (truth <= d))
            cells = [kind, str(n)]
            for share, width in ((ours, b - a), (theirs, d - c)):
                cells += [f"{share:.3f}", f"{np.median(width):.2f}", f"{np.quantile(width, 0.95):.2f}"]
            print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
