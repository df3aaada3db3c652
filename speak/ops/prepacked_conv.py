"""Convolutions on CPU with weights laid out once as oneDNN wants them, for use without gradients.

oneDNN otherwise reorders a weight at every call, which for narrow pictures costs more than the convolution. The
operators are the ones that torch's own compiler uses; where a release lacks them, the plain convolution serves.
"""

from __future__ import annotations

import torch
from torch import Tensor


def prepacked_conv2d(
    weight: Tensor,  # [C_out, C_in, kh, kw], channels-last; for up-sampling [C_in, C_out, kh, kw]
    up: int,  # 1: a convolution; above: a transposed one of that stride
    padding: int,
    input_shape: tuple[int, ...],  # of the usual x; others work too
) -> Tensor | None:
    """`weight` in oneDNN's own layout, for `convolve_prepacked`; None where that cannot be had."""
    if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.bfloat16):
        return None
    if not torch.backends.mkldnn.is_available() or weight.requires_grad:
        return None
    one, nil = [1, 1], [padding, padding]
    try:
        if up == 1:
            return torch._C._nn.mkldnn_reorder_conv2d_weight(weight.to_mkldnn(), nil, one, one, 1, list(input_shape))
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
