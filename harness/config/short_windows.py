"""The short windows that a sweep runs beside single passes, so that what a long context gives can be said."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from harness.errors import UserError, unknown

ShortMethod = Literal["none", "same"]
REPLACED = ("ctx", "method", "protocol", "short_windows")  # keys of a long cell that its short windows do not share


@dataclass(frozen=True, kw_only=True)
class ShortWindows:
    """Sliding windows of `ctx` tokens of which the last `stride` are scored: the others are before every scored one."""

    ctx: int = 512
    stride: int = 128
    method: ShortMethod = "none"  # the model as it is; same: under the method of the long cell

    def __post_init__(self) -> None:
        if not 1 <= self.stride < self.ctx:
            raise UserError(
                f"short_windows.stride must be at least 1 and less than short_windows.ctx={self.ctx} tokens, "
                f"got {self.stride}."
            )
        if self.method not in get_args(ShortMethod):
            raise unknown("short_windows.method", str(self.method), get_args(ShortMethod))

    def overrides(self, long: Sequence[str]) -> list[str]:
        """Those of the cell of short windows that goes with a long one, from the long one's."""
        replaced = [key for key in REPLACED if key != "method" or self.method == "none"]
        kept = [o for o in long if _key(o) not in replaced and not _key(o).startswith(tuple(f"{k}." for k in replaced))]
        return [
            *kept,
            *(["method=none"] if self.method == "none" else []),
            "protocol=sliding",
            f"protocol.stride={self.stride}",
            "protocol.bos=none",
            "protocol.max_windows=null",
            f"ctx={self.ctx}",
            "short_windows=null",
        ]


def _key(override: str) -> str:
    return override.split("=", 1)[0].lstrip("+~")
