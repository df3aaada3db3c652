"""Builds the CUDA half of the compiled core for the CPU: its sources as they are, over emulation/."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent.parent
SOURCES = ROOT / "csrc"
EMULATION = Path(__file__).parent / "emulation"
TORCH = Path(torch.__file__).parent
COMMON = ["-std=c++17", "-O1", "-fPIC", "-fvisibility=hidden", "-fno-strict-aliasing", "-Wno-unknown-pragmas"]
# A faulty index or alignment in device code calls back into emulation.cpp, which stands in for the sanitizer's runtime.
DEVICE = ["-x", "c++", "-include", "emulation.h", "-fsanitize=bounds-strict,alignment", f"-I{EMULATION}"]
# Renaming the namespace renames the operators, too: they live beside the real ones, with the same signatures.
HOST = [
    "-Dspeak=speak_emulated",
    "-DTORCH_TARGET_VERSION=0x020a000000000000",
    "-DPy_LIMITED_API=0x030A0000",
    f"-isystem{TORCH / 'include'}",
]
BINDINGS = [*HOST, "-DSPEAK_CUDA_DISPATCH_KEY=CPU", "-include", "torch_device.h", f"-I{EMULATION}"]
SCHEMAS = [*HOST, '-DSPEAK_KERNELS_TAG="emulated"']


def unavailable() -> str | None:
    """Why the emulator cannot be built here, or None."""
    return None if shutil.which("g++") else "g++ is not installed: the emulator cannot be built"


def build(device_sources: list[Path], name: str, with_operators: bool = True) -> Path:
    """A library of these device sources; the same sources are built once and kept among the temporary files."""
    units = [(source, [*DEVICE, "-Dspeak=speak_emulated", f"-I{SOURCES / 'cuda'}"]) for source in device_sources]
    units.append((EMULATION / "emulation.cpp", []))
    if with_operators:
        units += [(SOURCES / "cuda" / "bindings.cpp", BINDINGS), (SOURCES / "speak.cpp", SCHEMAS)]
    digest = hashlib.sha256(f"{torch.__version__} {units} {COMMON}".encode())
    read = {*SOURCES.rglob("*"), *EMULATION.iterdir(), *device_sources}
    for path in sorted(path for path in read if path.is_file()):
        digest.update(path.read_bytes())
    library = Path(tempfile.gettempdir()) / f"speak-emulated-{os.getuid()}" / f"{name}-{digest.hexdigest()[:16]}.so"
    if library.exists():
        return library
    library.parent.mkdir(mode=0o700, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder, ThreadPoolExecutor(2) as pool:

        def compile_unit(unit: tuple[Path, list[str]]) -> str:
            target = f"{folder}/{unit[0].name}.o"
            run(["g++", *COMMON, *unit[1], "-c", str(unit[0]), "-o", target])
            return target

        objects = list(pool.map(compile_unit, units))
        linked = [f"-L{TORCH / 'lib'}", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{TORCH / 'lib'}"] if with_operators else []
        run(["g++", "-shared", "-o", f"{folder}/library.so", *objects, *linked])
        os.replace(f"{folder}/library.so", library)
    return library


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


def load() -> ctypes.CDLL:
    """The operators as torch.ops.speak_emulated, and the emulator's own controls."""
    library = build(sorted((SOURCES / "cuda").glob("*.cu")), "operators")
    torch.ops.load_library(str(library))
    return ctypes.CDLL(str(library))
