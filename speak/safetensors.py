"""The safetensors format, read and written by hand: refuses what is malformed, maps the file without copying it.

A file is 8 bytes of header length (little endian), the header in JSON, and the tensors' bytes without a gap:
`{"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, ..., "__metadata__": {str: str}}`.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from speak.errors import SpeakError
from speak.media.files import check_readable, whole_file

# Widest first: the writer's order, so that every tensor is aligned to its own size.
DTYPES = {
    "C64": torch.complex64, "F64": torch.float64, "I64": torch.int64, "U64": torch.uint64,
    "F32": torch.float32, "I32": torch.int32, "U32": torch.uint32,
    "F16": torch.float16, "BF16": torch.bfloat16, "I16": torch.int16, "U16": torch.uint16,
    "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
MAX_HEADER = 100_000_000  # bytes, upstream's own limit
METADATA = "__metadata__"


def load(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU. They share the mapped file: pages are read when touched, and
    writing to a tensor changes neither the file nor what others read.

    Raises SpeakError with the file and the reason for anything malformed. Nothing in the file can run code.
    """
    path = check_readable(path)
    if sys.byteorder != "little":
        raise SpeakError(f"{path}: safetensors files are read on little-endian machines only")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        header, start = _read_header(file, size, path)
        entries = _checked(header, size - start, path)
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    return {name: _tensor(mapped, start, *entry) for name, entry in entries.items()}


def save(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Writes `tensors` as a safetensors file, whole or not at all. `metadata` defaults to {"format": "pt"}.

    Raises SpeakError for a dtype that the format lacks, or where the disk refuses.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in NAMES:
            raise SpeakError(f"{path}: safetensors has no dtype for '{name}', which is {tensor.dtype}")
        if name == METADATA:
            raise SpeakError(f"{path}: '{METADATA}' cannot be a tensor's name")
    order = {name: i for i, name in enumerate(DTYPES)}
    names = sorted(tensors, key=lambda name: (order[NAMES[tensors[name].dtype]], name))
    header: dict[str, Any] = {METADATA: dict(metadata or {"format": "pt"})}
    end = 0
    for name in names:
        tensor = tensors[name]
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            if tensors[name].numel():
                flat = tensors[name].detach().cpu().contiguous().reshape(-1)
                file.write(memoryview(flat.view(torch.uint8).numpy()))


def _read_header(file: BinaryIO, size: int, path: Path) -> tuple[dict[str, Any], int]:
    """The header as a dictionary, and where the tensors' bytes start."""
    if size < 8:
        raise SpeakError(f"{path}: truncated: a safetensors file has at least 8 bytes, this one {size}")
    length = struct.unpack("<Q", file.read(8))[0]
    if length > MAX_HEADER:
        raise SpeakError(f"{path}: not a safetensors file: a header of {length} bytes, {MAX_HEADER} are allowed")
    if 8 + length > size:
        raise SpeakError(f"{path}: truncated, or a wrong header length: {length} bytes announced, {size - 8} there")
    text = file.read(length)
    if text[:1] != b"{":
        raise SpeakError(f"{path}: not a safetensors file: the header does not start with '{{'")
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except UnicodeDecodeError:
        raise SpeakError(f"{path}: the safetensors header is not valid UTF-8") from None
    except KeyError as error:
        raise SpeakError(f"{path}: the safetensors header has {error} twice") from None
    except (ValueError, RecursionError):
        raise SpeakError(f"{path}: the safetensors header is not valid JSON") from None
    return header, 8 + length


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise KeyError(key)
        found[key] = value
    return found


def _checked(header: dict[str, Any], size: int, path: Path) -> dict[str, tuple[torch.dtype, list[int], int, int]]:
    """name -> (dtype, shape, begin, end), where every byte of the `size` belongs to exactly one tensor."""
    metadata = header.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise SpeakError(f"{path}: the safetensors metadata is not a table of strings")
    entries = {}
    for name, entry in header.items():
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise SpeakError(f"{path}: '{name}' needs dtype, shape and data_offsets, and nothing else")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in DTYPES:
            raise SpeakError(f"{path}: '{name}' has the dtype {dtype!r}: known are {', '.join(DTYPES)}")
        for what, numbers in (("shape", shape), ("offsets", offsets)):
            if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
                raise SpeakError(f"{path}: '{name}' has the {what} {numbers!r}: whole numbers from 0 are wanted")
        if len(offsets) != 2 or offsets[0] > offsets[1] or offsets[1] > size:
            raise SpeakError(f"{path}: '{name}' lies at {offsets} of {size} bytes: truncated, or a wrong header")
        wanted = math.prod(shape) * DTYPES[dtype].itemsize
        if offsets[1] - offsets[0] != wanted:
            raise SpeakError(f"{path}: '{name}', {dtype} of shape {shape}, is {wanted} bytes, not the "
                             f"{offsets[1] - offsets[0]} of its offsets")
        entries[name] = (DTYPES[dtype], shape, *offsets)
    covered, previous = 0, None
    for name, (_, _, begin, end) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if begin < covered:
            raise SpeakError(f"{path}: '{name}' overlaps '{previous}' (starts at {begin}, the other ends at {covered})")
        if begin > covered:
            raise SpeakError(f"{path}: {begin - covered} bytes before '{name}' belong to no tensor")
        covered, previous = end, name
    if covered != size:
        raise SpeakError(f"{path}: {size - covered} bytes at the end belong to no tensor")
    return entries


def _tensor(mapped: mmap.mmap, start: int, dtype: torch.dtype, shape: list[int], begin: int, end: int) -> Tensor:
    if begin == end:
        return torch.empty(shape, dtype=dtype)
    if (start + begin) % dtype.itemsize:  # upstream aligns; a file that does not is copied
        return torch.frombuffer(bytearray(mapped[start + begin:start + end]), dtype=dtype).reshape(shape)
    count = (end - begin) // dtype.itemsize
    return torch.frombuffer(mapped, dtype=dtype, count=count, offset=start + begin).reshape(shape)
