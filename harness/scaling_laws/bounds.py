"""Where rotary embeddings break: critical dimension, extrapolation bounds, critical and small bases.

Liu et al. 2023, "Scaling Laws of RoPE-based Extrapolation", arXiv:2310.05209. A channel whose wavelength exceeds the
trained length has been seen on part of its circle only; what the model does beyond that part is not known.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.errors import UserError
from harness.methods import METHODS, build
from harness.methods.attention.base import AttentionMethod
from harness.methods.base import Method, RopeGeometry
from harness.scaling_laws.base_bound import base_bound


class SmallBases(NamedTuple):
    """Bases below which even the slowest channel sees a quarter, half, a whole period of its circle in training."""

    quarter: float
    half: float
    whole: float


BOUNDS = ("extrapolation_bound", "trained_range_bound", "base_bound")
OF_ROTARY_MODELS = tuple(name for name, method in METHODS.items() if method.kind != "encoding")


def wavelengths(inv_freq: NDArray[np.float64]) -> NDArray[np.float64]:
    """Tokens a full turn takes, 2 pi / inv_freq, shape (rotary_dim // 2,); infinite where nothing turns."""
    turning = inv_freq > 0
    return np.where(turning, 2 * np.pi / np.where(turning, inv_freq, 1), np.inf)


def critical_dimension(inv_freq: NDArray[np.float64], length: float) -> int:
    """Channels, two a frequency, that complete a turn within `length` tokens; rotary_dim if all do.

    For unscaled frequencies and the trained length the paper's d_extra = 2 ceil(d / 2 log_base(length / 2 pi)).
    """
    return 2 * int(np.sum(wavelengths(inv_freq) < length))


def extrapolation_bound(geometry: RopeGeometry, inv_freq: NDArray[np.float64]) -> float:
    """The paper's T_extra for any frequencies, in tokens: the wavelength of the first channel not seen in full.

    Training saw the first `critical_dimension` channels turn; the bound is the wavelength that the method gives
    the next one. For a base beta: 2 pi beta^(d_extra / d). Infinite where training saw every channel turn.
    It holds for models fine-tuned with these frequencies; `trained_range_bound` for models that were not.
    """
    unseen = wavelengths(inv_freq)[_first_unseen(geometry) :]
    return float(unseen[0]) if unseen.size else math.inf


def trained_range_bound(geometry: RopeGeometry, inv_freq: NDArray[np.float64]) -> float:
    """Tokens up to which no channel that training did not see turn leaves the angles it was trained on.

    The least of original_max_position_embeddings inv_freq_i / inv_freq'_i over those channels; infinite without any.
    """
    first = _first_unseen(geometry)
    trained_angles = geometry.original_max_position_embeddings * geometry.inv_freq[first:]
    return float(np.min(trained_angles * wavelengths(inv_freq)[first:] / (2 * np.pi), initial=math.inf))


def tuned_bound(geometry: RopeGeometry, rope_theta: float, tuned_length: int) -> float:
    """The paper's bound, in tokens, of a model fine-tuned with another base at `tuned_length` tokens.

    2 pi rope_theta^(d_extra / d) above the critical base, `tuned_length` up to it.
    """
    if rope_theta <= critical_base(geometry, tuned_length):
        return float(tuned_length)
    return 2 * math.pi * rope_theta ** (2 * _first_unseen(geometry) / geometry.exponent_dim)


def critical_base(geometry: RopeGeometry, tuned_length: float) -> float:
    """The base from which fine-tuning at `tuned_length` tokens extrapolates beyond it (the paper's beta_0).

    rope_theta^(log(tuned_length / 2 pi) / log(trained length / 2 pi)).
    """
    turns = math.log(tuned_length / (2 * math.pi))
    return geometry.rope_theta ** (turns / math.log(geometry.original_max_position_embeddings / (2 * math.pi)))


def small_bases(tuned_length: float) -> SmallBases:
    """The paper's beta_1, beta_2, beta_3 = 2 T / pi, T / pi, T / 2 pi at a tuning length of T tokens."""
    return SmallBases(2 * tuned_length / math.pi, tuned_length / math.pi, tuned_length / (2 * math.pi))


def methods_table() -> pd.DataFrame:
    """One line a method: `method`, `kind`, `changes`, `depends_on_length`, `source`."""
    return pd.DataFrame(
        {
            "method": name,
            "kind": method.kind,
            "changes": method.changes,
            "depends_on_length": _depends_on_length(method),
            "source": method.source,
        }
        for name, method in METHODS.items()
    )


def _depends_on_length(method: type[Method]) -> Literal["yes", "no", "by its options"]:
    said: object = method.depends_on_length  # the base's property, the class's answer, or a property of the class
    if isinstance(said, bool):
        return "yes" if said else "no"
    return "no" if said is Method.depends_on_length else "by its options"


def table(
    geometry: RopeGeometry,
    ctx: int,
    names: Iterable[str] | None = None,
    params: Mapping[str, Mapping[str, Any]] | None = None,
) -> pd.DataFrame:
    """What the theory says of each method (`names`: of these) at windows of `ctx` tokens.

    Columns: `method`; `factor`; `critical_dimension` (of training, the same for all); `tuned_dimension` (channels
    that turn within ctx under the method: what fine-tuning at ctx would see in full); `extrapolation_bound` and
    `trained_range_bound` (tokens; of a method that changes attention, the longest window whose relative positions
    were all trained); `base_bound` (tokens, at most ctx: harness.scaling_laws.base_bound); `note`: why there are no
    numbers. params: parameters by method name.
    """
    params = params or {}
    lines = (_line(name, geometry, ctx, params.get(name)) for name in names or OF_ROTARY_MODELS)
    columns = ("method", "factor", "critical_dimension", "tuned_dimension")
    return pd.DataFrame(lines, columns=[*columns, *BOUNDS, "note"])


def _line(name: str, geometry: RopeGeometry, ctx: int, params: Mapping[str, Any] | None) -> dict[str, object]:
    line = {"method": name, "critical_dimension": 2 * _first_unseen(geometry), "note": ""}
    method = buildable(name, geometry, ctx, params)
    if isinstance(method, str):
        return line | {"note": method}
    line["factor"] = method.factor
    if isinstance(method, AttentionMethod):
        limit = method.limit(geometry)
        return line | {"trained_range_bound": math.inf if limit is None else limit}
    if method.kind != "frequency":
        return line | {"note": "known to the checkpoint alone"}
    inv_freq = method(geometry, ctx).inv_freq
    return line | {
        "tuned_dimension": critical_dimension(inv_freq, ctx),
        "extrapolation_bound": extrapolation_bound(geometry, inv_freq),
        "trained_range_bound": trained_range_bound(geometry, inv_freq),
        "base_bound": base_bound(inv_freq, ctx, geometry.resting),
    }


def buildable(name: str, geometry: RopeGeometry, ctx: int, params: Mapping[str, Any] | None) -> Method | str:
    """The method, or, of one that was given no parameters and needs some, the words that say so.

    Raises UserError for an unknown name and for parameters that were given and are wrong.
    """
    try:
        return build(name, params or {}, geometry, ctx)
    except UserError as error:
        if params is not None or name not in METHODS:
            raise
        return str(error)


def spectrum(
    geometry: RopeGeometry,
    ctx: int,
    names: Iterable[str] | None = None,
    params: Mapping[str, Mapping[str, Any]] | None = None,
) -> pd.DataFrame:
    """Wavelengths of each frequency method that can be built: `method`, `dimension`, `wavelength`, `stretch`.

    dimension: first of the two channels that share a frequency; wavelength in tokens; stretch: wavelength over the
    unscaled one. Methods with equal frequencies share a line, their names joined.
    """
    params = params or {}
    curves: dict[bytes, tuple[list[str], NDArray[np.float64]]] = {}
    for name in names or OF_ROTARY_MODELS:
        method = buildable(name, geometry, ctx, params.get(name))
        if not isinstance(method, str) and method.kind == "frequency":
            inv_freq = method(geometry, ctx).inv_freq
            key = np.round(inv_freq / geometry.inv_freq, 9).tobytes()
            curves.setdefault(key, ([], inv_freq))[0].append(name)
    unscaled = wavelengths(geometry.inv_freq)
    none = pd.DataFrame(columns=["method", "dimension", "wavelength", "stretch"])
    lines = [
        pd.DataFrame(
            {
                "method": ", ".join(equal),
                "dimension": np.arange(0, geometry.rotary_dim, 2),
                "wavelength": wavelengths(inv_freq),
                "stretch": wavelengths(inv_freq) / unscaled,
            }
        )
        for equal, inv_freq in curves.values()
    ]
    return pd.concat(lines) if lines else none


def _first_unseen(geometry: RopeGeometry) -> int:
    return critical_dimension(geometry.inv_freq, geometry.original_max_position_embeddings) // 2
