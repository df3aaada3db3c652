"""Which number format the networks compute in: `--dtype auto|float32|bfloat16|float16`."""

from __future__ import annotations

import torch

from speak.errors import SpeakError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def has_fast_bfloat16() -> bool:
    """Whether this processor computes in bfloat16 itself: elsewhere it is slower than float32."""
    try:
        with open("/proc/cpuinfo") as file:
            flags = next((line for line in file if line.startswith(("flags", "Features"))), "").split()
        return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", "bf16"))
    except OSError:
        return torch.backends.cpu.get_cpu_capability() in ("AVX512_BF16", "AMX")


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype called `name`; `auto`: bfloat16 where the device computes in it, float16 on older GPUs, else float32.

    Raises SpeakError for an unknown name, and for float16 on a CPU, where nothing is compiled for it.
    """
    if name == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16
        return torch.bfloat16 if device.type == "cpu" and has_fast_bfloat16() else torch.float32
    if name not in DTYPES:
        raise SpeakError(f"--dtype {name}: choose auto, {', '.join(DTYPES)}")
    if name == "float16" and device.type == "cpu":
        raise SpeakError("--dtype float16: is for GPUs, on a CPU choose float32 or bfloat16")
    return DTYPES[name]


def choose_device(name: str | None) -> torch.device:
    """The device called `name`; None: cuda where there is one, else the CPU. Raises SpeakError for one not here."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SpeakError(f"--device {name}: choose cpu or cuda") from None
    if device.type not in ("cpu", "cuda"):
        raise SpeakError(f"--device {name}: choose cpu or cuda")
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise SpeakError(f"--device {name}: no such CUDA device here, use --device cpu")
    return device
