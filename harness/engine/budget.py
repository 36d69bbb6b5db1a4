"""What a model may hold at once: tokens of a batch, of a chunk, from the memory that its weights leave free."""

import os
from dataclasses import dataclass, replace

import torch

from harness.engine.exchange import Ranks
from harness.engine.ring import BLOCK
from harness.models.parts import CausalLM, widths

CPU_TOKENS_PER_BATCH, GPU_TOKENS_PER_BATCH = 2048, 32768
CPU_CHUNK, SMALLEST_CHUNK = 8192, 512
SMALLEST_SHARED = 4096  # below it a stripe's queries leave a GPU's processors idle, and blocks arrive too slowly
ROTATIONS = 1024  # bytes a token: cosines, sines, position, identity
CPU_OUT_OF_MEMORY = ("DefaultCPUAllocator: can't allocate memory", "could not create a primitive")
MEMORY_SHARE = 0.8  # of what the weights left free; the rest is for the allocator's gaps


@dataclass(frozen=True)
class Budget:
    """What fits beside the weights, in bytes; on a CPU sizes that keep its caches busy."""

    free: int | None  # None: a CPU
    passing: int  # a token on its way through a layer: states, projections, the inside of the MLP
    staying: int  # a token as long as a layer runs: residual stream, keys and values, rotations
    shared: int = 0  # the same of a token that one of several ranks holds
    keys: int = 0  # of it keys and values

    @classmethod
    def of(cls, model: CausalLM) -> "Budget":
        """Measured on the model's devices, after its weights are there; the fullest counts."""
        width, size = widths(model), model.dtype.itemsize
        gpus = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
        free = min((torch.cuda.mem_get_info(gpu)[0] for gpu in gpus), default=None)
        passing, staying = size * (6 * width.hidden + 3 * width.inner), size * 4 * width.hidden
        keys = 2 * size * width.keys
        return cls(free, passing, staying, size * width.hidden + keys + ROTATIONS, keys)

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

        A rank holds its part of the stream, of keys and values and of rotations, and two blocks of others' keys.
        """
        if self.free is None:
            return CPU_CHUNK
        left = MEMORY_SHARE * self.free - rows * (length * self.shared / ranks + 2 * BLOCK["cuda"] * self.keys)
        return max(SMALLEST_SHARED // rows, SMALLEST_CHUNK, int(left / self.passing / rows))


def fits(weights: int, device: str) -> bool:
    """Whether weights of so many bytes leave a device, or the machine, as much memory for windows as they take.

    On a CPU they may exist twice (harness.engine.packed).
    """
    if device.startswith("cuda"):
        return 2 * weights <= torch.cuda.get_device_properties(device).total_memory
    return 4 * weights <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def is_out_of_memory(error: RuntimeError) -> bool:
    """A GPU's allocator has an error of its own, a CPU's and oneDNN's do not."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in CPU_OUT_OF_MEMORY)
