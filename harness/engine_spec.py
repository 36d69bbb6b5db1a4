"""How to compute, without any influence on what is computed beyond rounding."""

from dataclasses import dataclass

from harness.errors import UserError, unknown

DTYPES = ("auto", "float32", "float16", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """The engine as configuration names it."""

    dtype: str = "auto"  # auto: float32 on CPU, bfloat16 on a GPU
    device: str = "auto"  # auto | cpu | cuda | cuda:N
    attention: str = "auto"  # auto | sdpa | eager | flash_attention_2 | flex_attention
    tokens_per_batch: int | None = None  # null: found from free memory
    compile: bool = False
    mode: str = "auto"  # auto | layered | sliced | plain; see harness.engine

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise unknown("engine.dtype", self.dtype, DTYPES)
        if self.tokens_per_batch is not None and self.tokens_per_batch < 1:
            raise UserError(f"engine.tokens_per_batch must be null or at least 1, got {self.tokens_per_batch}.")
