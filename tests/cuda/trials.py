"""What the CUDA operators are tried on, and how one trial is judged."""

import zlib

import references
import torch
from torch import Tensor

from tests.tolerances import assert_close

HALF, BFLOAT, FLOAT, DOUBLE = torch.float16, torch.bfloat16, torch.float32, torch.float64
DTYPES = [HALF, BFLOAT, FLOAT, DOUBLE]
LAYOUTS = ["planar", "last"]
IMAGES = [*LAYOUTS, "shifted", "strided", "expanded"]  # the last three come to the kernels after a copy, or 1 wide
LRELU, CLAMPED, LINEAR = (0.2, 2**0.5, -1.0), (0.2, 2**0.5, 0.7), (1.0, 0.5, -1.0)


def drawn(generator: torch.Generator, shape: tuple, dtype: torch.dtype = DOUBLE, layout: str = "planar") -> Tensor:
    """Normal random numbers, laid out in memory as `layout` says."""
    values = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    if layout == "last":
        return values.contiguous(memory_format=torch.channels_last) if values.dim() == 4 else values
    if layout == "shifted":  # dense, but off the 128-bit boundaries
        store = torch.cat([values.new_zeros(1), values.flatten()])
        return store[1:].view(shape)
    if layout == "strided":
        store = torch.randn((*shape[:-1], 2 * shape[-1]), generator=generator, dtype=torch.float64).to(dtype)
        store[..., ::2] = values
        return store[..., ::2]
    if layout == "expanded":
        return values[:1].expand(shape)
    return values


def small(dtype: torch.dtype) -> torch.dtype:
    return DOUBLE if dtype == DOUBLE else FLOAT


def generator_of(*of: object) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(repr(of).encode()))


def format_of(x: Tensor) -> torch.memory_format:
    last = x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def check(machine, name: str, arguments: list, keeps_format: bool = True) -> tuple:
    """Runs one operator, compares every run with the reference and, bit for bit, with the first."""
    expected = getattr(references, name)(*arguments)
    expected = (expected,) if isinstance(expected, Tensor) else expected
    moved = [a.to(machine.device) if isinstance(a, Tensor) else a for a in arguments]
    data = next(a for a in moved if isinstance(a, Tensor) and a.dim() >= 1)
    first = None
    for result in machine.runs(lambda: getattr(machine.operators, name)(*moved)):
        result = (result,) if isinstance(result, Tensor) else result
        assert len(result) == len(expected)
        for actual, wanted in zip(result, expected, strict=True):
            assert_close(actual, wanted)
            if actual.dim() == 4 and format_of(data) == torch.channels_last:
                assert actual.is_contiguous(memory_format=format_of(data) if keeps_format else torch.contiguous_format)
        if first is not None:
            for actual, before in zip(result, first, strict=True):
                assert torch.equal(actual, before), "another order of threads, another result"
        first = result
    return first


def operands(g: torch.Generator, which: str, images: int, channels: int, size: tuple, dtype: torch.dtype) -> list:
    """demodulation, noise, bias and next_styles; `which` names those that are there: d, n (shared: m), b, s."""
    return [
        drawn(g, (images, channels), dtype) if "d" in which else None,
        drawn(g, (1 if "m" in which else images, *size), dtype) if "n" in which or "m" in which else None,
        drawn(g, (channels,), dtype) if "b" in which else None,
        drawn(g, (images, channels), dtype) if "s" in which else None,
    ]
