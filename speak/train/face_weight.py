"""How much each pixel counts: emotion and speech change few pixels, and whole-picture averages are blind to them."""

from __future__ import annotations

import torch
from torch import Tensor

# iBUG landmarks of the places that move: upper and lower points
_MOUTH = slice(48, 68)
_PLACES = ((slice(17, 22), slice(36, 42)), (slice(22, 27), slice(42, 48)), (_MOUTH, _MOUTH))
_BEYOND = 0.65  # half axes of the ellipse about a place, in widths and heights of its points


def face_weight(
    landmarks: Tensor | None,  # [B, 68, 2], pixels
    size: int,  # of the frames
    amount: float,  # how much more the eyes, brows and mouth count than the rest
    mouth: float = 1.0,  # how much more of it for the mouth
) -> Tensor | None:
    """Weights [B, 1, size, size] of mean 1 a picture; None where there are no landmarks or `amount` is 0."""
    if landmarks is None or not amount:
        return None
    at = torch.arange(size, device=landmarks.device, dtype=torch.float32)
    weight = landmarks.new_ones(len(landmarks), size, size)
    for upper, lower in _PLACES:
        more = amount * mouth if upper == _MOUTH else amount
        points = torch.cat([landmarks[:, upper], landmarks[:, lower]], 1)
        low, high = points.amin(1), points.amax(1)
        middle = (low + high) / 2
        reach = ((high - low) * _BEYOND).clamp(min=size / 24)
        x = (at[None, None, :] - middle[:, 0, None, None]) / reach[:, 0, None, None]
        y = (at[None, :, None] - middle[:, 1, None, None]) / reach[:, 1, None, None]
        inside = torch.sigmoid(6 * (1.15 - (x.square() + y.square()).clamp(min=1e-6).sqrt()))
        weight = torch.maximum(weight, 1 + more * inside)
    weight = torch.where(landmarks.isfinite().all(2).all(1)[:, None, None], weight, 1.0)  # unknown in some clips
    return (weight / weight.mean((1, 2), keepdim=True))[:, None]
