"""Glances at generated frames: moved, turned, enlarged, lit and made noisy a little, the true ones alike (ours).

A net that looks at a frame always in the same way may be pleased by patterns that nobody else sees. Off by default: it
has not been shown to help (examples/default_weights.py).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from speak.models.codes import at_least_float32

TURN = 8.0  # degrees
SHIFT = 0.06  # picture widths
ZOOM = 0.12  # of the size
LIGHT = 0.15  # of a colour's strength
NOISE = 0.06  # standard deviation at most; a picture's range is 2
_NUMBERS = 8  # drawn for each picture


def jittered(
    made: Tensor,  # [B, 3, H, W] in [-1, 1]
    true: Tensor,  # [B, 3, H, W]
    seeds: Tensor,  # [B] int64: a picture's jitter depends on its seed alone
    strength: float,  # 1: up to the constants above; 0: frames stay as they are
) -> tuple[Tensor, Tensor]:
    """Each generated frame and its true one after the same small change of place, size, light and noise.

    In float32 under autocast too: a grid of places rounded to bfloat16 would be off by a pixel.
    """
    if not strength:
        return made, true
    height, width = made.shape[-2:]
    rows, noise = [], []
    for seed in seeds.tolist():
        generator = torch.Generator().manual_seed(int(seed))
        rows.append(torch.rand(_NUMBERS, generator=generator) * 2 - 1)
        noise.append(torch.randn(1, height, width, generator=generator))
    turn, x, y, zoom, red, green, blue, loud = (strength * torch.stack(rows).to(made.device)).unbind(1)
    turn, size = turn * math.radians(TURN), 1 + zoom * ZOOM
    cosine, sine = size * torch.cos(turn), size * torch.sin(turn)
    rotation = torch.stack([cosine, -sine, 2 * SHIFT * x, sine, cosine, 2 * SHIFT * y], 1).view(-1, 2, 3)
    with torch.autocast(made.device.type, enabled=False):
        grid = F.affine_grid(rotation, list(made.shape), align_corners=False)
    light = 1 + LIGHT * torch.stack([red, green, blue], 1)[:, :, None, None]
    grain = NOISE * loud.abs()[:, None, None, None] * torch.stack(noise).to(made.device)

    def glance(frames: Tensor) -> Tensor:
        with torch.autocast(made.device.type, enabled=False):
            moved = F.grid_sample(at_least_float32(frames), grid, padding_mode="border", align_corners=False)
        return (moved + 1) * light - 1 + grain

    return glance(made), glance(true)


def picture_seeds(
    numbers: Tensor,  # [B] of the samples
    pictures: int,  # of each sample
) -> Tensor:
    """Seeds [B, pictures] that do not depend on how a batch is divided."""
    return numbers[:, None] * pictures + torch.arange(pictures, device=numbers.device)
