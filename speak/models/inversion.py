"""f_I fitted to the photo: what E_i reads, moved until G_g rebuilds the photo. Ours; elsewhere called GAN inversion.

An encoder makes in one pass what it can; the generator could do better with another code of the same size. A few steps
along the gradient find one in half a second, without touching any weights (`--adapt` goes on from there).
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

    Pose and emotion are what E_p and E_e read from the photo, the mouth is that of silence. Each step goes the same
    length down the photo's own gradient of the squared difference, and the steps shorten to nothing. Few are best: the
    more there are, the nearer the photo, and the less is left of what sound and emotion do to the face.
    """
    if not steps or not len(photos):
        return identity.detach()
    with torch.no_grad():
        pose, emotion = model.encode_pose(photos)[:, None], model.encode_emotion(photos)[:, None]
        mouth = model.encode_silence().expand(len(photos), 1, -1)
    noise = model.draw_noise([0] * len(photos))
    fitted = identity.detach().float()
    moving = torch.zeros_like(fitted)
    for step in range(steps):
        with torch.enable_grad():
            fitted.requires_grad_()
            frames = model.generate(fitted, pose, emotion, mouth, noise)[:, 0]
            error = (frames.float() - photos).square().mean((1, 2, 3)).sum()
            (way,) = torch.autograd.grad(error, fitted)
        moving = config.momentum * moving + F.normalize(way, dim=-1)
        fitted = F.normalize(fitted.detach() - config.rate * (1 - step / steps) * moving, dim=-1)
    return fitted
