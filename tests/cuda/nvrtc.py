"""NVRTC 12 from PyPI: CUDA sources to machine code with neither a GPU nor a toolkit."""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Compiled(NamedTuple):
    failed: int  # NVRTC's return code
    log: str
    ptx: str


def nvrtc_compile(source: Path, architecture: str) -> Compiled:
    """What NVRTC makes of a source. It runs ptxas as well when asked for sm_ instead of compute_."""
    import nvidia.cuda_nvcc
    import nvidia.cuda_nvrtc
    import nvidia.cuda_runtime

    nvrtc = ctypes.CDLL(str(Path(nvidia.cuda_nvrtc.__file__).parent / "lib" / "libnvrtc.so.12"))
    headers = [Path(module.__file__).parent / "include" for module in (nvidia.cuda_runtime, nvidia.cuda_nvcc)]
    options = [
        f"--gpu-architecture={architecture}",
        "--std=c++17",
        "-default-device",  # the launch functions are host code: read as device code, they name every instance
        *(f"-I{folder}" for folder in (source.parent, *headers)),
        "--ptxas-options=-v",
    ]
    program = ctypes.c_void_p()

    def text(get_size: Callable, get: Callable) -> str:
        size = ctypes.c_size_t()
        get_size(program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        get(program, buffer)
        return buffer.value.decode()

    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.read_bytes(), source.name.encode(), 0, None, None)
    encoded = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
    failed = nvrtc.nvrtcCompileProgram(program, len(options), encoded)
    log = text(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog)
    ptx = "" if failed else text(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return Compiled(failed, log, ptx)
