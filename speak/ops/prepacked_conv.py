"""Convolutions on CPU with weights laid out once as oneDNN wants them, for use without gradients.

oneDNN otherwise reorders a weight at every call, which for narrow pictures costs more than the convolution. The
operators are the ones that torch's own compiler uses; where a release lacks them, the plain convolution serves.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


def prepacked_conv2d(
    weight: Tensor,  # [C_out, C_in, kh, kw], channels-last; for up-sampling [C_in, C_out, kh, kw]
    up: int,  # 1: a convolution; above: a transposed one of that stride
    padding: int,
    input_shape: tuple[int, ...],  # of the usual x; others work too
) -> Tensor | None:
    """`weight` in oneDNN's own layout, for `convolve_prepacked`; None where that cannot be had."""
    if not _can_be_packed(weight):
        return None
    one, nil = [1, 1], [padding, padding]
    try:
        if up == 1:
            return _reordered(weight, nil, input_shape)
        reorder = torch.ops.mkldnn._reorder_convolution_transpose_weight
        return reorder(weight, nil, [0, 0], [up, up], one, 1, list(input_shape))
    except (AttributeError, RuntimeError):  # another release, or a processor without the instructions for bfloat16
        return None


def convolve_prepacked(
    x: Tensor,  # [N, C_in, H, W]
    packed: Tensor,  # of `prepacked_conv2d`
    up: int,
    padding: int,
) -> Tensor:
    """The (transposed) convolution of x with a prepacked weight: [N, C_out, H', W'], channels-last."""
    one, nil = [1, 1], [padding, padding]
    if up == 1:
        return torch.ops.mkldnn._convolution_pointwise(x, packed, None, nil, one, one, 1, "none", [], "")
    return torch.ops.mkldnn._convolution_transpose_pointwise(
        x, packed, None, nil, [0, 0], [up, up], one, 1, "none", [], ""
    )


class PartsWeight(NamedTuple):
    """Small convolutions in place of a transposed 3x3 one of stride 2; made by `prepacked_parts`."""

    even: Tensor
    odd: Tensor
    even_right: Tensor | None = None  # of odd columns, where those come apart
    odd_right: Tensor | None = None


# Along an axis, which taps reach an even place, and an odd one, and from how many pixels before its own.
_EVEN, _ODD = ([2, 0], 1), ([1], 0)


def prepacked_parts(
    weight: Tensor,  # [C_in, C_out, 3, 3] of the transposed convolution
    input_shape: tuple[int, ...],  # of the usual x; others work too
    columns: bool,  # whether even and odd columns come apart too
) -> PartsWeight | None:
    """The weights of `convolve_parts`; None where they cannot be had.

    A place of the result is reached by one or two taps along each axis: even rows are a convolution of x, odd rows
    another. Two neighbours of a row side by side are made together with 12 multiplications for four places, three of
    them by zeros; columns apart take nine.
    """
    if not _can_be_packed(weight) or weight.shape[2:] != (3, 3):
        return None
    taps = weight.transpose(0, 1)  # [C_out, C_in, 3, 3]
    if columns:
        kernels = [(taps[:, :, rows][..., across], (above, before))
                   for across, before in (_EVEN, _ODD) for rows, above in (_EVEN, _ODD)]  # fmt: skip
    else:
        right = torch.stack([torch.zeros_like(taps[..., 1]), taps[..., 1]], 3)
        both = torch.cat([taps[..., _EVEN[0]], right])  # [2 C_out, C_in, 3, 2]
        kernels = [(both[:, :, rows], (above, 1)) for rows, above in (_EVEN, _ODD)]
    try:
        return PartsWeight(*(
            _reordered(kernel.contiguous(memory_format=torch.channels_last), list(padding), input_shape)
            for kernel, padding in kernels
        ))  # fmt: skip
    except (AttributeError, RuntimeError):
        return None


def convolve_parts(
    x: Tensor,  # [N, C_in, H, W]
    weight: PartsWeight,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """The transposed convolution's even and odd rows, channels-last; of its even columns, and then of its odd ones.

    Where columns do not come apart, a pixel [2 C_out] of [N, 2 C_out, H + 1, W + 1] and [N, 2 C_out, H, W + 1] is those
    of columns 2 j and 2 j + 1, the last of all to spare. Else parts are [N, C_out, H + 1 or H, W + 1 or W].
    """
    one = [1, 1]
    paddings = ([1, 1], [0, 1], [1, 0], [0, 0])  # above and before
    even, odd, even_right, odd_right = (
        None if part is None
        else torch.ops.mkldnn._convolution_pointwise(x, part, None, padding, one, one, 1, "none", [], "")
        for part, padding in zip(weight, paddings, strict=True)
    )  # fmt: skip
    return even, odd, even_right, odd_right


def has_matrix_tiles() -> bool:
    """Whether the processor multiplies tiles of bfloat16 (AMX), as far as this torch can tell."""
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())


def _can_be_packed(weight: Tensor) -> bool:
    if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.bfloat16):
        return False
    return torch.backends.mkldnn.is_available() and not weight.requires_grad


def _reordered(weight: Tensor, padding: list[int], input_shape: tuple[int, ...]) -> Tensor:
    one = [1, 1]
    return torch._C._nn.mkldnn_reorder_conv2d_weight(weight.to_mkldnn(), padding, one, one, 1, list(input_shape))
