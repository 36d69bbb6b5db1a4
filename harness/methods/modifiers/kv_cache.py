"""A cache of keys and values in few bits, a modifier of any method.

Keys (after rotation) and values are rounded as the cache would hold them and attention then computes as usual: what a
serving engine loses by its cache and by nothing else.

fp8_e4m3: each number for itself, 448 the largest, no scale (vLLM's default). int8: steps of a 127th of the largest
channel of a token's head. q8_0, q4_0: blocks of 32 channels, 8 and 4 bits a channel and a step in half precision for
each block (8.5 and 4.5 bits), as ggml defines them.
"""

from typing import Literal, get_args

from harness.errors import unknown

KvCache = Literal["fp8_e4m3", "int8", "q8_0", "q4_0"]
KV_CACHES: tuple[KvCache, ...] = get_args(KvCache)
BLOCK = 32  # channels
FP8_LARGEST = 448.0


def kv_cache(given: object) -> KvCache | None:
    """The format that a configuration names; None for null. Raises UserError."""
    if given is None:
        return None
    for known in KV_CACHES:
        if given == known:
            return known
    raise unknown("method.kv_cache", str(given), KV_CACHES)
