"""Up-sample, FIR-filter and down-sample images: zero-stuffing by `up`, padding, filtering, keeping every `down`th.

Closed under differentiation: the derivative is the same operator with up and down exchanged and the filter flipped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from speak.ops import extension
from speak.ops.bias_act import as_vector, dense


def setup_filter(
    f: Sequence[float] | Tensor | None,  # [taps] or [FH, FW]; None: the identity
    device: torch.device | str | None = None,  # default: torch's default device
    normalize: bool = True,  # to a sum of one
    flip_filter: bool = False,
    gain: float = 1,
    separable: bool | None = None,  # keep one-dimensional taps so; default: from 8 taps on
) -> Tensor:
    """A float32 filter for `upfirdn2d`, from taps such as [1, 3, 3, 1]."""
    device = torch.get_default_device() if device is None else device
    if not isinstance(f, Tensor):  # worked out where there are numbers, whatever the default device
        f = torch.tensor(1.0 if f is None else f, dtype=torch.float32, device="cpu")
    f = f.float()
    if f.ndim not in (0, 1, 2) or f.numel() == 0:
        raise ValueError(f"a filter has one or two dimensions and at least a tap, not shape {tuple(f.shape)}")
    f = f.reshape(1) if f.ndim == 0 else f
    if separable is None:
        separable = f.ndim == 1 and f.numel() >= 8
    if f.ndim == 1 and not separable:
        f = torch.outer(f, f)
    if separable and f.ndim != 1:
        raise ValueError("a two-dimensional filter cannot be kept as one-dimensional taps")
    if normalize:
        f = f / f.sum()
    if flip_filter:
        f = f.flip(list(range(f.ndim)))
    return (f * gain ** (f.ndim / 2)).to(device)


def upfirdn2d(
    x: Tensor,  # [N, C, H, W]
    f: Tensor | None,  # float32: [taps], used along both axes, or [FH, FW]; None: the identity
    up: int | Sequence[int] = 1,  # or [x, y]
    down: int | Sequence[int] = 1,  # or [x, y]
    padding: int | Sequence[int] = 0,  # or [x, y] or [x before, x after, y before, y after]; negative: crops
    flip_filter: bool = False,  # False: a true convolution; True: a correlation
    gain: float = 1,
) -> Tensor:
    """[N, C, (H * up + padding - FH) // down + 1, likewise W]; differentiable by x to any order.

    Raises ValueError for shapes that do not fit, and where the padded image is smaller than the filter.
    """
    numbers = _checked(x, f, up, down, padding, gain)
    if not extension.use_compiled(x, "upfirdn2d"):
        return upfirdn2d_ref(x, f, up, down, padding, flip_filter, gain)
    f = x.new_ones([1], dtype=torch.float32) if f is None else f.detach()
    return torch.ops.speak.upfirdn2d(x, as_vector(f, x), *numbers, flip_filter, float(gain))


def upfirdn2d_ref(
    x: Tensor, f: Tensor | None, up: int | Sequence[int] = 1, down: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0, flip_filter: bool = False, gain: float = 1,
) -> Tensor:  # fmt: skip
    """The specification of `upfirdn2d` in plain PyTorch, with the same arguments."""
    up_x, up_y, down_x, down_y, x0, x1, y0, y1 = _checked(x, f, up, down, padding, gain)
    batch, channels, height, width = x.shape
    f = x.new_ones([1]) if f is None else f.detach()

    x = x.reshape(batch, channels, height, 1, width, 1)
    x = functional.pad(x, [0, up_x - 1, 0, 0, 0, up_y - 1])  # zeros behind every sample
    x = x.reshape(batch, channels, height * up_y, width * up_x)
    x = functional.pad(x, [max(x0, 0), max(x1, 0), max(y0, 0), max(y1, 0)])
    x = x[:, :, max(-y0, 0) : x.shape[2] - max(-y1, 0), max(-x0, 0) : x.shape[3] - max(-x1, 0)]

    f = f.to(x.dtype)
    if not flip_filter:  # conv2d correlates
        f = f.flip(list(range(f.ndim)))
    kernels = [f[None, :], f[:, None]] if f.ndim == 1 else [f]
    for kernel in kernels:
        x = functional.conv2d(x, kernel.expand(channels, 1, *kernel.shape), groups=channels)
    return x[:, :, ::down_y, ::down_x] * gain


def upsample2d(x: Tensor, f: Tensor, up: int = 2, gain: float = 1) -> Tensor:
    """[N, C, H, W] -> [N, C, H * up, W * up], filtered with f; a constant image stays that constant."""
    p0, p1 = _spread(f, up)
    return upfirdn2d(x, f, up=up, padding=[p0[0], p1[0], p0[1], p1[1]], gain=gain * up * up)


def downsample2d(x: Tensor, f: Tensor, down: int = 2, gain: float = 1) -> Tensor:
    """[N, C, H, W] -> [N, C, H / down, W / down], filtered with f first."""
    taps_x, taps_y = filter_size(f)
    before = [(taps - down + 1) // 2 for taps in (taps_x, taps_y)]
    after = [(taps - down) // 2 for taps in (taps_x, taps_y)]
    return upfirdn2d(x, f, down=down, padding=[before[0], after[0], before[1], after[1]], gain=gain)


def filter_size(f: Tensor | None) -> tuple[int, int]:
    """(taps along x, taps along y) of a filter."""
    return (1, 1) if f is None else (f.shape[-1], f.shape[0])


def _spread(f: Tensor, up: int) -> tuple[list[int], list[int]]:
    sizes = filter_size(f)
    return [(taps + up - 1) // 2 for taps in sizes], [(taps - up) // 2 for taps in sizes]


def parse_padding(padding: int | Sequence[int]) -> tuple[int, int, int, int]:
    """(x before, x after, y before, y after) from the field's one, two or four numbers."""
    values = list(padding) if isinstance(padding, Sequence) else [padding] * 4
    if len(values) == 2:
        values = [values[0], values[0], values[1], values[1]]
    if len(values) != 4 or not all(isinstance(value, int) for value in values):
        raise ValueError(f"padding must be one, two or four whole numbers, not {padding}")
    return values[0], values[1], values[2], values[3]


def _pair(value: int | Sequence[int], name: str) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or not all(isinstance(v, int) and v >= 1 for v in pair):
        raise ValueError(f"{name} must be one or two whole numbers from 1 up, not {value}")
    return pair


def _checked(
    x: Tensor, f: Tensor | None, up: int | Sequence[int], down: int | Sequence[int],
    padding: int | Sequence[int], gain: float,
) -> tuple[int, int, int, int, int, int, int, int]:  # fmt: skip
    """(up x, up y, down x, down y, pads ...), or ValueError."""
    if x.ndim != 4 or not x.is_floating_point():
        raise ValueError(f"x must be floating point [N, C, H, W], not {x.dtype} {tuple(x.shape)}")
    if f is not None and (f.ndim not in (1, 2) or f.numel() == 0 or f.dtype not in (torch.float32, x.dtype)):
        raise ValueError(f"f must be float32 [taps] or [FH, FW], not {f.dtype} {tuple(f.shape)}")
    extension.check_devices(x, f=f)
    if not math.isfinite(gain):
        raise ValueError(f"gain must be finite, not {gain}")
    (up_x, up_y), (down_x, down_y) = _pair(up, "up"), _pair(down, "down")
    x0, x1, y0, y1 = parse_padding(padding)
    taps_x, taps_y = filter_size(f)
    height, width = x.shape[2] * up_y + y0 + y1, x.shape[3] * up_x + x0 + x1
    if min(x.shape[2:]) < 1 or height < taps_y or width < taps_x:
        raise ValueError(
            f"x {tuple(x.shape)} padded to {height} x {width} must be at least as large as the filter "
            f"{taps_y} x {taps_x}"
        )
    return up_x, up_y, down_x, down_y, x0, x1, y0, y1


def _setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, f, *ctx.numbers = inputs
    ctx.save_for_backward(f)
    ctx.size_in, ctx.size_out = x.shape[2:], output.shape[2:]


def _backward(ctx: Any, dy: Tensor) -> tuple:
    (f,) = ctx.saved_tensors
    up_x, up_y, down_x, down_y, x0, _, y0, _, flip_filter, gain = ctx.numbers
    (height, width), (out_height, out_width) = ctx.size_in, ctx.size_out
    taps_x, taps_y = filter_size(f)
    # Zero-stuffed by `down`, padded so that sample 0 of dx sees the outputs that sample 0 of x went into.
    padding = (
        taps_x - x0 - 1,
        width * up_x - out_width * down_x + x0 - up_x + 1,
        taps_y - y0 - 1,
        height * up_y - out_height * down_y + y0 - up_y + 1,
    )
    dx = torch.ops.speak.upfirdn2d(dy, f, down_x, down_y, up_x, up_y, *padding, not flip_filter, gain)
    return (dx,) + (None,) * 11


if not extension.LIBRARY.missing:

    @torch.library.register_fake("speak::upfirdn2d")
    def _(x, f, up_x, up_y, down_x, down_y, x0, x1, y0, y1, flip_filter, gain):  # noqa: ANN001, ANN202
        taps_x, taps_y = filter_size(f)
        height = (x.shape[2] * up_y + y0 + y1 - taps_y) // down_y + 1
        width = (x.shape[3] * up_x + x0 + x1 - taps_x) // down_x + 1
        return empty_in_layout_of(x, height, width)

    torch.library.register_autograd("speak::upfirdn2d", _backward, setup_context=_setup_context)


def empty_in_layout_of(x: Tensor, height: int, width: int, channels: int | None = None) -> Tensor:
    """[N, channels or x's, height, width] in the memory format that a kernel gives its result for x."""
    planar = dense(x).is_contiguous()
    memory_format = torch.contiguous_format if planar else torch.channels_last
    return torch.empty(
        (x.shape[0], channels or x.shape[1], height, width), dtype=x.dtype, device=x.device,
        memory_format=memory_format,
    )  # fmt: skip
