"""The compiled library: found once, never built here; and the one setting that says whether it is used.

`auto` takes the compiled kernel where there is one for the tensor and else the reference, saying why, once;
`compiled` makes a missing kernel an error; `reference` is plain PyTorch.

The library `speak_kernels` is a file of its own in site-packages, so that a clone that shadows the installed
package finds it all the same. Its build tag is read from the file before it is loaded: a stale one is refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import mmap
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd import forward_ad

from speak.errors import SpeakError

# Changed with every change of csrc/speak.cpp's signatures or of their meaning.
KERNELS_TAG = "speak-kernels-3"

BACKENDS = ("auto", "reference", "compiled")
CPU_DTYPES = (torch.float32, torch.float64, torch.bfloat16)
CUDA_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@dataclasses.dataclass(frozen=True)
class Library:
    """What was found: `missing` is None where the library is loaded, else the reason in a few words."""

    path: str | None
    missing: str | None
    torch_version: str | None = None  # that it was built with
    cuda: str | None = None  # version of CUDA that it was built for; None without CUDA kernels


def build_tag(path: Path) -> str | None:
    """The tag inside a compiled library, read without loading it; None where there is none."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        found = re.search(rb"speak_kernels_build\{([^}]*)\}", content)
        return found.group(1).decode() if found else None


def find_library() -> Library:
    """Finds `speak_kernels`, checks its tag and loads it. Never raises: the reason is in `missing`."""
    spec = importlib.util.find_spec("speak_kernels")
    if spec is None or not spec.origin:
        return Library(None, "the package was installed without a compiler")
    path = Path(spec.origin)
    try:
        tag = build_tag(path)
        parts = (tag or "no tag").split(";")
        if parts[0] != KERNELS_TAG:
            return Library(str(path), f"{path.name} is stale ({parts[0]}, wanted {KERNELS_TAG}): pip install again")
        torch.ops.load_library(str(path))
    except (OSError, ValueError) as error:
        return Library(str(path), f"{path.name} cannot be loaded: {str(error).splitlines()[0]}")
    facts = dict(part.partition("=")[::2] for part in parts[1:])
    cuda = facts.get("cuda")
    return Library(str(path), None, facts.get("torch"), None if cuda == "none" else cuda)


LIBRARY = find_library()

_backend = "auto"
_told: set[str] = set()


def get_backend() -> str:
    """The setting in force: `auto`, `reference` or `compiled`."""
    return _backend


def set_backend(name: str) -> None:
    """Chooses the implementation for all operators from now on. Raises SpeakError for an unknown name."""
    global _backend
    if name not in BACKENDS:
        raise SpeakError(f"unknown backend '{name}': choose from {', '.join(BACKENDS)}")
    _backend = name


@contextlib.contextmanager
def backend(name: str) -> Iterator[None]:
    """`with backend("reference"): ...` chooses for a while."""
    before = get_backend()
    set_backend(name)
    try:
        yield
    finally:
        set_backend(before)


def why_not_compiled(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why there is no compiled kernel for tensors of this device and dtype; None where there is."""
    if LIBRARY.missing:
        return LIBRARY.missing
    if device.type == "cpu":
        return None if dtype in CPU_DTYPES else f"{str(dtype).removeprefix('torch.')} is not compiled for CPU"
    if device.type != "cuda":
        return f"there are no kernels for device type {device.type}"
    if LIBRARY.cuda is None:
        return "the library was built without CUDA"
    return None if dtype in CUDA_DTYPES else f"{str(dtype).removeprefix('torch.')} is not compiled for CUDA"


def check_devices(x: Tensor, **operands: Tensor | None) -> None:
    """Raises ValueError for an operand on another device than x: kernels on CPU would not notice a meta tensor."""
    for name, operand in operands.items():
        if operand is not None and operand.device != x.device:
            raise ValueError(f"{name} must be on the device of x, {x.device}, not on {operand.device}")


def use_compiled(
    x: Tensor,
    operator: str,  # its public name, for messages
    unsupported: str | None = None,  # why this very call has no kernel, where it has none
) -> bool:
    """Whether `operator` runs compiled on x, by the setting. Raises SpeakError where `compiled` cannot be."""
    if _backend == "reference":
        return False
    if getattr(forward_ad, "_current_level", -1) >= 0:  # kernels have no forward-mode derivatives
        unsupported = "forward-mode derivatives are not compiled"
    reason = unsupported or why_not_compiled(x.device, x.dtype)
    if reason is None:
        return True
    if _backend == "compiled":
        raise SpeakError(f"{operator} has no compiled kernel here: {reason}")
    if x.device.type in ("cpu", "cuda") and reason not in _told and not torch.compiler.is_compiling():
        _told.add(reason)
        warnings.warn(f"speak: operators run on plain PyTorch ({operator}: {reason})", stacklevel=3)
    return False
