"""Reads others' `torch.save` files without running anything in them.

A pickle names the functions and classes that it wants called. Here only those that rebuild tensors and plain
containers are known; every other name becomes a class that keeps what it is given (`Inert`), so that fairseq's
arguments or an omegaconf tree can be looked into while no class of the file's choice is imported, let alone run.
Both layouts of torch.save are read: the zip archive, and the one before torch 1.6 that most older weights have.
"""

from __future__ import annotations

import collections
import math
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from speak.errors import SpeakError
from speak.media.files import check_readable

STORAGES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
DAMAGE = (pickle.UnpicklingError, zipfile.BadZipFile, EOFError, KeyError, IndexError, AttributeError, TypeError,
          ValueError, RuntimeError, NotImplementedError, struct.error, MemoryError, OverflowError, OSError, zlib.error)


class Inert:
    """Stands in for an object of an unknown class: remembers the arguments and the state, does nothing."""

    arguments: tuple[Any, ...]
    state: Any

    def __new__(cls, *arguments: Any, **_: Any) -> Inert:
        made = super().__new__(cls)
        made.arguments, made.state = arguments, {}
        return made

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    # What unpickling a list or a dictionary of an unknown class calls.
    def append(self, item: Any) -> None:
        self.arguments = (*self.arguments, item)

    def extend(self, items: Any) -> None:
        self.arguments = (*self.arguments, *items)

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(self.state, dict):
            self.state[key] = value


def load(path: str | Path) -> Any:
    """What `torch.save` wrote to `path`, on the CPU; objects of unknown classes are `Inert`.

    Raises SpeakError, one line with the file and the reason, for what is missing, truncated, damaged or no such file.
    """
    path = check_readable(path)
    try:
        if zipfile.is_zipfile(path):
            return _load_zip(path)
        with path.open("rb") as file:
            start = file.read(4)
        if start[:2] == b"PK":
            raise SpeakError(f"{path}: truncated (its archive has no end); fetch it again")
        if start[:1] != b"\x80" or tarfile.is_tarfile(path):
            raise SpeakError(f"{path}: not a file of torch.save")
        with path.open("rb") as file:
            return _load_legacy(file, path)
    except DAMAGE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise SpeakError(f"{path}: truncated, damaged or not a file of torch.save ({reason}); fetch it again") from None


def plain(value: Any, seen: dict[int, Any] | None = None) -> Any:
    """`value` with inert objects as dictionaries: an argparse namespace by its attributes, an omegaconf tree by its
    content, an enumeration's member by its value. Tensors and plain types stay. `seen` serves the recursion."""
    seen = {} if seen is None else seen
    if not isinstance(value, (dict, list, tuple, Inert)) or id(value) in seen:
        return seen.get(id(value), value)
    seen[id(value)] = None  # what a loop finds
    if isinstance(value, dict):
        found: Any = {key: plain(item, seen) for key, item in value.items()}
    elif isinstance(value, (list, tuple)):
        found = [plain(item, seen) for item in value]
    else:
        state = value.state[1] if isinstance(value.state, tuple) and len(value.state) == 2 else value.state
        inside = next((key for key in ("_content", "_val") if isinstance(state, dict) and key in state), None)
        if inside:  # omegaconf's containers and leaves; never their `_parent`
            found = plain(state[inside], seen)
        elif not state and len(value.arguments) == 1:
            found = plain(value.arguments[0], seen)
        else:
            found = plain(state, seen)
    seen[id(value)] = found
    return found


class _Unpickler(pickle.Unpickler):
    """Knows how to rebuild tensors and ordered dictionaries, and nothing else."""

    def __init__(self, file: BinaryIO, storage: Callable[[Any], tuple[Tensor, torch.dtype]]) -> None:
        super().__init__(file, encoding="latin1")
        self.storage = storage
        # Closures of this unpickler, so that a file that sets attributes on them reaches nobody else.
        self.known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch", "Size"): lambda sizes: tuple(sizes),
            ("torch._utils", "_rebuild_tensor"): lambda storage, *layout: _strided(storage, *layout),
            ("torch._utils", "_rebuild_tensor_v2"): lambda storage, *layout: _strided(storage, *layout[:3]),
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
        }

    def find_class(self, module: str, name: str) -> Any:
        if module in ("torch", "torch.storage") and name in STORAGES:
            return STORAGES[name]
        if (module, name) in self.known:
            return self.known[module, name]
        return type("Inert", (Inert,), {"name": f"{module}.{name}"})

    def persistent_load(self, identity: Any) -> tuple[Tensor, torch.dtype]:
        return self.storage(identity)


def _strided(storage: tuple[Tensor, torch.dtype], offset: int, size: Any, stride: Any) -> Tensor:
    data, dtype = storage
    elements = data.view(dtype)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if any(n < 0 for n in (*size, *stride, offset)) or (math.prod(size) and last >= elements.numel()):
        raise ValueError(f"a tensor of shape {tuple(size)} lies outside of its {elements.numel()} stored values")
    return elements.as_strided(tuple(size), tuple(stride), offset)


def _load_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1 or pickles[0].replace("data.pkl", "constants.pkl") in names:
            raise SpeakError(f"{path}: not a file of torch.save" + (": a TorchScript program" if pickles else ""))
        folder = pickles[0].removesuffix("data.pkl")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise SpeakError(f"{path}: not a file of torch.save: its parts are compressed")
        if folder + "byteorder" in names and archive.read(folder + "byteorder") != b"little":
            raise SpeakError(f"{path}: written on a big-endian machine; save it again on this one")
        storages: dict[str, Tensor] = {}

        def storage(identity: Any) -> tuple[Tensor, torch.dtype]:
            kind, dtype, key, _, count = identity
            if kind != "storage" or not isinstance(dtype, torch.dtype):
                raise pickle.UnpicklingError(f"unknown stored object {kind!r}")
            if key not in storages:
                data = archive.read(f"{folder}data/{key}")  # checks the checksum
                if len(data) != count * dtype.itemsize:
                    raise ValueError(f"storage {key} has {len(data)} bytes, not {count * dtype.itemsize}")
                storages[key] = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else _no_bytes()
            return storages[key], dtype

        with archive.open(pickles[0]) as file:
            return _Unpickler(file, storage).load()


def _load_legacy(file: BinaryIO, path: Path) -> Any:
    """Before torch 1.6: magic number, protocol, system, the pickle, the storages' keys, then their values."""

    def nothing(identity: Any) -> Any:
        raise pickle.UnpicklingError("a storage where none belongs")

    magic, protocol, system = (_Unpickler(file, nothing).load() for _ in range(3))
    if magic != LEGACY_MAGIC or protocol != LEGACY_PROTOCOL:
        raise SpeakError(f"{path}: not a file of torch.save")
    if not (isinstance(system, dict) and system.get("little_endian", True)):
        raise SpeakError(f"{path}: written on a big-endian machine; save it again on this one")
    storages: dict[str, tuple[Tensor, torch.dtype]] = {}

    def storage(identity: Any) -> tuple[Tensor, torch.dtype]:
        if identity[0] == "module":  # a whole module was saved: (class, source file, source); the class is inert
            return identity[1]
        kind, dtype, key, _, count, *view = identity
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"unknown stored object {kind!r}")
        if key not in storages:
            left = path.stat().st_size - file.tell()
            if not 0 <= count * dtype.itemsize <= left:
                raise ValueError(f"storage {key} of {count * dtype.itemsize} bytes in a file with {left} left")
            storages[key] = torch.zeros(count * dtype.itemsize, dtype=torch.uint8), dtype
        data, dtype = storages[key]
        if view and view[0] is not None:  # a view of an older kind: (key, offset, size)
            _, offset, size = view[0]
            return data[offset * dtype.itemsize:(offset + size) * dtype.itemsize], dtype
        return data, dtype

    content = _Unpickler(file, storage).load()
    for key in _Unpickler(file, nothing).load():
        data, dtype = storages[key]
        (count,) = struct.unpack("<q", file.read(8))
        stored = file.read(data.numel())
        if count * dtype.itemsize != data.numel() or len(stored) != data.numel():
            raise ValueError(f"storage {key} has {len(stored)} bytes, not {data.numel()}")
        if stored:
            data.copy_(torch.frombuffer(bytearray(stored), dtype=torch.uint8))
    return content


def _no_bytes() -> Tensor:
    return torch.zeros(0, dtype=torch.uint8)

