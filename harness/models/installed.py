"""What is on record of frequencies that were put into a model."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.storage.cache import digest


@dataclass(frozen=True)
class Installed:
    """Frequencies that one module rotates one of its layer types by, read back after they were put in."""

    path: str  # of the module inside the model
    layer_type: str | None  # None: one set for all layers
    inv_freq: NDArray[np.float64]  # (rotary_dim // 2,), radians a token
    attention_scaling: float
    unscaled_prefix: int  # tokens

    @property
    def record(self) -> dict[str, str | float | None]:
        """As JSON values: which module, the digest of its frequencies, and what comes with them."""
        return {
            "path": self.path,
            "layer_type": self.layer_type,
            "inv_freq": digest(self.inv_freq.tolist()),
            "attention_scaling": float(self.attention_scaling),
            "unscaled_prefix": int(self.unscaled_prefix),
        }
