"""f_I fitted to the photo: what E_i reads, moved until G_g rebuilds the photo. Ours; elsewhere called GAN inversion.

An encoder makes in one pass what it can; the generator could do better with another code of the same size. Some steps
along the gradient find one in a second or two, without touching any weights (`--adapt` goes on from there).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from speak.config import InversionConfig

if TYPE_CHECKING:
    from speak.models.speak import Speak


def fit_identity(
    model: Speak,
    photos: Tensor,  # [B, 3, H, W] in [-1, 1]
    identity: Tensor,  # f_I [B, D_I] to begin with, unit length
    steps: int,
    config: InversionConfig,
) -> Tensor:
    """f_I [B, D_I], unit length, float32, no gradient: that of each photo by itself, whatever else is in the batch.

    Pose and emotion are what E_p and E_e read from the photo; the mouth, which no sound explains, is moved as well,
    from that of silence, and then forgotten. Each step has the same length in the photo's own direction of descent,
    and the steps shorten to nothing.
    """
    if not steps:
        return identity.detach()
    with torch.no_grad():
        pose, emotion = model.encode_pose(photos)[:, None], model.encode_emotion(photos)[:, None]
        fitted = identity.detach().float()
        mouth = model.encode_silence().float().expand(len(photos), 1, -1)
    noise = model.draw_noise([0] * len(photos))
    moving, mouth_moving = torch.zeros_like(fitted), torch.zeros_like(mouth)
    for step in range(steps):
        with torch.enable_grad():
            fitted.requires_grad_()
            mouth = mouth.detach().requires_grad_()
            frames = model.generate(fitted, pose, emotion, mouth, noise)[:, 0]
            error = (frames.float() - photos).square().mean((1, 2, 3)).sum()
            ways = torch.autograd.grad(error, [fitted, mouth])
        length = config.rate * (1 - step / steps)
        with torch.no_grad():
            moving = config.momentum * moving + F.normalize(ways[0], dim=-1)
            mouth_moving = config.momentum * mouth_moving + F.normalize(ways[1], dim=-1)
            fitted = F.normalize(fitted - length * moving, dim=-1)
            mouth = mouth - config.mouth * length * mouth_moving
    return fitted.detach()
