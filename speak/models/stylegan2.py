"""StyleGAN2's mapping network and synthesis network (Karras et al. 2020), on the operators of `speak.ops`.

G_d and G_g of SPEAK are built on `Generator`: one style vector a level, each convolution modulated by its own.
Activations pass from layer to layer already scaled by the next layer's styles, so that every layer is one convolution
and one fused pass. Weights are made ready once where no gradient is asked for.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from speak import ops

BLUR = (1.0, 3.0, 3.0, 1.0)  # taps of the resampling filter
NOISE_MODES = ("none", "random")


class EqualizedLinear(nn.Module):
    """Fully connected layer with equalised learning rate (Karras et al. 2018): the weight is scaled at run time."""

    def __init__(
        self, in_features: int, out_features: int, bias_init: float = 0, lr_multiplier: float = 1,
        activation: str = "linear",  # a key of ops.ACTIVATIONS
    ) -> None:  # fmt: skip
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full([out_features], bias_init / lr_multiplier))
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:  # [..., in_features] -> [..., out_features]
        if self.activation == "linear" and x.ndim == 2:  # a generator has twenty of them
            return torch.addmm(self.bias, x, self.weight.t(), beta=self.bias_gain, alpha=self.weight_gain)
        x, bias = x * self.weight_gain, self.bias * self.bias_gain  # x is the smaller of the two factors
        if self.activation == "linear":
            return functional.linear(x, self.weight, bias)
        return ops.bias_act(functional.linear(x, self.weight), bias, dim=-1, act=self.activation)


class MappingNetwork(nn.Module):
    """The mlp from codes to a style vector w: `layers` fully connected layers with leaky ReLU."""

    def __init__(
        self, in_dim: int, style_dim: int, layers: int, lr_multiplier: float = 0.01,
        normalize: bool = True,  # codes to a mean square of one
    ) -> None:  # fmt: skip
        super().__init__()
        self.normalize = normalize
        sizes = [in_dim] + [style_dim] * layers
        self.layers = nn.Sequential(
            *(
                EqualizedLinear(a, b, lr_multiplier=lr_multiplier, activation="lrelu")
                for a, b in zip(sizes[:-1], sizes[1:], strict=True)
            )
        )

    def forward(self, codes: Tensor) -> Tensor:  # [B, in_dim] -> [B, style_dim]
        if self.normalize:
            codes = codes * (codes.square().mean(-1, keepdim=True) + 1e-8).rsqrt()
        return self.layers(codes)


class PackedCache:
    """A layer's weight made ready for use without gradients, until the weight changes.

    A change is seen by the parameter itself and its version. What is written through `weight.data` has no version:
    that is not seen, but where a module is moved or cast (`ModulatedConvolution._apply`).
    """

    def __init__(self) -> None:
        self.key: tuple | None = None
        self.weight: Callable[[], Tensor | None] = lambda: None
        self.packed: ops.PackedWeight | None = None

    def get(self, weight: Tensor, gain: float, x: Tensor, up: int) -> ops.PackedWeight:
        dtype = x.dtype
        version = 0 if weight.is_inference() else weight._version
        key = (version, weight.data_ptr(), weight.dtype, weight.device, dtype, x.shape[2:])
        if key != self.key or self.weight() is not weight:
            ready = (weight.detach() * gain).to(dtype)
            if _channels_last(ready.device, dtype):
                ready = ready.contiguous(memory_format=torch.channels_last)
            self.packed = ops.pack_weight(ready, up, padding=1, flip_weight=up == 1, input_shape=tuple(x.shape))
            self.key, self.weight = key, weakref.ref(weight)
        return self.packed

    def __deepcopy__(self, memo: dict) -> PackedCache:  # a copy of the module packs its own weight
        return PackedCache()

    def __reduce__(self) -> tuple:
        return PackedCache, ()


class ModulatedConvolution(nn.Module):
    """A synthesis layer: affine from style to scales, modulated 3x3 convolution, noise, bias, leaky ReLU."""

    def __init__(self, in_channels: int, out_channels: int, style_dim: int, up: int = 1) -> None:
        super().__init__()
        self.up = up
        self.affine = EqualizedLinear(style_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.weight_gain = 1 / math.sqrt(in_channels * 9)
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("resample_filter", ops.setup_filter(BLUR, separable=True), persistent=False)
        self._cache = PackedCache()

    def forward(
        self,
        x: Tensor,  # [B, C_in, h, w]; with prescaled, times `scales`
        scales: Tensor,  # [B, C_in], of `self.affine`
        noise: Tensor | None = None,  # [1 or B, 1, H, W]
        next_styles: Tensor | None = None,  # [B, C_out]
        plain: bool = True,
        rgb: Tensor | None = None,  # [B, 3, C_out], of `ToRGB.modulated`
        prescaled: bool = False,
    ) -> tuple[Tensor | None, Tensor | None]:
        """(y or its picture, y * next_styles), [B, C_out or 3, H, W]; see `speak.ops.modulated_layer`."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            weight = (self.weight * self.weight_gain).to(x.dtype)
        else:
            weight = self._cache.get(self.weight, self.weight_gain, x, self.up)
        return ops.modulated_layer(
            x, weight, scales, None if noise is None else noise * self.noise_strength, self.bias, up=self.up,
            padding=1, resample_filter=self.resample_filter, flip_weight=self.up == 1, act="lrelu",
            next_styles=next_styles, plain=plain, rgb=rgb, prescaled=prescaled,
        )  # fmt: skip

    def _apply(self, *args: Any, **keywords: Any) -> ModulatedConvolution:
        self._cache = PackedCache()
        return super()._apply(*args, **keywords)


class ToRGB(nn.Module):
    """A level's contribution to the picture: modulated 1x1 convolution without demodulation."""

    def __init__(self, in_channels: int, style_dim: int) -> None:
        super().__init__()
        self.affine = EqualizedLinear(style_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(3, in_channels))
        self.weight_gain = 1 / math.sqrt(in_channels)
        self.bias = nn.Parameter(torch.zeros(3))

    def modulated(self, style: Tensor) -> Tensor:  # [B, style_dim] -> [B, 3, C]
        """The weight of each sample, for the layer below, which makes the picture [B, 3, H, W] without the bias."""
        return self.affine(style)[:, None, :] * (self.weight * self.weight_gain)


class Generator(nn.Module):
    """StyleGAN2's synthesis network with skip outputs: one style vector a level -> a frame.

    Levels: the constant's convolution, then for each resolution from 8 up an up-sampling and a plain convolution, and
    last the top's ToRGB. A lower ToRGB shares the level of the convolution that follows it.
    """

    def __init__(
        self,
        image_size: int,  # a power of two from 8 up
        style_dim: int,
        channel_base: int,  # channels at resolution r: channel_base / r, at most channel_max
        channel_max: int,
    ) -> None:
        super().__init__()
        if image_size < 8 or image_size & (image_size - 1):
            raise ValueError(f"image_size must be a power of two from 8 up, not {image_size}")
        self.image_size, self.style_dim = image_size, style_dim
        self.resolutions = [2**k for k in range(2, image_size.bit_length())]
        channels = {r: min(channel_base // r, channel_max) for r in self.resolutions}
        self.constant = nn.Parameter(torch.randn(1, channels[4], 4, 4))
        self.convolutions = nn.ModuleList([ModulatedConvolution(channels[4], channels[4], style_dim)])
        self.to_rgb = nn.ModuleList([ToRGB(channels[4], style_dim)])
        for resolution in self.resolutions[1:]:
            above, here = channels[resolution // 2], channels[resolution]
            self.convolutions.append(ModulatedConvolution(above, here, style_dim, up=2))
            self.convolutions.append(ModulatedConvolution(here, here, style_dim))
            self.to_rgb.append(ToRGB(here, style_dim))
        self.num_styles = len(self.convolutions) + 1
        self.noise_shapes = [(4, 4)] + [(r, r) for r in self.resolutions[1:] for _ in range(2)]
        self.register_buffer("resample_filter", ops.setup_filter(BLUR), persistent=False)

    def forward(
        self,
        styles: Tensor,  # [B, num_styles, style_dim]
        noise: str | list[Tensor] = "none",  # of NOISE_MODES, or a map [1 or B, 1, h, w] a convolution
        generator: torch.Generator | None = None,  # draws the noise of mode "random"
        dtype: torch.dtype | None = None,  # of the convolutions; default: autocast's, else that of styles
    ) -> Tensor:
        """Frames [B, 3, image_size, image_size] in the dtype of styles, nominally in [-1, 1]."""
        if styles.shape[1:] != (self.num_styles, self.style_dim):
            raise ValueError(f"styles must be [B, {self.num_styles}, {self.style_dim}], not {tuple(styles.shape)}")
        dtype = dtype or _default_dtype(styles)
        maps = self._noise_maps(noise, styles, generator)
        scales = [conv.affine(styles[:, level]) for level, conv in enumerate(self.convolutions)]
        if dtype == torch.float16:  # demodulation undoes any common factor: keeps products in float16's range
            scales = [s / s.abs().amax(1, keepdim=True).clamp(min=1e-8) for s in scales]
        x = self.constant.to(dtype).expand(styles.shape[0], -1, -1, -1) * scales[0].to(dtype)[:, :, None, None]
        if _channels_last(x.device, dtype):
            x = x.contiguous(memory_format=torch.channels_last)

        image = None
        last = len(self.convolutions) - 1
        for level, convolution in enumerate(self.convolutions):
            shown = level % 2 == 0  # the last convolution of its resolution goes into the picture
            following = scales[level + 1] if level < last else None
            to_rgb = self.to_rgb[level // 2] if shown else None
            rgb = to_rgb.modulated(styles[:, level + 1]) if shown else None
            picture, x = convolution(x, scales[level], maps[level], following, plain=shown, rgb=rgb, prescaled=True)
            if shown:
                picture = picture.to(styles.dtype) + to_rgb.bias[:, None, None]
                image = picture if image is None else picture + ops.upsample2d(image, self.resample_filter)
        return image

    def _noise_maps(
        self, noise: str | list[Tensor], styles: Tensor, generator: torch.Generator | None
    ) -> list[Tensor | None]:
        if not isinstance(noise, str):
            if len(noise) != len(self.noise_shapes):
                raise ValueError(f"noise must be {len(self.noise_shapes)} maps, not {len(noise)}")
            return list(noise)
        if noise not in NOISE_MODES:
            raise ValueError(f"noise must be one of {', '.join(NOISE_MODES)} or a list of maps, not '{noise}'")
        if noise == "none":
            return [None] * len(self.noise_shapes)
        batch = styles.shape[0]
        return [
            torch.randn(batch, 1, *shape, generator=generator, device=styles.device, dtype=styles.dtype)
            for shape in self.noise_shapes
        ]


def _default_dtype(styles: Tensor) -> torch.dtype:
    kind = styles.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return styles.dtype


def _channels_last(device: torch.device, dtype: torch.dtype) -> bool:
    """Where the vendor's convolutions want it: on CPU, and on CUDA in the half-width types."""
    return device.type == "cpu" or (device.type == "cuda" and dtype in (torch.float16, torch.bfloat16))
