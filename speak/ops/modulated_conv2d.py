"""Modulated convolution of StyleGAN2: per-sample scaling of the input channels, convolution, demodulation.

The reference builds a weight for every sample, as the paper prints it. The compiled path scales the input and the
output instead: demodulation is rsqrt(s^2 @ W2 + 1e-8) with W2 = the sum of w^2 over the kernel, so one plain
convolution with shared weights serves the batch, and `layer_epilogue` does the rest in one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from speak.ops import extension
from speak.ops.bias_act import activation_numbers, as_vector, has_one_bend
from speak.ops.epilogue import (
    LANES,
    TAPS_OF_PARTS,
    check_operands,
    epilogue_of_parts,
    layer_epilogue,
    layer_epilogue_ref,
    to_rgb,
)
from speak.ops.prepacked_conv import (
    PartsWeight,
    convolve_parts,
    convolve_prepacked,
    has_matrix_tiles,
    prepacked_conv2d,
    prepacked_parts,
)
from speak.ops.upfirdn2d import filter_size, parse_padding, upfirdn2d, upfirdn2d_ref

EPSILON = 1e-8  # of demodulation

# Which path a modulated convolution takes on CUDA without gradients, by dtype and shape; all else is the vendor's
# (transposed) convolution with the fused epilogue. Wider layers are bound by arithmetic, where the vendor's is better.
FUSED_CUDA = {"dtype": torch.float16, "kernel": (3, 3), "up": 1, "down": 1, "padding": 1, "channels": 128}

# Which 3x3 layers that double the picture and blur it with four taps are small convolutions of its even and odd rows on
# CPU, in place of the vendor's transposed one, where no gradient is asked for; by dtype. Xeon with AMX, torch 2.13, two
# cores, six layers of a 256x256 generator: bfloat16 15.1 -> 5.2 ms (the transposed one does not use the tiles), float32
# 33.4 -> 29.6 ms.
PARTS_CPU = {
    torch.bfloat16: {"columns": False, "tiles": True, "from": 4},  # of x: pixels of its side
    torch.float32: {"columns": True, "tiles": False, "from": 16},
}


class PackedWeight(NamedTuple):
    """A convolution's weight made ready once, for use without gradients; made by `pack_weight`."""

    weight: Tensor  # [C_out, C_in, kh, kw] as given
    oriented: Tensor  # in the order and memory format that the convolution wants
    squares: Tensor  # W2 [C_out, C_in], float32
    onednn: tuple[Tensor, int] | None  # in oneDNN's layout, and the padding that it was made for
    taps: Tensor | None  # [kh * kw, C_out, C_in] for the fused CUDA kernel
    parts: PartsWeight | None = None  # of PARTS_CPU, in place of `onednn`


def pack_weight(
    weight: Tensor,  # [C_out, C_in, kh, kw]
    up: int = 1,
    padding: int = 0,
    flip_weight: bool = True,
    input_shape: tuple[int, ...] | None = None,  # of the usual x
    in_parts: bool = True,  # whether PARTS_CPU counts
) -> PackedWeight:
    """Makes a weight ready for `modulated_conv2d` with these arguments, for use without gradients."""
    weight = weight.detach()
    oriented, taps, onednn, parts = _oriented(weight, up, flip_weight), None, None, None
    if weight.device.type == "cpu":
        oriented = oriented.contiguous(memory_format=torch.channels_last)
    if in_parts and input_shape is not None and _comes_in_parts(weight, up, input_shape):
        parts = prepacked_parts(oriented, input_shape, PARTS_CPU[weight.dtype]["columns"])
    if input_shape is not None and parts is None:
        padding = padding if up == 1 else 0  # what the transposed convolution lacks is the blur's padding
        packed = prepacked_conv2d(oriented, up, padding, input_shape)
        onednn = None if packed is None else (packed, padding)
    if weight.is_cuda and weight.dtype == torch.float16 and weight.shape[2:] == (3, 3) and up == 1:
        taps = (weight if flip_weight else weight.flip(2, 3)).flatten(2).permute(2, 0, 1).contiguous()
    return PackedWeight(weight, oriented, _squares(weight), onednn, taps, parts)


def modulated_conv2d(
    x: Tensor,  # [N, C_in, H, W]
    weight: Tensor | PackedWeight,  # [C_out, C_in, kh, kw]
    styles: Tensor,  # [N, C_in]
    noise: Tensor | None = None,  # added to the result: [1 or N, 1, H', W'] or [H', W']
    up: int = 1,
    down: int = 1,
    padding: int | Sequence[int] = 0,  # of the up-sampled image
    resample_filter: Tensor | None = None,  # float32, from setup_filter; used where up or down is not 1
    demodulate: bool = True,
    flip_weight: bool = True,  # True: correlation, as conv2d; False: true convolution
    fused_modconv: bool = True,  # of the field's signature: the compiled path needs no such choice
) -> Tensor:
    """[N, C_out, H', W']: x scaled by styles, up-sampled, convolved, down-sampled, demodulated, plus noise.

    With one style a sample this is Eq. 1-3 of StyleGAN2 (Karras et al. 2020, Sec. 2.2). Differentiable to second
    order by x, weight, styles and noise. Raises ValueError for shapes that do not fit.
    """
    if noise is not None and noise.ndim == 2:  # as others keep their constant noise
        noise = noise[None, None]
    y, _ = modulated_layer(
        x, weight, styles, noise, up=up, down=down, padding=padding, resample_filter=resample_filter,
        demodulate=demodulate, flip_weight=flip_weight,
    )  # fmt: skip
    return y


def modulated_layer(
    x: Tensor,  # [N, C_in, H, W]
    weight: Tensor | PackedWeight,  # [C_out, C_in, kh, kw]
    styles: Tensor,  # [N, C_in]
    noise: Tensor | None = None,  # [1 or N, 1, H', W'], strength included
    bias: Tensor | None = None,  # [C_out]
    *,
    up: int = 1,
    down: int = 1,
    padding: int | Sequence[int] = 0,
    resample_filter: Tensor | None = None,
    demodulate: bool = True,
    flip_weight: bool = True,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    next_styles: Tensor | None = None,  # [N, C_out]
    plain: bool = True,  # whether y itself is wanted
    rgb: Tensor | None = None,  # [N, 3, C_out]: ToRGB's weight times its styles
    prescaled: bool = False,  # x already carries its styles: it is the `scaled` of the layer before
) -> tuple[Tensor | None, Tensor | None]:
    """A whole StyleGAN2 layer: `modulated_conv2d`, then bias, activation, gain and clamp; and that times next_styles.

    Returns (y, scaled), each [N, C_out, H', W'] or None where it was not asked for; with `rgb`, y's picture
    [N, 3, H', W'] in float32 (float64 for float64) in place of y.
    """
    packed = weight if isinstance(weight, PackedWeight) else None
    raw = packed.weight if packed else weight
    pads = _checked(x, raw, styles, up, down, padding)
    extension.check_devices(x, weight=raw, styles=styles, resample_filter=resample_filter)
    if packed and raw.dtype != x.dtype:
        raise ValueError(f"the packed weight is {raw.dtype} and x {x.dtype}: pack it in x's dtype")
    raw = raw.to(x.dtype)
    bend = activation_numbers(act, alpha, gain, clamp)
    numbers = {"act": act, "alpha": alpha, "gain": gain, "clamp": clamp}
    if not extension.use_compiled(x, "modulated_conv2d"):
        return modulated_layer_ref(
            x, raw, styles, noise, bias, up=up, down=down, padding=padding, resample_filter=resample_filter,
            demodulate=demodulate, flip_weight=flip_weight, **numbers, next_styles=next_styles, plain=plain,
            rgb=rgb, prescaled=prescaled,
        )  # fmt: skip
    demodulation = demodulation_of(styles, packed.squares if packed else _squares(raw)) if demodulate else None
    if packed and _takes_fused_kernel(x, packed, up, down, pads) and has_one_bend(act, bend):
        check_operands(x, (x.shape[0], raw.shape[0], *x.shape[2:]), demodulation, noise, bias, next_styles, plain, rgb)
        with torch.no_grad():
            ones = styles.new_ones(styles.shape) if prescaled else styles
            y, scaled = torch.ops.speak.modulated_conv3x3(
                x, packed.taps, as_vector(ones, x), as_vector(demodulation, x),
                None if noise is None else as_vector(noise, x).flatten(0, 1), as_vector(bias, x),
                as_vector(next_styles, x), *bend, plain,
            )  # fmt: skip
        y = y if rgb is None else to_rgb(y, rgb)
        return y if plain else None, scaled if next_styles is not None else None
    if not prescaled:
        x = x * styles.to(x.dtype)[:, :, None, None]
    ready = packed or PackedWeight(raw, _oriented(raw, up, flip_weight), raw, None, None)
    if ready.parts is not None and down == 1 and has_one_bend(act, bend):
        f, around = _blur_behind(raw, up, down, pads, resample_filter)
        if f.shape == (TAPS_OF_PARTS,) and around[:2] == around[2:] and x.numel():
            return epilogue_of_parts(
                convolve_parts(x, ready.parts), f.flip(0) * up, (around[0], around[1]), demodulation, noise, bias, bend,
                next_styles, plain, rgb,
            )  # fmt: skip
    x, f, blur_padding = _convolve(x, ready, up, down, pads, resample_filter)
    return layer_epilogue(
        x, f, blur_padding, demodulation, noise, bias, **numbers, next_styles=next_styles, plain=plain, rgb=rgb
    )


def modulated_layer_ref(
    x: Tensor, weight: Tensor, styles: Tensor, noise: Tensor | None = None, bias: Tensor | None = None, *,
    up: int = 1, down: int = 1, padding: int | Sequence[int] = 0, resample_filter: Tensor | None = None,
    demodulate: bool = True, flip_weight: bool = True, act: str = "linear", alpha: float | None = None,
    gain: float | None = None, clamp: float | None = None, next_styles: Tensor | None = None, plain: bool = True,
    rgb: Tensor | None = None, prescaled: bool = False,
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """The specification of `modulated_layer` in plain PyTorch, with the same arguments."""
    demodulation = None
    if prescaled:
        demodulation = demodulation_of(styles, _squares(weight)) if demodulate else None
        styles, demodulate = torch.ones_like(styles), False
    x = modulated_conv2d_ref(x, weight, styles, None, up, down, padding, resample_filter, demodulate, flip_weight)
    check_operands(x, tuple(x.shape), demodulation, noise, bias, next_styles, plain, rgb)
    return layer_epilogue_ref(
        x, None, (0, 0), demodulation, noise, bias, act, alpha, gain, clamp, next_styles, plain, rgb
    )


def modulated_conv2d_ref(
    x: Tensor, weight: Tensor, styles: Tensor, noise: Tensor | None = None, up: int = 1, down: int = 1,
    padding: int | Sequence[int] = 0, resample_filter: Tensor | None = None, demodulate: bool = True,
    flip_weight: bool = True, fused_modconv: bool = True,
) -> Tensor:  # fmt: skip
    """The specification of `modulated_conv2d` in plain PyTorch: a weight for every sample, one grouped convolution."""
    x0, x1, y0, y1 = _checked(x, weight, styles, up, down, padding)
    batch = x.shape[0]
    w = weight[None] * styles.to(weight.dtype)[:, None, :, None, None]  # [N, C_out, C_in, kh, kw]
    if demodulate:
        w = w * (w.square().sum((2, 3, 4), keepdim=True) + EPSILON).rsqrt()
    if not flip_weight:
        w = w.flip(3, 4)
    before, after = _resampling_padding(resample_filter, up, down)
    x = upfirdn2d_ref(
        x, resample_filter if up > 1 else None, up=up, gain=up * up,
        padding=[x0 + before[0], x1 + after[0], y0 + before[1], y1 + after[1]],
    )  # fmt: skip
    if batch == 0:
        x = functional.conv2d(x, weight.to(x.dtype))
    else:
        x = functional.conv2d(x.reshape(1, -1, *x.shape[2:]), w.flatten(0, 1).to(x.dtype), groups=batch)
    x = x.reshape(batch, weight.shape[0], *x.shape[2:])
    if down > 1:
        x = upfirdn2d_ref(x, resample_filter, down=down)
    return x if noise is None else x + noise.to(x.dtype)


def demodulation_of(
    styles: Tensor,  # [N, C_in]
    squares: Tensor,  # W2 [C_out, C_in]
) -> Tensor:
    """[N, C_out]: rsqrt(styles^2 @ W2^T + 1e-8), in float32 (float64 for float64)."""
    return (styles.to(squares.dtype).square() @ squares.t() + EPSILON).rsqrt()


def _squares(weight: Tensor) -> Tensor:
    wide = weight if weight.dtype == torch.float64 else weight.float()
    return wide.square().sum((2, 3))


def _oriented(weight: Tensor, up: int, flip_weight: bool) -> Tensor:
    """As conv2d wants it, or for up-sampling as conv_transpose2d does, which convolves where conv2d correlates."""
    if up > 1:
        return (weight.flip(2, 3) if flip_weight else weight).transpose(0, 1)
    return weight if flip_weight else weight.flip(2, 3)


def _resampling_padding(f: Tensor | None, up: int, down: int) -> tuple[list[int], list[int]]:
    """What the filter adds (x, y) before and after the image, so that up and down scale sizes exactly."""
    sizes = filter_size(f)
    before, after = [0, 0], [0, 0]
    if up > 1:
        before, after = [(taps + up - 1) // 2 for taps in sizes], [(taps - up) // 2 for taps in sizes]
    if down > 1:
        before = [b + (taps - down + 1) // 2 for b, taps in zip(before, sizes, strict=True)]
        after = [a + (taps - down) // 2 for a, taps in zip(after, sizes, strict=True)]
    return before, after


def _convolve(
    x: Tensor, ready: PackedWeight, up: int, down: int, pads: tuple[int, int, int, int], f: Tensor | None
) -> tuple[Tensor, Tensor | None, tuple[int, int]]:
    """The convolution, and the blur that is left for the epilogue: (x, filter, its padding).

    Up-sampling is a transposed convolution and then the blur: filters commute, and that is a quarter of the work.
    """
    x0, x1, y0, y1 = pads
    if up == 1 and down == 1:
        if min(pads) < 0:  # which may crop all of one side and pad the other
            x, x0 = upfirdn2d(x, None, padding=pads), 0
        elif len(set(pads)) > 1:
            x, x0 = functional.pad(x, [x0, x1, y0, y1]), 0
        return _bare_convolution(x, ready, 1, x0), None, (0, 0)
    if up == 1:
        before, after = _resampling_padding(f, up, down)
        x = upfirdn2d(x, f, padding=[x0 + before[0], x1 + after[0], y0 + before[1], y1 + after[1]])
        return functional.conv2d(x, ready.oriented, stride=down), None, (0, 0)
    x = _bare_convolution(x, ready, up, 0)
    f, around = _blur_behind(ready.weight, up, down, pads, f)
    if down == 1 and f.ndim == 1 and around[:2] == around[2:]:
        return x, f.flip(0) * up, (around[0], around[1])  # the epilogue correlates; gain up^2, so up along each axis
    x = upfirdn2d(x, f, padding=around, gain=up * up)
    return (x if down == 1 else upfirdn2d(x, f, down=down)), None, (0, 0)


def _blur_behind(
    weight: Tensor, up: int, down: int, pads: tuple[int, int, int, int], f: Tensor | None
) -> tuple[Tensor, list[int]]:
    """The filter that a transposed convolution leaves to be applied, and its padding: x before and after, y too."""
    before, after = _resampling_padding(f, up, down)
    height, width = weight.shape[2:]
    around = [
        pads[0] + before[0] - (width - 1), pads[1] + after[0] - (width - up),
        pads[2] + before[1] - (height - 1), pads[3] + after[1] - (height - up),
    ]  # fmt: skip
    return weight.new_ones([1], dtype=torch.float32) if f is None else f, around


def _comes_in_parts(weight: Tensor, up: int, input_shape: tuple[int, ...]) -> bool:
    row = PARTS_CPU.get(weight.dtype)
    return (
        row is not None and weight.device.type == "cpu" and up == 2 and weight.shape[2:] == (3, 3)
        and weight.shape[0] % LANES == 0 and min(input_shape[2:]) >= row["from"]
        and (has_matrix_tiles() or not row["tiles"]) and not extension.LIBRARY.missing
    )  # fmt: skip


def _bare_convolution(x: Tensor, ready: PackedWeight, up: int, padding: int) -> Tensor:
    if ready.onednn is not None and ready.onednn[1] == padding and x.dtype == ready.weight.dtype:
        return convolve_prepacked(x, ready.onednn[0], up, padding)
    if up > 1:
        return functional.conv_transpose2d(x, ready.oriented, stride=up)
    return functional.conv2d(x, ready.oriented, padding=padding)


def _takes_fused_kernel(x: Tensor, packed: PackedWeight, up: int, down: int, pads: tuple[int, int, int, int]) -> bool:
    row = FUSED_CUDA
    return (
        x.is_cuda and packed.taps is not None and x.dtype == row["dtype"] and not torch.is_grad_enabled()
        and (up, down) == (row["up"], row["down"]) and set(pads) == {row["padding"]}
        and max(packed.weight.shape[:2]) <= row["channels"] and packed.weight.shape[0] % 8 == 0
        and packed.weight.shape[1] % 8 == 0
    )  # fmt: skip


def _checked(
    x: Tensor, weight: Tensor, styles: Tensor, up: int, down: int, padding: int | Sequence[int]
) -> tuple[int, int, int, int]:
    """(x before, x after, y before, y after), or ValueError."""
    if x.ndim != 4 or not x.is_floating_point():
        raise ValueError(f"x must be floating point [N, C, H, W], not {x.dtype} {tuple(x.shape)}")
    if weight.ndim != 4 or weight.shape[1] != x.shape[1]:
        raise ValueError(
            f"weight must be [C_out, {x.shape[1]}, kh, kw] for x {tuple(x.shape)}, not {tuple(weight.shape)}"
        )
    if styles.shape != x.shape[:2]:
        raise ValueError(f"styles must be {tuple(x.shape[:2])} for x {tuple(x.shape)}, not {tuple(styles.shape)}")
    if min(up, down) < 1:
        raise ValueError(f"up and down must be at least 1, not {up} and {down}")
    pads = parse_padding(padding)
    height, width = x.shape[2] * up + pads[2] + pads[3], x.shape[3] * up + pads[0] + pads[1]
    if min(x.shape[2:]) < 1 or height < weight.shape[2] or width < weight.shape[3]:
        raise ValueError(
            f"x {tuple(x.shape)} padded to {height} x {width} is smaller than the kernel {tuple(weight.shape[2:])}"
        )
    return pads
