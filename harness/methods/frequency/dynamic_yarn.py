"""Dynamic YaRN."""

from dataclasses import dataclass, replace
from typing import ClassVar

from harness.errors import UserError
from harness.methods.base import RopeFrequencies, RopeGeometry, check_multiplier, growth
from harness.methods.frequency.yarn import Yarn


@dataclass(frozen=True, kw_only=True)
class DynamicYarn(Yarn):
    """Dynamic YaRN: YaRN by how much longer than the trained length the window is.

        YaRN with factor max(factor, length / original_max_position_embeddings)
    `factor`, the least scaling, is the one a checkpoint was fine-tuned with; 1 for one that was not: the
    authors' code with and without its option "finetuned". Attention is sharpened by the current scaling.

    Peng et al. 2023, arXiv:2309.00071, section 3.3. The authors' code lacks the lower bound: between its two
    lengths it can scale by less than 1 and raise frequencies (2.0 times just above half the trained length).
    """

    factor: float = 1.0

    name: ClassVar[str] = "dynamic_yarn"
    changes: ClassVar[str] = "as yarn, by a factor growing with the window"
    depends_on_length: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_multiplier(self.name, self.factor)
        if self.static_factors is not None:
            raise UserError(f"{self.name}: its factor follows the window; static_factors belong to yarn.")
        super().__post_init__()

    def __call__(self, geometry: RopeGeometry, length: int) -> RopeFrequencies:
        """Frequencies and attention scaling for windows of `length` tokens. Shape (rotary_dim // 2,)."""
        current = replace(self, factor=max(self.factor, growth(geometry, length)))
        return Yarn.__call__(current, geometry, length)
