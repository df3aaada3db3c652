"""G_d and G_g, SPEAK Sec. 3.1-3.2 (Eq. 9 and the unnumbered one below it), each over a StyleGAN2 synthesis network.

Under autocast the convolutions run in its dtype and the styles stay in float32: they cost next to nothing, and rounded
they make three quarters of the error of bfloat16 frames.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from speak.config import Config
from speak.models.codes import Codes, at_least_float32
from speak.models.stylegan2 import Generator, MappingNetwork

Noise = str | list[Tensor]  # "none", "random", or a map [1 or B, 1, h, w] a convolution


def synthesis_network(config: Config) -> Generator:
    """The StyleGAN2 synthesis network of the preset."""
    sizes = config.model.generator
    network = Generator(config.model.image_size, sizes.style_dim, sizes.channel_base, sizes.channel_max)
    with torch.no_grad():
        for layer in network.to_rgb:  # pictures start nearly grey, not with a standard deviation of 3 to be unlearned
            layer.weight *= 0.1
    return network


def _autocast_dtype(device: torch.device) -> torch.dtype | None:
    """The dtype of the autocast in force; None where there is none."""
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None


def fusing_mlp(config: Config, codes_dim: int) -> MappingNetwork:
    """The "mlp" of SPEAK Eq. 9. Codes come normalised one by one, so their concatenation is not normalised again."""
    sizes = config.model.generator
    return MappingNetwork(
        codes_dim, sizes.style_dim, sizes.mapping_layers, sizes.mapping_lr_multiplier, normalize=False
    )


class DisentanglementGenerator(nn.Module):
    """IRFD generator G_d: `I_d = G_d(mlp(f_I, f_P, f_E))`, one style for every level. Stage `irfd` only."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        model = config.model
        self.fuse = fusing_mlp(config, model.identity.code_dim + model.pose.code_dim + model.emotion.code_dim)
        self.synthesis = synthesis_network(config)

    def styles(self, codes: Codes) -> Tensor:
        """[B, levels, style_dim], the same at every level."""
        return self.fuse(codes.fused())[:, None].expand(-1, self.synthesis.num_styles, -1)

    def forward(self, codes: Codes, noise: Noise = "random") -> Tensor:
        """Frames [B, 3, H, W], about [-1, 1]."""
        device = codes.identity.device
        dtype = _autocast_dtype(device)
        with torch.autocast(device.type, enabled=False):
            return self.synthesis(self.styles(codes), noise, dtype=dtype)


class LevelMLP(nn.Module):
    """One MLP a generator level, all at once: f_S' [B, levels, width] to additions [B, levels, style_dim], Sec. 3.2.

    hidden: width of the hidden layer; 0 leaves a linear map.
    """

    def __init__(self, levels: int, width: int, style_dim: int, hidden: int) -> None:
        super().__init__()
        sizes = [width, hidden, style_dim] if hidden else [width, style_dim]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for size_in, size_out in zip(sizes, sizes[1:], strict=False):
            self.weights.append(torch.randn(levels, size_in, size_out) / math.sqrt(size_in))
            self.biases.append(torch.zeros(levels, size_out))

    def forward(
        self,
        edited: Tensor,  # [B, levels, width]
    ) -> Tensor:
        features = edited.transpose(0, 1)
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if layer:
                features = nn.functional.leaky_relu(features, 0.2) * math.sqrt(2)
            features = torch.baddbmm(bias[:, None], features, weight)
        return features.transpose(0, 1)


class GlobalGenerator(nn.Module):
    """Global generator G_g: `I_g = G_g(mlp(f_I, f_P), F)`, SPEAK Eq. 9.

    The base style is the MLP of identity and pose; at every level an MLP of that level's f_S' is added to it, before
    the affine that makes the modulation.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        model = config.model
        sizes = model.generator
        self.fuse = fusing_mlp(config, model.identity.code_dim + model.pose.code_dim)
        self.synthesis = synthesis_network(config)
        self.additions = LevelMLP(self.synthesis.num_styles, model.editing.width, sizes.style_dim, sizes.fuse_dim)

    def styles(
        self,
        codes: Codes,  # of B frames
        edited: Tensor,  # f_S' [B, levels, width]
    ) -> Tensor:
        """[B, levels, style_dim]."""
        return self.fuse(codes.fused("identity", "pose"))[:, None] + self.additions(edited)

    def forward(
        self,
        codes: Codes,  # of B frames
        edited: Tensor,  # f_S' [B, levels, width]
        noise: Noise = "random",
    ) -> Tensor:
        """Frames [B, 3, H, W], about [-1, 1]."""
        dtype = _autocast_dtype(edited.device)
        with torch.autocast(edited.device.type, enabled=False):
            return self.synthesis(self.styles(codes, at_least_float32(edited)), noise, dtype=dtype)
