"""Dual Chunk Attention."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self, get_args

import numpy as np

from harness.errors import UserError
from harness.methods.attention.base import AttentionMethod
from harness.methods.attention.regions import Region, check_tokens, positions, share
from harness.methods.base import RopeFrequencies, RopeGeometry, added, check_choice, growth

Form = Literal["code", "paper", "declared"]
SHARES: dict[Form, tuple[tuple[int, int], tuple[int, int]]] = {  # of the trained length: chunk, local
    "code": ((3, 4), (1, 8)),
    "paper": ((1, 1), (1, 4)),
}
COEFFICIENTS: dict[Form, float] = {"code": 0.05, "paper": 0.05, "declared": 0.1}


@dataclass(frozen=True, kw_only=True)
class Dca(AttentionMethod):
    """Dual Chunk Attention: positions start again in every chunk of n = chunk - local tokens.

        key j:                      j mod n
        query i, key in its chunk:  i mod n
        key in the chunk before:    min(i mod n + n, cap)
        key in an older chunk:      min(2n - 1, cap)

    Frequencies are the unscaled ones. An et al. 2024, arXiv:2402.17463, sections 3.1-3.3, and its code
    (ChunkLlama), which differ. `form` "code": cap = chunk, and by default chunk is 3/4 and local 1/8 of the trained
    length, so relative positions end at 3/4 of it. "paper": cap = chunk - 1, chunk the trained length, local a
    quarter of it, so relative positions end at the trained length - 1. The code multiplies cosines and sines by
    c ln(length / trained length) + 1 with c = 0.05 (`temperature_coefficient`), which its comment says the paper did
    not do: `temperature` null follows the form. "declared": the code's, with chunk and local from the checkpoint's own
    `dual_chunk_attention_config` (Qwen2.5-1M, Qwen3-2507) and c = 0.1, by which vLLM multiplies the keys and the
    softmax scale. Its sparse attention is another method and not computed.
    """

    form: Form = "code"
    chunk: int | None = None  # tokens
    local: int | None = None  # tokens
    temperature: bool | None = None  # None: not in the paper's form
    temperature_coefficient: float | None = added(None)  # None: 0.05; 0.1 in the form "declared"

    name: ClassVar[str] = "dca"
    changes: ClassVar[str] = "positions start again in every chunk; attention temperature (code)"
    source: ClassVar[str] = "arXiv:2402.17463"

    def __post_init__(self) -> None:
        check_choice(self.name, "form", self.form, get_args(Form))
        check_tokens(self.name, chunk=self.chunk)
        check_tokens(self.name, 0, local=self.local)
        if not 0 <= self._coefficient < math.inf:
            raise UserError(f"{self.name}: temperature_coefficient must be finite and >= 0, got {self._coefficient}.")
        if self.chunk is not None and self.local is not None and not self.local < self.chunk:
            raise UserError(f"{self.name}: local must be < chunk ({self.chunk} tokens), got {self.local}.")

    @property
    def depends_on_length(self) -> bool:
        """Whether the temperature, which grows with the window, is on."""
        return self.form != "paper" if self.temperature is None else self.temperature

    def resolved(self, geometry: RopeGeometry, length: int) -> Self:
        """With the form's defaults filled in; UserError where the checkpoint declares none that are asked for."""
        chunk, local = self._default_lengths(geometry)
        return replace(
            self,
            chunk=chunk if self.chunk is None else self.chunk,
            local=local if self.local is None else self.local,
            temperature=self.depends_on_length,
            temperature_coefficient=None if self._coefficient == COEFFICIENTS[self.form] else self._coefficient,
        )

    def _default_lengths(self, geometry: RopeGeometry) -> tuple[int, int]:
        if self.form == "declared":
            if geometry.dual_chunk is None:
                raise UserError(
                    f"{self.name}: form=declared needs a checkpoint with dual_chunk_attention_config, got one without."
                )
            return geometry.dual_chunk
        trained = geometry.original_max_position_embeddings
        chunk, local = (share(trained, *part) for part in SHARES[self.form])
        return chunk, local

    def __call__(self, geometry: RopeGeometry, length: int) -> RopeFrequencies:
        """The unscaled frequencies, (rotary_dim // 2,), and the temperature of `length`: cosines and sines times it."""
        if not self.depends_on_length:
            return RopeFrequencies(geometry.inv_freq)
        return RopeFrequencies(geometry.inv_freq, self._coefficient * math.log(growth(geometry, length)) + 1)

    def regions(self, length: int) -> tuple[Region, ...]:
        """A query's own chunk, the one before, all older ones, with the same key positions; arrays of (length,)."""
        size, cap = self._chunk_and_cap()
        rows = np.arange(length)
        start = rows // size * size
        before = np.maximum(0, start - size)
        within = positions(length) % size
        return (
            Region(start, rows + 1, within, within),
            Region(before, start, np.minimum(within + size, cap), within),
            Region(np.zeros_like(rows), before, np.full(length, float(min(2 * size - 1, cap))), within),
        )

    def limit(self, geometry: RopeGeometry) -> int | None:
        """Longest window (tokens) whose relative positions were all trained; None: any."""
        size, cap = self._chunk_and_cap()
        trained = geometry.original_max_position_embeddings
        return None if min(2 * size - 1, cap) < trained else trained

    @property
    def _coefficient(self) -> float:
        given = self.temperature_coefficient
        return COEFFICIENTS[self.form] if given is None else given

    def _chunk_and_cap(self) -> tuple[int, int]:
        assert self.chunk is not None, "dca: resolve chunk first"
        assert self.local is not None, "dca: resolve local first"
        return self.chunk - self.local, self.chunk - (self.form == "paper")
