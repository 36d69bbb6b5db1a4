"""What a checkpoint's configuration says of rotations, in the words of transformers, which most engines share."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal, Self, get_args

from harness.errors import UserError, unknown

RopeType = Literal["default", "linear", "dynamic", "yarn", "llama3", "longrope"]
ROPE_TYPES: tuple[RopeType, ...] = get_args(RopeType)
OLD_NAMES = {"su": "longrope"}  # Phi-3's first name for it
WITH_ORIGINAL: tuple[RopeType, ...] = ("yarn", "llama3", "longrope")  # need original_max_position_embeddings
WITH_FACTOR: tuple[RopeType, ...] = ("linear", "dynamic", "yarn", "llama3")
Value = str | float | bool | list[float]
Parameters = dict[str, Value]  # as in JSON


@dataclass(frozen=True, kw_only=True)
class RopeSettings:
    """Rope parameters as transformers 5.23 reads them (`modeling_rope_utils.py`); None: not given.

    A type reads its own fields alone: `factor` all but default; `attention_factor` yarn and longrope; betas, mscales
    and `truncate` yarn; `low_freq_factor` and `high_freq_factor` llama3; the lists longrope.
    """

    rope_theta: float
    rope_type: RopeType = "default"
    factor: float | None = None
    original_max_position_embeddings: int | None = None  # tokens
    attention_factor: float | None = None  # multiplies cos and sin
    beta_fast: float | None = None
    beta_slow: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool | None = None
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None
    short_factor: tuple[float, ...] | None = None  # one a frequency
    long_factor: tuple[float, ...] | None = None

    def parameters(self) -> Parameters:
        """As the dictionary `rope_parameters`, what is None left out."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        ordered = {"rope_type": given.pop("rope_type"), "rope_theta": given.pop("rope_theta"), **given}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in ordered.items()
            if value is not None
        }

    def older(self) -> Parameters | None:
        """As the dictionary `rope_scaling` of transformers before 5.0, beside which rope_theta stands; None: unset."""
        if self.rope_type == "default":
            return None
        return {name: value for name, value in self.parameters().items() if name != "rope_theta"}

    @classmethod
    def of(cls, given: Mapping[str, object], rope_theta: float) -> Self:
        """Of rope parameters as declared; `rope_theta` where they have none. Keys of other kinds are left out.

        Raises UserError for an unknown type, and for a value that is no number where one is needed.
        """
        named = given.get("rope_type", given.get("type", "default"))
        kind = OLD_NAMES.get(str(named), str(named))
        if kind not in ROPE_TYPES:
            raise unknown("rope_type", kind, ROPE_TYPES)
        known = {field.name for field in fields(cls)} - {"rope_type", "rope_theta"}
        read = {name: _plain(name, value) for name, value in given.items() if name in known and value is not None}
        theta = given.get("rope_theta")
        base = rope_theta if theta is None else _number("rope_theta", theta)
        return cls(rope_type=kind, rope_theta=float(base), **read)  # type: ignore[arg-type]


def _plain(name: str, value: object) -> float | bool | int | tuple[float, ...]:
    if name == "truncate":
        return bool(value)
    if name == "original_max_position_embeddings":
        return int(_number(name, value))
    if name.endswith("g_factor") or name == "short_factor":
        if not isinstance(value, list | tuple):
            raise UserError(f"{name} must be a list of numbers, got {value!r}.")
        return tuple(_number(name, item) for item in value)
    return _number(name, value)


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{name} must be a number, got {value!r}.")
    return float(value)
