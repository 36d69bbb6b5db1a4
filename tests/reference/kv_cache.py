"""Caches in few bits, one number at a time in plain floats, from the definitions of their formats."""

import math
import struct


def half(number):
    return struct.unpack("e", struct.pack("e", number))[0]


def fp8_e4m3(block):
    """The nearest representable number, ties to even mantissas; 448 the largest, 2^-9 the smallest step."""
    out = []
    for x in block:
        magnitude = min(abs(x), 448.0)
        step = 2.0 ** (max(math.floor(math.log2(magnitude)), -6) - 3) if x else 1.0
        out.append(math.copysign(min(round(magnitude / step) * step, 448.0), x))  # round() takes ties to even
    return out


def int8(block):
    step = max(abs(x) for x in block) / 127
    return [round(x / step) * step if step else 0.0 for x in block]


def q8_0(block):
    """ggml: d = amax / 127, q = roundf(x / d); given back as q times d in half precision."""
    d = max(abs(x) for x in block) / 127
    return [math.copysign(math.floor(abs(x) / d + 0.5), x) * half(d) if d else 0.0 for x in block]


def q4_0(block):
    """ggml: d = max / -8 of the signed largest, q = min(15, (int)(x / d + 8.5)); given back as (q - 8) d."""
    d = max(block, key=abs) / -8
    return [(min(15, int(x / d + 8.5)) - 8) * half(d) if d else 0.0 for x in block]


FORMATS = {"fp8_e4m3": fp8_e4m3, "int8": int8, "q8_0": q8_0, "q4_0": q4_0}
