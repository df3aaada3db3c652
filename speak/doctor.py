"""`python -m speak doctor`: what is installed, what is compiled, which path each operator takes and why."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from typing import Any

from speak.bench import print_table, processor
from speak.version import TORCH_TESTED, __version__

PACKAGES = ("torch", "numpy", "scipy", "soundfile", "imageio", "imageio-ffmpeg", "tqdm")
# Extras, and what they would do.
EXTRAS = {
    "dlib": "faces: finds real faces and their 68 landmarks (pip install 'speak[faces]')",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run(arguments: argparse.Namespace) -> None:
    """Prints the report. Never fails for what is missing: it says so."""
    for title, rows in report().items():
        print(title)
        for name, value in rows.items():
            print(f"  {name:18}{value}")
        print()
    print("paths of the operators (backend: auto)")
    print_table(operator_paths())


def report() -> dict[str, dict[str, Any]]:
    """{title: {what: value}}: versions, machine, compiled library, extras."""
    import torch

    from speak import ops
    from speak.precision import has_fast_bfloat16

    low, high = TORCH_TESTED
    release = ".".join(torch.__version__.split(".")[:2])
    tested = "tested" if _number(low) <= _number(release) <= _number(high) else "not tested"
    versions: dict[str, Any] = {"speak": __version__, "python": platform.python_version()}
    versions |= {name: _version(name) for name in PACKAGES}
    versions["torch"] += f" ({tested}: {low} to {high} are)"

    library = ops.LIBRARY
    compiled: dict[str, Any] = {"library": library.path or "none"}
    if library.missing:
        compiled["not used"] = library.missing
    else:
        compiled |= {"built with torch": library.torch_version, "cuda kernels": library.cuda or "not built"}
    compiled["compiler"] = shutil.which("c++") or "none: a new install would run on plain PyTorch"
    compiled["nvcc"] = shutil.which("nvcc") or "none"

    machine: dict[str, Any] = {
        "processor": f"{processor()} ({platform.machine()})",
        "threads": f"{torch.get_num_threads()} of {os.cpu_count()} logical cores",
        "memory": _memory(),
        "bfloat16": "fast" if has_fast_bfloat16() else "slow here: float32 is used",
        "gpu": _gpus(),
        "keep memory": "on in commands (SPEAK_KEEP_MEMORY=0 turns it off)" if _has_mallopt() else "needs glibc",
    }
    extras = {
        name: "installed" if importlib.util.find_spec(name) else f"not installed; {purpose}"
        for name, purpose in EXTRAS.items()
    }
    return {"versions": versions, "machine": machine, "compiled operators": compiled, "extras": extras}


def operator_paths() -> list[dict[str, str]]:
    """A row for each device and dtype: the path that operators take, and why it is not the compiled one."""
    import torch

    from speak import ops

    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    rows = []
    for device in devices:
        for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
            reason = ops.why_not_compiled(torch.device(device), dtype)
            row = {"device": device, "dtype": str(dtype).removeprefix("torch.")}
            for name in ("upfirdn2d", "bias_act", "epilogue"):
                row[name] = "reference" if reason else "compiled"
            row["convolution"] = _convolution_path(device, dtype, reason)
            row["why"] = reason or "activations linear, relu, lrelu; others on the reference"
            rows.append(row)
    return rows


def _convolution_path(device: str, dtype: Any, reason: str | None) -> str:
    import torch

    from speak.ops.modulated_conv2d import FUSED_CUDA

    if reason:
        return "per-sample weights, grouped"
    if device == "cuda":
        narrow = f"; 3x3 up to {FUSED_CUDA['channels']} channels fused (wmma)" if dtype == FUSED_CUDA["dtype"] else ""
        return f"cuDNN + epilogue{narrow}"
    prepacked = dtype in (torch.float32, torch.bfloat16) and torch.backends.mkldnn.is_available()
    return "oneDNN, prepacked without gradients + epilogue" if prepacked else "torch + epilogue"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _number(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split("."))


def _memory() -> str:
    try:
        total, free = (os.sysconf(name) * os.sysconf("SC_PAGE_SIZE") for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
    except (ValueError, OSError):
        return "unknown"
    return f"{total / 2**30:.1f} GiB, {free / 2**30:.1f} free"


def _gpus() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none" if torch.version.cuda else "none (this torch is built without CUDA)"
    names = []
    for index in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(index)
        memory = torch.cuda.get_device_properties(index).total_memory / 2**30
        names.append(f"{torch.cuda.get_device_name(index)} (sm_{major}{minor}, {memory:.0f} GiB)")
    return "; ".join(names)


def _has_mallopt() -> bool:
    return sys.platform.startswith("linux") and platform.libc_ver()[0] == "glibc"
