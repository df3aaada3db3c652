"""Builds the compiled operators ahead of time, where a compiler is; the package installs and runs without them.

Environment:
  SPEAK_BUILD=auto|require|skip   auto (default): a failed build is reported and left out; require: it is an error.
  SPEAK_CUDA=auto|require|skip    auto: CUDA kernels where nvcc is there and this torch has CUDA.
  TORCH_CUDA_ARCH_LIST            default: 7.0 where the toolkit still knows it, and what it adds up to 9.0.
"""

import os
import re
import subprocess
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent


def choice(variable: str) -> str:
    value = os.environ.get(variable, "auto")
    if value not in ("auto", "require", "skip"):
        raise SystemExit(f"{variable}={value}: choose auto, require or skip")
    return value


def kernels_tag() -> str:
    """The tag that speak/ops/extension.py asks for, so that a library of other sources is never loaded."""
    text = (ROOT / "speak" / "ops" / "extension.py").read_text()
    return re.search(r'^KERNELS_TAG = "([^"]+)"', text, re.M).group(1)


def architectures(nvcc: str) -> str:
    listed = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout
    known = [f"{a[:-1]}.{a[-1]}" for a in re.findall(r"compute_(\d+)\b", listed)]
    wanted = [a for a in ("7.0", "7.5", "8.0", "8.6", "8.9", "9.0") if a in known]
    return ";".join(wanted[:-1] + [wanted[-1] + "+PTX"])


def extension() -> tuple[list, dict]:
    """ext_modules and cmdclass; empty where the build is skipped or torch is not there to build with."""
    if choice("SPEAK_BUILD") == "skip":
        return [], {}
    try:
        import torch
        from torch.utils import cpp_extension
    except ImportError as error:
        if choice("SPEAK_BUILD") == "require":
            raise SystemExit(f"SPEAK_BUILD=require: {error}") from None
        print(f"speak: built without compiled operators ({error})")
        return [], {}

    class OptionalBuild(cpp_extension.BuildExtension):
        """torch's build, except that a failure leaves the package without compiled operators."""

        def run(self) -> None:
            try:
                super().run()
            except (Exception, SystemExit) as error:
                if choice("SPEAK_BUILD") == "require":
                    raise
                print(f"speak: built without compiled operators; SPEAK_BUILD=require shows why ({error})")
                self.extensions = []

    nvcc = cpp_extension.CUDA_HOME and os.path.join(cpp_extension.CUDA_HOME, "bin", "nvcc")
    with_cuda = choice("SPEAK_CUDA") != "skip" and bool(torch.version.cuda and nvcc and os.path.exists(nvcc))
    if choice("SPEAK_CUDA") == "require" and not with_cuda:
        raise SystemExit(f"SPEAK_CUDA=require: nvcc {nvcc or 'not found'}, torch built for CUDA {torch.version.cuda}")

    sources = ["csrc/speak.cpp", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "csrc" / "cpu").glob("*.cpp"))]
    tag = f"{kernels_tag()};torch={torch.__version__};cuda={torch.version.cuda if with_cuda else 'none'}"
    common = ["-DTORCH_TARGET_VERSION=0x020a000000000000", f'-DSPEAK_KERNELS_TAG="{tag}"', "-fvisibility=hidden"]
    flags = {"cxx": [*common, "-O3", "-std=c++17", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"]}
    make = cpp_extension.CppExtension
    if with_cuda:
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", architectures(nvcc))
        sources += sorted(str(p.relative_to(ROOT)) for p in (ROOT / "csrc" / "cuda").glob("*.c*") if p.suffix != ".cuh")
        flags["nvcc"] = [common[0], "-O3", "-std=c++17", "--expt-relaxed-constexpr", "-DUSE_CUDA"]
        flags["cxx"].append("-DUSE_CUDA")
        make = cpp_extension.CUDAExtension
    built = make("speak_kernels", sources, extra_compile_args=flags, py_limited_api=True)
    return [built], {"build_ext": OptionalBuild}


modules, commands = extension()
setup(
    ext_modules=modules,
    cmdclass=commands,
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if modules else {},
)
