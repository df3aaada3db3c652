"""Conditional multi-scale discriminator D, SPEAK Eq. 10: is y a real frame of the person of frame x?"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speak.config import DiscriminatorConfig
from speak.models.resnet import GROUP


class PatchDiscriminator(nn.Module):
    """One scale: convolutions of stride 2, a logit a patch (Isola et al. 2017). Group norm: batches of one work too."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        channels = 6
        for layer in range(config.layers):
            width = min(config.width << layer, config.channel_max)
            convolution = nn.Conv2d(channels, width, 4, 2, 1)
            norm = nn.GroupNorm(max(1, width // GROUP), width) if layer else nn.Identity()
            self.blocks.append(nn.Sequential(convolution, norm, nn.LeakyReLU(0.2)))
            channels = width
        self.logits = nn.Conv2d(channels, 1, 3, 1, 1)

    def forward(
        self,
        pair: Tensor,  # [B, 6, H, W]: identity frame, frame to judge
    ) -> tuple[Tensor, list[Tensor]]:
        """Logits [B, 1, h, w], features of every block."""
        features = []
        for block in self.blocks:
            pair = block(pair)
            features.append(pair)
        return self.logits(pair), features


class Discriminator(nn.Module):
    """D(x, y): the same architecture at several scales, each with weights of its own (Wang et al. 2018)."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.scales = nn.ModuleList(PatchDiscriminator(config) for _ in range(config.scales))

    def forward(
        self,
        identity_frames: Tensor,  # x [B, 3, H, W] in [-1, 1]
        frames: Tensor,  # y [B, 3, H, W], real or generated
    ) -> list[tuple[Tensor, list[Tensor]]]:
        """(logits [B, 1, h, w], features) a scale, from the full size down."""
        pair = torch.cat([identity_frames, frames.to(identity_frames.dtype)], dim=1)
        found = []
        for index, scale in enumerate(self.scales):
            if index:
                pair = F.avg_pool2d(pair, 2)
            found.append(scale(pair))
        return found
