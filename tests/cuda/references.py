"""What the operators must compute, in float64 by torch's own functions; and what they are tried on."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def double(t: Tensor | None) -> Tensor | None:
    return None if t is None else t.detach().cpu().double()


def limit_of(clamp: float, dtype: torch.dtype) -> float:
    """The clamp as `dtype` holds it, so that a limited value of that dtype is found to be limited."""
    return torch.tensor(clamp, dtype=dtype).item()


def activated(t: Tensor, slope: float, gain: float, clamp: float) -> Tensor:
    t = torch.where(t > 0, t, slope * t) * gain
    return t if clamp < 0 else t.clamp(-clamp, clamp)


def slope_at(y: Tensor, slope: float, gain: float, clamp: float) -> Tensor:
    """dy/dt told from y."""
    limited = y.abs() >= limit_of(clamp, y.dtype) if clamp >= 0 else torch.zeros_like(y, dtype=torch.bool)
    rising = torch.full(y.shape, gain, dtype=torch.float64)
    return torch.where(y.cpu() > 0, rising, gain * slope).masked_fill(limited.cpu(), 0)


def along(v: Tensor | None, dim: int, rank: int, otherwise: float) -> Tensor | float:
    """v [size of dim], ready to be broadcast."""
    return otherwise if v is None else double(v).reshape([-1 if d == dim else 1 for d in range(rank)])


def upfirdn2d(
    x: Tensor,  # [N, C, H, W]
    f: Tensor,  # [taps] or [FH, FW]
    up_x: int,
    up_y: int,
    down_x: int,
    down_y: int,
    pad_x0: int,
    pad_x1: int,
    pad_y0: int,
    pad_y1: int,
    flip_filter: bool,
    gain: float,
) -> Tensor:
    x, f = double(x), double(f)
    n, c, h, w = x.shape
    stuffed = x.new_zeros(n, c, h, up_y, w, up_x)
    stuffed[:, :, :, 0, :, 0] = x
    padded = functional.pad(stuffed.reshape(n, c, h * up_y, w * up_x), [pad_x0, pad_x1, pad_y0, pad_y1])
    kernel = torch.outer(f, f) if f.dim() == 1 else f
    kernel = (kernel if flip_filter else kernel.flip(0, 1)) * gain
    filtered = functional.conv2d(padded.reshape(n * c, 1, *padded.shape[2:]), kernel[None, None])
    return filtered.reshape(n, c, *filtered.shape[2:])[:, :, ::down_y, ::down_x]


def bias_act(x: Tensor, b: Tensor | None, dim: int, slope: float, gain: float, clamp: float) -> Tensor:
    return activated(double(x) + along(b, dim, x.dim(), 0.0), slope, gain, clamp)


def bias_act_backward(
    dy: Tensor, y: Tensor, dim: int, slope: float, gain: float, clamp: float, with_bias: bool
) -> tuple[Tensor, Tensor]:
    dx = double(dy) * slope_at(y, slope, gain, clamp)
    return dx, dx.sum([d for d in range(y.dim()) if d != dim]) if with_bias else dx.new_zeros(0)


def epilogue(
    x: Tensor,  # [N, C, H, W]
    f: Tensor | None,  # [taps]
    pad0: int,
    pad1: int,
    demodulation: Tensor | None,  # [N, C]
    noise: Tensor | None,  # [1 or N, H', W']
    bias: Tensor | None,  # [C]
    next_styles: Tensor | None,  # [N, C]
    slope: float,
    gain: float,
    clamp: float,
    plain: bool,
) -> tuple[Tensor, Tensor]:
    t = double(x)
    nothing = t.new_zeros(0)
    if f is not None:
        channels = t.shape[1]
        kernel = torch.outer(double(f), double(f)).expand(channels, 1, -1, -1)
        t = functional.conv2d(functional.pad(t, [pad0, pad1, pad0, pad1]), kernel, groups=channels)
    t = t * (1.0 if demodulation is None else double(demodulation)[:, :, None, None])
    t = t + (0.0 if noise is None else double(noise)[:, None]) + along(bias, 1, 4, 0.0)
    y = activated(t, slope, gain, clamp)
    scaled = nothing if next_styles is None else y * double(next_styles)[:, :, None, None]
    return (y if plain else nothing), scaled


def epilogue_backward(
    dy: Tensor | None,  # [N, C, H, W], as dscaled, x and y
    dscaled: Tensor | None,
    x: Tensor,
    y: Tensor,
    demodulation: Tensor | None,  # [N, C]
    next_styles: Tensor | None,  # [N, C]
    slope: float,
    gain: float,
    clamp: float,
    noise_batch: int,
    with_bias: bool,
) -> tuple[Tensor, ...]:
    zero = torch.zeros(x.shape, dtype=torch.float64)
    by_y, by_scaled = double(dy), double(dscaled)
    g = zero if by_y is None else by_y
    if by_scaled is not None:
        g = g + by_scaled * double(next_styles)[:, :, None, None]
    dt = g * slope_at(y, slope, gain, clamp)
    nothing = zero.new_zeros(0)
    ddemodulation = nothing if demodulation is None else (dt * double(x)).sum([2, 3])
    dnoise = {0: nothing, 1: dt.sum(1).sum(0, keepdim=True)}.get(noise_batch, dt.sum(1))
    dbias = dt.sum([0, 2, 3]) if with_bias else nothing
    dnext = nothing if by_scaled is None else (by_scaled * double(y)).sum([2, 3])
    dx = dt * (1.0 if demodulation is None else double(demodulation)[:, :, None, None])
    return dx, ddemodulation, dnoise, dbias, dnext


def modulated_conv3x3(
    x: Tensor,  # [N, C_in, H, W]
    weight: Tensor,  # [9, C_out, C_in]
    styles: Tensor,  # [N, C_in]
    *rest: object,  # as epilogue, from the demodulation on
) -> tuple[Tensor, Tensor]:
    kernel = double(weight).reshape(3, 3, *weight.shape[1:]).permute(2, 3, 0, 1)
    styled = (double(x) * double(styles)[:, :, None, None]).to(x.dtype)  # what tensor cores multiply is float16
    product = functional.conv2d(double(styled), kernel, padding=1)
    return epilogue(product, None, 0, 0, *rest)
