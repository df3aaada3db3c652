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

SOURCES = Path(__file__).parent.parent.parent / "csrc"
EMULATION = Path(__file__).parent / "emulation"
TORCH = Path(torch.__file__).parent
COMMON = ["-std=c++17", "-O1", "-fPIC", "-fvisibility=hidden", "-fno-strict-aliasing", "-Wno-unknown-pragmas"]
# A faulty index or alignment in device code calls back into emulation.cpp, which stands in for the sanitizer's runtime.
DEVICE = ["-x", "c++", "-include", "emulation.h", "-fsanitize=bounds-strict,alignment", f"-I{EMULATION}"]
# Small grids, so that every kernel must stride over the rest, as on a GPU it must over 2^30 blocks and 65535 planes.
DEVICE += ["-DSPEAK_MOST_BLOCKS=5", "-DSPEAK_MOST_PLANES=3"]
TORCH_HEADERS = f"-isystem{TORCH / 'include'}"
STABLE = ["-DTORCH_TARGET_VERSION=0x020a000000000000", "-DPy_LIMITED_API=0x030A0000", TORCH_HEADERS]
BINDINGS = [*STABLE, "-DSPEAK_CUDA_DISPATCH_KEY=CPU", "-include", "torch_device.h", f"-I{EMULATION}"]
SCHEMAS = [*STABLE, '-DSPEAK_KERNELS_TAG="emulated"']


def unavailable() -> str | None:
    """Why the emulator cannot be built here, or None."""
    return None if shutil.which("g++") else "g++ is not installed: the emulator cannot be built"


def build(
    sources: Path,  # csrc, or a copy of it
    namespace: str,  # of the operators: renaming the sources' namespace puts them beside the real ones
) -> Path:
    """The emulated operators' library; the same sources are built once and kept among the temporary files."""
    renamed = f"-Dspeak={namespace}"
    units = [(source, [*DEVICE, renamed]) for source in sorted((sources / "cuda").glob("*.cu"))]
    units += [(sources / "cuda" / "bindings.cpp", [*BINDINGS, renamed]), (sources / "speak.cpp", [*SCHEMAS, renamed])]
    units += [(EMULATION / "emulation.cpp", []), (EMULATION / "guarded_memory.cpp", [TORCH_HEADERS])]
    digest = hashlib.sha256(f"{torch.__version__} {[options for _, options in units]} {COMMON}".encode())
    for path in sorted([*sources.glob("cuda/*"), *sources.glob("*.*"), *EMULATION.iterdir()]):
        digest.update(path.read_bytes())
    library = Path(tempfile.gettempdir()) / f"speak-emulated-{os.getuid()}" / f"{digest.hexdigest()[:16]}.so"
    if library.exists():
        return library
    library.parent.mkdir(mode=0o700, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder, ThreadPoolExecutor(2) as pool:

        def compile_unit(unit: tuple[Path, list[str]]) -> str:
            target = f"{folder}/{unit[0].name}.o"
            run(["g++", *COMMON, *unit[1], "-c", str(unit[0]), "-o", target])
            return target

        objects = list(pool.map(compile_unit, units))
        linked = [f"-L{TORCH / 'lib'}", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{TORCH / 'lib'}"]
        run(["g++", "-shared", "-o", f"{folder}/library.so", *objects, *linked])
        os.replace(f"{folder}/library.so", library)
    return library


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


def load(sources: Path = SOURCES, namespace: str = "speak_emulated") -> ctypes.CDLL:
    """Makes the operators torch.ops.NAMESPACE; returns the emulator's own controls."""
    library = build(sources, namespace)
    torch.ops.load_library(str(library))
    return ctypes.CDLL(str(library))
