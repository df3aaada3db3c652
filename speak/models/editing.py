"""Editing module, SPEAK Sec. 3.2.2: speech content and emotion become f_S', a vector a frame and a generator level."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speak.config import Config
from speak.models.codes import Codes, at_least_float32


class EditingBlock(nn.Module):
    """A fully connected layer, scaled noise, and AdaIN: the frame's vector is normalised over its own channels."""

    def __init__(self, size_in: int, width: int, condition: int) -> None:
        super().__init__()
        self.linear = nn.Linear(size_in, width)
        self.noise_strength = nn.Parameter(torch.zeros(width))
        self.affine = nn.Linear(condition, 2 * width)
        nn.init.zeros_(self.affine.bias)

    def forward(
        self,
        features: Tensor,  # [B, N, size_in]
        condition: Tensor,  # [B, N, sum of the codes' widths]
        noise: Tensor,  # [B, 1, width], the same for every frame of a clip
    ) -> Tensor:
        features = F.leaky_relu(self.linear(features), 0.2) + self.noise_strength * noise
        scale, shift = self.affine(condition).chunk(2, dim=-1)
        normalised = F.layer_norm(features, features.shape[-1:])
        return normalised * (1 + scale) + shift


class EditingModule(nn.Module):
    """Fully connected blocks over (f_a, f_E), a block a generator level; their outputs are f_S(1:N)'.

    Where `config.model.editing.repeat_input`, every block reads (f_a, f_E) again, behind the block before it (ours).
    Scale and shift of each AdaIN come from (f_I, f_P, f_E) of the frame. No statistic crosses frames, so a clip may be
    edited in pieces of any length.
    """

    def __init__(self, config: Config, audio_dim: int, levels: int) -> None:
        super().__init__()
        model = config.model
        width = model.editing.width
        condition = model.identity.code_dim + model.pose.code_dim + model.emotion.code_dim
        first = audio_dim + model.emotion.code_dim
        self.levels, self.width, self.repeat_input = levels, width, model.editing.repeat_input
        sizes_in = [first] + [width + first if self.repeat_input else width] * (levels - 1)
        self.blocks = nn.ModuleList(EditingBlock(size_in, width, condition) for size_in in sizes_in)

    def forward(
        self,
        audio: Tensor,  # f_a [B, N, audio_dim]
        codes: Codes,  # of the frames: each code [B, N, D]
        noise: Tensor,  # [B or 1, levels, width], drawn once a clip
    ) -> Tensor:
        """f_S' [B, N, levels, width], in float32 under autocast too: styles are made of it."""
        edited = []
        with torch.autocast(audio.device.type, enabled=False):
            condition = codes.fused()
            features = given = torch.cat([at_least_float32(audio), codes.emotion], dim=-1)
            for level, block in enumerate(self.blocks):
                if level and self.repeat_input:
                    features = torch.cat([features, given], dim=-1)
                features = block(features, condition, noise[:, level : level + 1])
                edited.append(features)
        return torch.stack(edited, dim=2)
