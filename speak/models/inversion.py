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

    Pose and emotion are what E_p and E_e read from the photo, the mouth is that of silence. Few steps are best: the
    more there are, the nearer the photo, and the less is left of what sound and emotion do to the face.
    """
    if not steps or not len(photos):
        return identity.detach()
    with torch.no_grad():
        codes = model.codes_of_photos(photos)
    return fit_identity_to_frames(model, photos[:, None], identity, *codes, steps, config)


def fit_identity_to_frames(
    model: Speak,
    frames: Tensor,  # [B, N, 3, H, W] in [-1, 1], N of each person
    identity: Tensor,  # f_I [B, D_I] to begin with, unit length
    pose: Tensor,  # f_P [B, N, D_P] of these frames
    emotion: Tensor,  # f_E [B, N or 1, D_E]
    audio: Tensor,  # f_a [B, N, D]
    steps: int,
    config: InversionConfig,
) -> Tensor:
    """f_I [B, D_I], unit length, float32, no gradient, with which G_g makes each person's frames best.

    Each step goes the same length down the person's own gradient of the squared difference, and the steps shorten to
    nothing.
    """
    noise = model.draw_noise([0] * len(frames))
    fitted = identity.detach().float()
    moving = torch.zeros_like(fitted)
    for step in range(steps):
        with torch.enable_grad():
            fitted.requires_grad_()
            made = model.generate(fitted, pose, emotion, audio, noise)
            error = (made.float() - frames).square().mean((1, 2, 3, 4)).sum()
            (way,) = torch.autograd.grad(error, fitted)
        moving = config.momentum * moving + F.normalize(way, dim=-1)
        fitted = F.normalize(fitted.detach() - config.rate * (1 - step / steps) * moving, dim=-1)
    return fitted
