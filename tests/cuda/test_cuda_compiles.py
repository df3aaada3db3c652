"""Every device source compiles to machine code without a GPU: for sm_70 and its successors by NVRTC 12, which PyPI has,
and for what a newer toolkit knows by nvcc, where it is installed."""

import multiprocessing
import re
import shutil
import subprocess
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import emulator
import pytest
from nvrtc import Compiled, nvrtc_compile

CUDA = emulator.SOURCES / "cuda"
SOURCES = sorted(CUDA.glob("*.cu"))
ARCHITECTURES = ["sm_70", "sm_75", "sm_80", "sm_90"]
MOST_REGISTERS, MOST_SHARED = 255, 48 * 1024  # a thread's, and what a block gets without asking
PTXAS = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Kernel:
    name: str
    stack: int
    stores: int
    loads: int
    registers: int
    shared: int


def kernels_in(log: str) -> list[Kernel]:
    """What ptxas says of each kernel."""
    found = []
    for match in PTXAS.finditer(log):
        shared = re.search(r"(\d+) bytes smem", match["rest"])
        numbers = [int(match[key]) for key in ("stack", "stores", "loads", "registers")]
        found.append(Kernel(match["name"], *numbers, int(shared[1]) if shared else 0))
    return found


@pytest.fixture(scope="module")
def compiled() -> dict[tuple[str, str], Compiled]:
    for package in ("cuda_nvrtc", "cuda_runtime", "cuda_nvcc"):
        pytest.importorskip(f"nvidia.{package}", reason="the NVRTC wheels (extra `test`) are not installed")
    every = [(source, architecture) for architecture in ARCHITECTURES for source in SOURCES]
    # In processes, since NVRTC compiles one program at a time in each.
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        results = list(pool.map(nvrtc_compile, *zip(*every, strict=True)))
    return {(source.name, architecture): result for (source, architecture), result in zip(every, results, strict=True)}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_a_source_compiles_to_machine_code_without_spills(compiled, source, architecture) -> None:
    failed, log, _ = compiled[source.name, architecture]
    assert not failed, log
    kernels = kernels_in(log)
    header = source.with_suffix(".cuh").read_text()
    for name in re.findall(r"__global__.*?(\w+)\(const|__global__.*?(\w+)\(BackwardData", header, re.DOTALL):
        assert any("".join(name) in kernel.name for kernel in kernels), f"no instance of {name} was compiled"
    for kernel in kernels:
        print(f"{architecture} {kernel.registers:4} registers {kernel.shared:6} bytes shared  {kernel.name}")
        assert (kernel.stack, kernel.stores, kernel.loads) == (0, 0, 0), f"{kernel.name} spills: {kernel}"
        assert kernel.registers <= MOST_REGISTERS and kernel.shared <= MOST_SHARED, str(kernel)


def test_the_narrow_convolution_fits_twice_on_a_multiprocessor(compiled) -> None:
    for architecture, shared in [("sm_70", 96), ("sm_75", 64), ("sm_80", 164), ("sm_90", 228)]:  # KiB of each
        for kernel in kernels_in(compiled["modulated_conv3x3.cu", architecture].log):
            assert 2 * 128 * kernel.registers <= 65536 and 2 * kernel.shared <= shared * 1024, str(kernel)


def test_wide_kernels_move_128_bits_at_a_time(compiled) -> None:
    """Seen in PTX, since a compiler may take a wide access apart without a word."""
    kinds = "epilogue_pointwise|backward_planar|backward_last|blur_last|upfirdn2d_any"
    wide = re.compile(f"({kinds})I(6__halfLi8|fLi4|dLi2)E")
    found = set()
    for source in SOURCES:
        for kernel in compiled[source.name, "sm_70"].ptx.split(".entry ")[1:]:
            name = kernel.split("(")[0]
            if not wide.search(name) and "modulated_conv3x3" not in name:
                continue
            found.add(source.name)
            assert re.search(r"ld\.global\.(nc\.)?(v4\.[a-z]32|v2\.[a-z]64)", kernel), f"{name} has no 128-bit load"
            assert re.search(r"st\.global\.wb\.v4\.u32", kernel), f"{name} has no 128-bit store"
            assert ".local" not in kernel, f"{name} keeps an array in memory"
    assert found == {source.name for source in SOURCES}


def test_the_bindings_need_nothing_of_torch_but_its_stable_abi(tmp_path) -> None:
    if why := emulator.unavailable():
        pytest.skip(why)
    target = tmp_path / "bindings.o"
    options = [*emulator.COMMON, *emulator.STABLE, "-Wall", "-Werror"]
    emulator.run(["g++", *options, "-c", str(CUDA / "bindings.cpp"), "-o", str(target)])
    symbols = subprocess.run(["nm", "-C", "-u", target], capture_output=True, text=True, check=True).stdout
    assert "aoti_torch_get_current_cuda_stream" in symbols
    assert not re.search(r"\b(at|c10|torch)::(?!headeronly|stable)", symbols), symbols


def test_the_device_code_knows_nothing_of_torch_or_python() -> None:
    for source in [*SOURCES, *CUDA.glob("*.cuh"), CUDA / "kernels.h"]:
        included = re.findall(r'#include [<"](.*?)[>"]', source.read_text())
        assert not [name for name in included if re.match("torch|ATen|c10|Python", name)], source.name


@pytest.mark.skipif(not shutil.which("nvcc"), reason="nvcc is not installed: compiled by NVRTC only")
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_a_source_compiles_with_nvcc_launches_and_all(source, tmp_path) -> None:
    known = subprocess.run(["nvcc", "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout.split()
    oldest = min(int(name.removeprefix("compute_")) for name in known)
    architecture = f"arch=compute_{max(oldest, 70)},code=sm_{max(oldest, 70)}"
    target = tmp_path / "kernels.o"
    command = ["nvcc", "-std=c++17", "-O3", f"-gencode={architecture}", "-Xcompiler", "-fPIC", "-Xptxas", "-v"]
    done = subprocess.run([*command, "-c", str(source), "-o", str(target)], capture_output=True, text=True)
    assert done.returncode == 0 and "error" not in done.stderr, done.stderr
    kernels = kernels_in(done.stderr)
    assert kernels and all((k.stack, k.stores, k.loads) == (0, 0, 0) for k in kernels), done.stderr
