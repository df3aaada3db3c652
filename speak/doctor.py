"""`python -m speak doctor`: what is installed, what is compiled, which path each operator takes and why.

With `--preset NAME`, what every part of that model costs as well.
"""

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
from speak.config import PRESETS, preset
from speak.version import TORCH_TESTED, __version__

PACKAGES = ("torch", "numpy", "scipy", "soundfile", "imageio", "imageio-ffmpeg", "tqdm")
# Extras: the modules that make one, and what it is for.
EXTRAS = {
    "faces": (("dlib",), "finds faces at more angles, and their landmarks"),
    "test": (
        ("pytest", "ruff", "ninja", "skimage", "transformers", "safetensors", "python_speech_features",
         "nvidia.cuda_nvrtc", "nvidia.cuda_runtime", "nvidia.cuda_nvcc"),
        "runs every test",
    ),
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", choices=list(PRESETS), help="also say what every part of this model costs")


def run(arguments: argparse.Namespace) -> None:
    """Prints the report. Never fails for what is missing: it says so."""
    for title, rows in report().items():
        print(title)
        for name, value in rows.items():
            print(f"  {name:18}{value}")
        print()
    print("paths of the operators (backend: auto)")
    print_table(operator_paths())
    if arguments.preset:
        from speak.models.profile import describe, memory_table, table, training_memory

        print(f"\npreset {arguments.preset} (multiply-adds and activations of a forward pass in float32)")
        print_table(table(describe(arguments.preset)))
        print("\ntraining it, about, in float32 (mixed precision halves what a sample takes)")
        print_table(memory_table(training_memory(preset(arguments.preset))))


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
    extras = {name: _extra(name, *about) for name, about in EXTRAS.items()}
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

    from speak.ops.modulated_conv2d import FUSED_CUDA, PARTS_CPU
    from speak.ops.prepacked_conv import has_matrix_tiles

    if reason:
        return "per-sample weights, grouped"
    if device == "cuda":
        narrow = f"; 3x3 up to {FUSED_CUDA['channels']} channels fused (wmma)" if dtype == FUSED_CUDA["dtype"] else ""
        return f"cuDNN + epilogue{narrow}"
    prepacked = dtype in (torch.float32, torch.bfloat16) and torch.backends.mkldnn.is_available()
    if not prepacked:
        return "torch + epilogue"
    in_parts = dtype in PARTS_CPU and (has_matrix_tiles() or not PARTS_CPU[dtype]["tiles"])
    parts = "; up-sampling 3x3 in parts" if in_parts else ""
    return f"oneDNN, prepacked without gradients + epilogue{parts}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _extra(name: str, modules: tuple[str, ...], purpose: str) -> str:
    missing = [module for module in modules if not _is_there(module)]
    if not missing:
        return f"installed: {purpose}"
    lacking = "not installed" if len(missing) == len(modules) else f"lacks {', '.join(missing)}"
    return f"{lacking}; {purpose} (pip install '.[{name}]')"


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it
        return False


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
