"""The end of a StyleGAN2 layer in one pass: blur, demodulation, noise, bias, activation, gain, clamp, next styles.

    t = blur(x) * demodulation + noise + bias        y = clamp(act(t) * gain)        scaled = y * next_styles

Training runs the blur as upfirdn2d and the rest as one kernel forward and one backward; where a second derivative is
asked for (R1, path length), the backward is plain PyTorch, which is differentiable again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from speak.ops import extension
from speak.ops.bias_act import activation_numbers, as_vector, bias_act_ref, has_one_bend, vector_dtype
from speak.ops.upfirdn2d import empty_in_layout_of, upfirdn2d, upfirdn2d_ref

MOST_TAPS = 8  # of the filter that the kernels fuse
LANES = 16  # channels come in multiples of this where ToRGB is fused, and where an image comes in parts
TAPS_OF_PARTS = 4  # of the filter, where an image comes in parts


def layer_epilogue(
    x: Tensor,  # [N, C, H, W]: a convolution's result
    f: Tensor | None = None,  # blur: float32 [taps] or [FH, FW], gain included
    padding: tuple[int, int] = (0, 0),  # of the blur, before and after, both axes
    demodulation: Tensor | None = None,  # [N, C]
    noise: Tensor | None = None,  # [1 or N, 1, H', W'], strength included
    bias: Tensor | None = None,  # [C]
    act: str = "lrelu",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    next_styles: Tensor | None = None,  # [N, C]
    plain: bool = True,  # whether y is wanted
    rgb: Tensor | None = None,  # [N, 3, C]: ToRGB's weight times its styles
) -> tuple[Tensor | None, Tensor | None]:
    """(y, scaled) of the module's equation, each [N, C, H', W'] or None where it was not asked for.

    With `rgb`, y's picture [N, 3, H', W'] in float32 (float64 for float64) comes in place of y.
    Differentiable by x, demodulation, noise, bias, next_styles and rgb. Raises ValueError for shapes that do not fit.
    """
    arguments = (x, f, padding, demodulation, noise, bias, act, alpha, gain, clamp, next_styles, plain, rgb)
    bend = activation_numbers(act, alpha, gain, clamp)
    check_operands(x, _size_after(x, f, padding), demodulation, noise, bias, next_styles, plain, rgb)
    unsupported = None if has_one_bend(act, bend) else f"activation {act} with these numbers is not compiled"
    if not extension.use_compiled(x, "layer_epilogue", unsupported):
        return layer_epilogue_ref(*arguments)

    operands = (x, demodulation, noise, bias, next_styles, rgb)
    training = torch.is_grad_enabled() and any(o is not None and o.requires_grad for o in operands)
    if rgb is not None and f is None and not training and _takes_rgb_kernel(x):
        picture, scaled = torch.ops.speak.epilogue_rgb(
            x, as_vector(demodulation, x), None if noise is None else as_vector(noise, x).flatten(0, 1),
            as_vector(bias, x), as_vector(next_styles, x), as_vector(rgb, x), *bend,
        )  # fmt: skip
        return picture, scaled if next_styles is not None else None
    if f is not None and (training or f.ndim != 1 or f.numel() > MOST_TAPS):
        x, f = upfirdn2d(x, f, padding=[*padding, *padding], flip_filter=True), None
    y, scaled = torch.ops.speak.epilogue(
        x, as_vector(f, x), *(padding if f is not None else (0, 0)), as_vector(demodulation, x),
        None if noise is None else as_vector(noise, x).flatten(0, 1), as_vector(bias, x), as_vector(next_styles, x),
        *bend, plain or training,
    )  # fmt: skip
    if rgb is not None:
        y = to_rgb(y, rgb)
    return y if plain else None, scaled if next_styles is not None else None


def epilogue_of_parts(
    parts: tuple[Tensor, Tensor, Tensor | None, Tensor | None],  # of `convolve_parts`
    f: Tensor,  # float32 [4]
    padding: tuple[int, int],
    demodulation: Tensor | None,
    noise: Tensor | None,
    bias: Tensor | None,
    bend: tuple[float, float, float],  # of `activation_numbers`
    next_styles: Tensor | None,
    plain: bool,
    rgb: Tensor | None,
) -> tuple[Tensor | None, Tensor | None]:
    """What `layer_epilogue` makes of an image in parts; without derivatives. Raises ValueError as that does."""
    x = parts[0]
    check_operands(x, _size_of_parts(parts, sum(padding)), demodulation, noise, bias, next_styles, plain, rgb)
    y, scaled = torch.ops.speak.epilogue_of_parts(
        *parts, as_vector(f, x), *padding, as_vector(demodulation, x),
        None if noise is None else as_vector(noise, x).flatten(0, 1), as_vector(bias, x), as_vector(next_styles, x),
        *bend, plain,
    )  # fmt: skip
    if rgb is not None:
        y = to_rgb(y, rgb)
    return y if plain else None, scaled if next_styles is not None else None


def _size_of_parts(parts: Sequence[Tensor | None], padding: int) -> tuple[int, int, int, int]:
    """The shape that the blur leaves; `padding`: before and after together."""
    batch, channels, height, width = parts[0].shape
    grown = padding - TAPS_OF_PARTS
    return batch, channels if parts[2] is not None else channels // 2, 2 * height + grown, 2 * width + grown


def to_rgb(
    y: Tensor,  # [N, C, H, W]
    rgb: Tensor,  # [N, 3, C]
) -> Tensor:
    """A modulated 1x1 convolution without demodulation, computed in y's dtype: [N, 3, H, W] float32 (or float64)."""
    batch, _, height, width = y.shape
    rgb = rgb.to(y.dtype)
    if y.is_contiguous():
        picture = rgb @ y.flatten(2)
    else:  # channels-last: pixels are rows
        picture = (y.permute(0, 2, 3, 1).flatten(1, 2) @ rgb.transpose(1, 2)).transpose(1, 2)
    return picture.reshape(batch, 3, height, width).to(vector_dtype(y))


def _takes_rgb_kernel(x: Tensor) -> bool:
    """Where y need not be written: channels-last on CPU."""
    return x.device.type == "cpu" and not x.is_contiguous() and x.shape[1] % LANES == 0


def layer_epilogue_ref(
    x: Tensor, f: Tensor | None = None, padding: tuple[int, int] = (0, 0), demodulation: Tensor | None = None,
    noise: Tensor | None = None, bias: Tensor | None = None, act: str = "lrelu", alpha: float | None = None,
    gain: float | None = None, clamp: float | None = None, next_styles: Tensor | None = None, plain: bool = True,
    rgb: Tensor | None = None,
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """The specification of `layer_epilogue` in plain PyTorch, with the same arguments."""
    if f is not None:
        x = upfirdn2d_ref(x, f, padding=[*padding, *padding], flip_filter=True)
    if demodulation is not None:
        x = x * demodulation.to(x.dtype)[:, :, None, None]
    if noise is not None:
        x = x + noise.to(x.dtype)
    y = bias_act_ref(x, bias, 1, act, alpha, gain, clamp)
    scaled = None if next_styles is None else y * next_styles.to(x.dtype)[:, :, None, None]
    if rgb is not None:
        y = to_rgb(y, rgb)
    return y if plain else None, scaled


def _size_after(x: Tensor, f: Tensor | None, padding: Sequence[int]) -> tuple[int, ...]:
    """The shape that the blur leaves of x's, or ValueError."""
    if x.ndim != 4 or not x.is_floating_point():
        raise ValueError(f"x must be floating point [N, C, H, W], not {x.dtype} {tuple(x.shape)}")
    if f is None:
        return tuple(x.shape)
    if f.ndim not in (1, 2) or f.numel() == 0:
        raise ValueError(f"f must be [taps] or [FH, FW], not {tuple(f.shape)}")
    if not isinstance(padding, Sequence) or len(padding) != 2:
        raise ValueError(f"padding must be two whole numbers, before and after, not {padding}")
    height, width = (
        size + sum(padding) - taps + 1 for size, taps in zip(x.shape[2:], (f.shape[0], f.shape[-1]), strict=True)
    )
    if height < 1 or width < 1:
        raise ValueError(f"x {tuple(x.shape)} padded by {padding} is smaller than the filter {tuple(f.shape)}")
    return (*x.shape[:2], height, width)


def check_operands(
    x: Tensor,  # gives the device
    shape: tuple[int, ...],  # of y
    demodulation: Tensor | None, noise: Tensor | None, bias: Tensor | None, next_styles: Tensor | None, plain: bool,
    rgb: Tensor | None,
) -> None:  # fmt: skip
    """Raises ValueError where these do not fit y or x's device, or ask for nothing."""
    batch, channels, height, width = shape
    for name, operand in (("demodulation", demodulation), ("next_styles", next_styles)):
        if operand is not None and operand.shape != (batch, channels):
            raise ValueError(f"{name} must be {(batch, channels)} for y {shape}, not {tuple(operand.shape)}")
    if bias is not None and bias.shape != (channels,):
        raise ValueError(f"bias must be {(channels,)} for y {shape}, not {tuple(bias.shape)}")
    if noise is not None and noise.shape not in ((1, 1, height, width), (batch, 1, height, width)):
        raise ValueError(f"noise must be [1 or {batch}, 1, {height}, {width}], not {tuple(noise.shape)}")
    if not plain and next_styles is None:
        raise ValueError("nothing is asked for: plain=True or next_styles")
    if rgb is not None and (not plain or rgb.shape != (batch, 3, channels)):
        raise ValueError(f"rgb must be {(batch, 3, channels)} for y {shape}, with plain=True, not {tuple(rgb.shape)}")
    extension.check_devices(
        x, demodulation=demodulation, noise=noise, bias=bias, next_styles=next_styles, rgb=rgb
    )  # fmt: skip


def _setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    x, f, _, _, demodulation, noise, bias, next_styles, *ctx.numbers, plain = inputs
    if f is not None or not plain:
        raise RuntimeError("speak::epilogue is differentiable without a blur and with plain=True: see layer_epilogue")
    ctx.set_materialize_grads(False)
    ctx.has_demodulation, ctx.has_styles = demodulation is not None, next_styles is not None
    ctx.noise_batch = 0 if noise is None else noise.shape[0]
    ctx.save_for_backward(x, output[0], demodulation, next_styles)


def _backward(ctx: Any, dy: Tensor | None, dscaled: Tensor | None) -> tuple:
    x, y, demodulation, next_styles = ctx.saved_tensors
    if not ctx.has_styles:
        dscaled = None  # of the empty stand-in
    if dy is None and dscaled is None:
        return (None,) * 12
    wanted = ctx.needs_input_grad
    noise_batch = ctx.noise_batch if wanted[5] else 0
    derivatives = _differentiable_backward if torch.is_grad_enabled() else torch.ops.speak.epilogue_backward
    dx, dd, dz, db, ds = derivatives(
        dy, dscaled, x, y, demodulation, next_styles, *ctx.numbers, noise_batch, bool(wanted[6])
    )
    return (
        dx, None, None, None, dd if wanted[4] and ctx.has_demodulation else None, dz if noise_batch else None,
        db if wanted[6] else None, ds if wanted[7] and dscaled is not None else None, None, None, None, None,
    )  # fmt: skip


def _differentiable_backward(
    dy: Tensor | None, dscaled: Tensor | None, x: Tensor, y: Tensor, demodulation: Tensor | None,
    next_styles: Tensor | None, slope: float, gain: float, clamp: float, noise_batch: int, with_bias: bool,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """What speak::epilogue_backward computes, in operators that are differentiable again."""

    def wide(v: Tensor) -> Tensor:  # sums are taken in the kernels' type
        return v.to(vector_dtype(x))

    g = 0.0
    if dy is not None:
        g = g + wide(dy)
    if dscaled is not None:
        g = g + wide(dscaled) * next_styles[:, :, None, None]
    with torch.no_grad():  # piecewise constant
        up, down = (x.new_full([], value, dtype=vector_dtype(x)) for value in (gain, gain * slope))
        steepness = torch.where(y > 0, up, down)  # of two numbers it would be float32
        if clamp >= 0:
            steepness = steepness * (y.abs() < clamp)
    dt = g * steepness
    dx = dt if demodulation is None else dt * demodulation[:, :, None, None]
    dd = None if demodulation is None else (dt * wide(x)).sum((2, 3))
    dz = dt.sum(1) if noise_batch else None
    dz = dz.sum(0, keepdim=True) if noise_batch == 1 else dz
    ds = None if dscaled is None else (wide(dscaled) * wide(y)).sum((2, 3))
    return dx.to(x.dtype), dd, dz, dt.sum((0, 2, 3)) if with_bias else None, ds


if not extension.LIBRARY.missing:

    @torch.library.register_fake("speak::modulated_conv3x3")
    def _(x, weight, styles, demodulation, noise, bias, next_styles, slope, gain, clamp, plain):  # noqa: ANN001, ANN202
        y, scaled = (empty_in_layout_of(x, *x.shape[2:], weight.shape[1]) for _ in range(2))
        return y if plain else x.new_empty([0]), scaled if next_styles is not None else x.new_empty([0])

    @torch.library.register_fake("speak::epilogue")
    def _(x, f, pad0, pad1, demodulation, noise, bias, next_styles, slope, gain, clamp, plain):  # noqa: ANN001, ANN202
        grown = 0 if f is None else pad0 + pad1 - f.numel() + 1
        image = [empty_in_layout_of(x, x.shape[2] + grown, x.shape[3] + grown) for _ in range(2)]
        nothing = [x.new_empty([0]) for _ in range(2)]
        return image[0] if plain else nothing[0], image[1] if next_styles is not None else nothing[1]

    @torch.library.register_fake("speak::epilogue_of_parts")
    def _(  # noqa: ANN202
        even, odd, even_right, odd_right, f, pad0, pad1, demodulation, noise, bias, next_styles, slope, gain, clamp,  # noqa: ANN001
        plain,  # noqa: ANN001
    ):  # fmt: skip
        batch, channels, height, width = _size_of_parts((even, odd, even_right, odd_right), pad0 + pad1)
        y, scaled = (even.new_empty([batch, height, width, channels]).permute(0, 3, 1, 2) for _ in range(2))
        return y if plain else even.new_empty([0]), scaled if next_styles is not None else even.new_empty([0])

    @torch.library.register_fake("speak::epilogue_rgb")
    def _(x, demodulation, noise, bias, next_styles, rgb, slope, gain, clamp):  # noqa: ANN001, ANN202
        batch, _, height, width = x.shape
        picture = x.new_empty([batch, 3, height, width], dtype=vector_dtype(x))
        scaled = torch.empty_like(x, memory_format=torch.channels_last)
        return picture, scaled if next_styles is not None else x.new_empty([0])

    @torch.library.register_fake("speak::epilogue_backward")
    def _(dy, dscaled, x, y, demodulation, next_styles, slope, gain, clamp, noise_batch, with_bias):  # noqa: ANN001, ANN202
        def vector(wanted: bool, *sizes: int) -> Tensor:
            return x.new_empty(sizes if wanted else [0], dtype=vector_dtype(x))

        batch, channels, height, width = x.shape
        return (
            empty_in_layout_of(x, height, width),
            vector(demodulation is not None, batch, channels),
            vector(noise_batch > 0, noise_batch, height, width),
            vector(with_bias, channels),
            vector(dscaled is not None, batch, channels),
        )

    torch.library.register_autograd("speak::epilogue", _backward, setup_context=_setup_context)
