"""What a model may hold at once: tokens of a batch, of a chunk, from the memory that its weights leave free."""

from dataclasses import dataclass, replace

import torch

from harness.engine.shared import Ranks
from harness.models.parts import CausalLM, widths

CPU_TOKENS_PER_BATCH, GPU_TOKENS_PER_BATCH = 2048, 32768
CPU_CHUNK, SMALLEST_CHUNK = 8192, 512
CPU_OUT_OF_MEMORY = ("DefaultCPUAllocator: can't allocate memory", "could not create a primitive")
MEMORY_SHARE = 0.8  # of what the weights left free; the rest is for the allocator's gaps


@dataclass(frozen=True)
class Budget:
    """What fits beside the weights, in bytes; on a CPU sizes that keep its caches busy."""

    free: int | None  # None: a CPU
    passing: int  # a token on its way through a layer: states, projections, the inside of the MLP
    staying: int  # a token as long as a layer runs: residual stream, keys and values, rotations

    @classmethod
    def of(cls, model: CausalLM) -> "Budget":
        """Measured on the model's devices, after its weights are there; the fullest counts."""
        width, size = widths(model), model.dtype.itemsize
        gpus = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
        free = min((torch.cuda.mem_get_info(gpu)[0] for gpu in gpus), default=None)
        return cls(free, size * (6 * width.hidden + 3 * width.inner), size * 4 * width.hidden)

    def tokens_per_batch(self) -> int:
        """Tokens of one call: no more than keep the device busy."""
        if self.free is None:
            return CPU_TOKENS_PER_BATCH
        fitting = int(MEMORY_SHARE * self.free) // (self.passing + self.staying)
        return max(1, min(GPU_TOKENS_PER_BATCH, fitting))

    def chunk(self, rows: int, length: int) -> int:
        """Tokens of each of `rows` sequences of `length` tokens that pass through a layer together."""
        if self.free is None:
            return CPU_CHUNK
        left = MEMORY_SHARE * self.free - rows * length * self.staying
        return max(SMALLEST_CHUNK, GPU_TOKENS_PER_BATCH // 2 // rows, int(left / self.passing / rows))

    def agreed(self, over: Ranks) -> "Budget":
        """That of the rank with the least free memory: all ranks must cut their windows in the same way."""
        if self.free is None:
            return self
        everyones = over.gathered(torch.tensor([self.free], device="cuda"))
        return replace(self, free=min(int(free) for free in everyones))

    def shared_chunk(self, rows: int, length: int, ranks: int) -> int:
        """Tokens of each of `rows` windows that pass through a layer together, on each of the ranks that share them.

        Half of what stays is the window's keys and values, which every rank holds; the other half is shared. What
        passes are also the keys and values that come from all ranks.
        """
        if self.free is None:
            return CPU_CHUNK
        left = MEMORY_SHARE * self.free - rows * length * self.staying * (1 + 1 / ranks) / 2
        return max(SMALLEST_CHUNK, int(left / (self.passing + ranks * self.staying / 2) / rows))


def is_out_of_memory(error: RuntimeError) -> bool:
    """A GPU's allocator has an error of its own, a CPU's and oneDNN's do not."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in CPU_OUT_OF_MEMORY)
