"""GGUF files: reading what they say of rotations, and writing a copy that says something else. Needs the extra gguf."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from harness.errors import UserError

if TYPE_CHECKING:
    from gguf import GGUFReader, GGUFWriter

ARCHITECTURE = "general.architecture"
TENSOR = "rope_freqs.weight"  # what angles are divided by, one number a frequency
Key = str | int | float
_BY_WRITER = ("GGUF.", ARCHITECTURE)  # fields that the writer makes itself
_INSTALL = "GGUF files need the package gguf: pip install 'longctx-harness[smollm2]'."


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


def write(source: Path, destination: Path, wanted: Metadata) -> None:
    """A copy of `source` with other keys on rotations, and the tensor of factors where one is wanted.

    Keys of `source` on scaling that are not wanted are left out, so that nothing is applied twice.
    """
    from gguf import GGUFWriter

    reader = open_file(source)
    writer = GGUFWriter(destination, arch=str(metadata(reader)[ARCHITECTURE]))
    _copy_keys(reader, writer, wanted.keys)
    for name, value in wanted.keys.items():
        add = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}[type(value)]
        add(name, value)  # type: ignore[operator]
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
