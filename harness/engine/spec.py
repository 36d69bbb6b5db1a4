"""How to compute, without any influence on what is computed beyond rounding."""

import math
import re
from dataclasses import dataclass
from typing import Literal, get_args

from harness.errors import UserError, unknown

DtypeName = Literal["auto", "float32", "float16", "bfloat16"]
AttentionName = Literal["auto", "sdpa", "eager", "flash_attention_2", "flash_attention_3", "flex_attention"]
ModeName = Literal["auto", "layered", "sliced", "plain"]
Parallel = Literal["context", "documents"]


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """The engine as configuration names it."""

    dtype: DtypeName = "auto"  # auto: float32 on CPU, bfloat16 on a GPU
    device: str = "auto"  # auto | cpu | cuda | cuda:N
    attention: AttentionName = "auto"  # auto: as transformers chooses
    tokens_per_batch: int | None = None  # null: found from free memory
    compile: bool | Literal["auto"] = False  # auto: where it repays (harness.cells.compiling), in sweeps only
    mode: ModeName = "auto"  # auto: the first that proves itself; see harness.engine.modes
    parallel: Parallel = "documents"  # what the processes of torchrun share; context: the tokens of each window
    keep_every: float | None = 600.0  # seconds, at least, between two states of a long window; null: none is kept

    def __post_init__(self) -> None:
        choices = {"dtype": DtypeName, "attention": AttentionName, "mode": ModeName, "parallel": Parallel}
        for field, choice in choices.items():
            known = get_args(choice)
            if getattr(self, field) not in known:
                raise unknown(f"engine.{field}", getattr(self, field), known)
        if self.compile not in (True, False, "auto") or not isinstance(self.compile, bool | str):
            raise unknown("engine.compile", str(self.compile), ("true", "false", "auto"))
        if self.parallel == "context" and self.mode not in ("auto", "layered"):
            raise UserError(f"engine.parallel=context runs in engine.mode=layered (or auto), got {self.mode}.")
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise UserError(f"engine.device must be auto, cpu, cuda or cuda:N, got {self.device!r}.")
        if self.keep_every is not None and not 0 <= self.keep_every < math.inf:
            raise UserError(f"engine.keep_every must be null or seconds, at least 0, got {self.keep_every}.")
        if self.tokens_per_batch is not None and self.tokens_per_batch < 1:
            raise UserError(f"engine.tokens_per_batch must be null or at least 1, got {self.tokens_per_batch}.")
