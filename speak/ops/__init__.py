"""StyleGAN2's operators: compiled where they can be, plain PyTorch everywhere.

The signatures are the field's own, so that they can be swapped in. Each operator has a public reference (`*_ref`),
which is its specification.
"""

from speak.ops.bias_act import ACTIVATIONS, bias_act, bias_act_ref
from speak.ops.epilogue import layer_epilogue, layer_epilogue_ref
from speak.ops.extension import LIBRARY, backend, get_backend, set_backend, why_not_compiled
from speak.ops.modulated_conv2d import (
    PackedWeight,
    modulated_conv2d,
    modulated_conv2d_ref,
    modulated_layer,
    modulated_layer_ref,
    pack_weight,
)
from speak.ops.prepacked_conv import convolve_parts, convolve_prepacked
from speak.ops.upfirdn2d import downsample2d, setup_filter, upfirdn2d, upfirdn2d_ref, upsample2d

__all__ = [
    "ACTIVATIONS",
    "LIBRARY",
    "PackedWeight",
    "backend",
    "bias_act",
    "bias_act_ref",
    "convolve_parts",
    "convolve_prepacked",
    "downsample2d",
    "get_backend",
    "layer_epilogue",
    "layer_epilogue_ref",
    "modulated_conv2d",
    "modulated_conv2d_ref",
    "modulated_layer",
    "modulated_layer_ref",
    "pack_weight",
    "set_backend",
    "setup_filter",
    "upfirdn2d",
    "upfirdn2d_ref",
    "upsample2d",
    "why_not_compiled",
]
