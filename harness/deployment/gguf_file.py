"""GGUF files: reading what they say of rotations, and writing a copy that says something else. Needs the extra gguf."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from harness.errors import UserError, install
from harness.methods.frequency.yarn import temperature

if TYPE_CHECKING:
    from gguf import GGUFReader, GGUFWriter

ARCHITECTURE = "general.architecture"
TENSOR = "rope_freqs.weight"  # what angles are divided by, one number a frequency
Key = str | int | float
_BY_WRITER = ("GGUF.", ARCHITECTURE)  # fields that the writer makes itself
_INSTALL = f"GGUF files need the package gguf: {install('smollm2')}."


class Metadata(NamedTuple):
    """What a GGUF file is to say of rotations."""

    keys: dict[str, Key]
    factors: tuple[float, ...] | None  # the tensor TENSOR; None: no such tensor


def open_file(path: Path) -> "GGUFReader":
    """The file, memory mapped. UserError where it is none, or the package is missing."""
    try:
        from gguf import GGUFReader
    except ModuleNotFoundError:
        raise UserError(_INSTALL) from None
    try:
        return GGUFReader(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no GGUF file: {error}.") from error


def architecture(path: Path) -> str:
    """What kind of model the file holds, in llama.cpp's words."""
    return str(metadata(open_file(path))[ARCHITECTURE])


def metadata(reader: "GGUFReader") -> dict[str, object]:
    """All keys of a file with their values."""
    return {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}


def rope_of(
    kind: str, factor: float | None, value: Callable[[str], float | None], tensors: Mapping[str, list[float]]
) -> tuple[dict[str, object], tuple[str, ...]]:
    """The rope parameters, in transformers' terms, that llama.cpp makes of a file; and what is applied twice, in words.

    `kind`: rope.scaling.type; `value`: a number by its key without the architecture. Under yarn llama.cpp multiplies
    rope.scaling.attn_factor by 0.1 ln(factor) + 1, otherwise cos and sin are multiplied by it alone.
    """
    beside, original = value("rope.scaling.attn_factor") or 1.0, value("rope.scaling.original_context_length")
    rope: dict[str, object] = {} if original is None else {"original_max_position_embeddings": int(original)}
    lists = [tensors.get(name) for name in (TENSOR, "rope_factors_short.weight", "rope_factors_long.weight")]
    fixed, short, long = lists
    if fixed is not None or (short is not None and long is not None):
        rope |= {"rope_type": "longrope", "attention_factor": beside, "factor": 1.0}  # a temperature needs no factor
        rope |= {} if original else {"original_max_position_embeddings": int(value("context_length") or 2)}
        rope |= {"short_factor": fixed or short, "long_factor": fixed or long}
        scaled = factor is not None and factor != 1 and kind in ("linear", "yarn")
        name = TENSOR if fixed else "rope_factors_long.weight"
        twice = (f"rope.scaling.factor {factor:g} is applied on top of the tensor {name}.",) if scaled else ()
        return rope, twice
    if kind in ("linear", "yarn") and factor and factor != 1:
        rope |= {"rope_type": kind, "factor": factor}
        rope |= {"attention_factor": beside * temperature(factor)} if kind == "yarn" and beside != 1 else {}
        multiplier = value("rope.scaling.yarn_log_multiplier")
        return rope | ({"mscale": 1.0, "mscale_all_dim": multiplier} if multiplier else {}), ()
    return rope | {"rope_type": "default"}, ()


def write(source: Path, destination: Path, wanted: Metadata) -> None:
    """A copy of `source` with other keys on rotations, and the tensor of factors where one is wanted.

    Keys of `source` on scaling that are not wanted are left out, so that nothing is applied twice.
    """
    from gguf import GGUFWriter

    reader = open_file(source)
    writer = GGUFWriter(destination, arch=str(metadata(reader)[ARCHITECTURE]))
    _copy_keys(reader, writer, wanted.keys)
    for name, value in wanted.keys.items():
        named = {str: "add_string", int: "add_uint32", float: "add_float32"}[type(value)]
        getattr(writer, named)(name, value)
    tensors = [tensor for tensor in reader.tensors if tensor.name != TENSOR]
    for tensor in tensors:
        writer.add_tensor_info(
            tensor.name, tensor.data.shape, tensor.data.dtype, tensor.data.nbytes, tensor.tensor_type
        )
    _finish(writer, reader, tensors, wanted)


def _copy_keys(reader: "GGUFReader", writer: "GGUFWriter", replaced: Mapping[str, object]) -> None:
    from gguf import GGUFValueType

    for name, field in reader.fields.items():
        if name.startswith(_BY_WRITER) or name in replaced or ".rope.scal" in name:
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, sub_type=inner)


def _finish(writer: "GGUFWriter", reader: "GGUFReader", tensors: list, wanted: Metadata) -> None:
    import numpy as np

    factors = None if wanted.factors is None else np.array(wanted.factors, dtype=np.float32)
    if factors is not None:
        writer.add_tensor_info(TENSOR, factors.shape, factors.dtype, factors.nbytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in tensors:
        writer.write_tensor_data(tensor.data, tensor_endianess=reader.endianess)
    if factors is not None:
        writer.write_tensor_data(factors)
    writer.close()
