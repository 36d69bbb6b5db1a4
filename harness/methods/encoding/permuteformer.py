"""PermuteFormer."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from harness.errors import UserError
from harness.methods.base import check_choice
from harness.methods.encoding.base import Encoding, Parameter, Shape

if TYPE_CHECKING:
    from harness.methods.encoding.modules.base import EncodingModule

Form = Literal["softmax", "linear"]


@dataclass(frozen=True, kw_only=True)
class Permuteformer(Encoding):
    """PermuteFormer: channels of queries and keys are permuted once more at every position.

        q'_i = rho^i P^i phi(q_i),  k'_j = rho^-j P^j phi(k_j),  so that q'_i . k'_j depends on i - j alone
    P: a random permutation of a head's channels, fixed by `seed`; rho of head h: sigmoid(2 + 3 h / heads).
    "linear": the original, phi = ReLU + 0.001, output the causal sum of q'_i . k'_j v_j without a normaliser, as in
    the authors' language model. "softmax": the permutation alone (rho = 1, phi the identity) in ordinary attention,
    a discrete rotary encoding. Chen 2021, arXiv:2109.02377, sections 3.1 and 3.2.
    """

    form: Form | None = None  # None: softmax
    seed: int | None = None  # of the permutations; None: 0

    name: ClassVar[str] = "permuteformer"
    changes: ClassVar[str] = "queries and keys: channels permuted once a position"
    source: ClassVar[str] = "arXiv:2109.02377"
    why_not: ClassVar[str] = "a permutation has no fractional power, so positions cannot be scaled"

    def __post_init__(self) -> None:
        if self.form is not None:
            check_choice(self.name, "form", self.form, get_args(Form))
        if self.seed is not None and self.seed < 0:
            raise UserError(f"{self.name}: seed must be >= 0, got {self.seed}.")

    def defaults(self, trained: int) -> dict[str, Parameter]:
        """Ordinary attention."""
        return {"form": "softmax", "seed": 0}

    def module(self, shape: Shape) -> "EncodingModule":
        """The permutations and, in the linear form, the decay of each head."""
        from harness.methods.encoding.modules.rotations import Permutation

        assert self.seed is not None
        decays = np.log(ratios(shape.num_heads)) if self.form == "linear" else None
        return Permutation(permutations(shape.num_heads, shape.head_dim, self.seed), decays)


def permutations(num_heads: int, head_dim: int, seed: int) -> NDArray[np.int64]:
    """A random permutation of the channels for each head, (num_heads, head_dim)."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(head_dim) for _ in range(num_heads)])


def ratios(num_heads: int) -> NDArray[np.float64]:
    """rho of each head, (num_heads,): what a score is multiplied by a token of distance."""
    return 1 / (1 + np.exp(-(2 + 3 * np.arange(num_heads) / num_heads)))


def period(permutation: NDArray[np.int64]) -> int:
    """After how many positions a permutation repeats: the least common multiple of its cycles."""
    lengths, left = [], set(range(len(permutation)))
    while left:
        at, length = min(left), 0
        while at in left:
            left.remove(at)
            at, length = int(permutation[at]), length + 1
        lengths.append(length)
    return int(np.lcm.reduce(np.array(lengths, dtype=object)))
