"""The linear trace of the pose is taken out of f_I and f_E (ours, end of stage `irfd`): LEACE, Belrose et al. 2023.

Nothing that generates pictures needs it there, yet a linear probe reads it. The least change of a code that leaves none
of it is a projection, and goes into the encoder's last weights. What is not linear in the code stays.
"""

from __future__ import annotations

import torch
from torch import Tensor

from speak.models.irfd import Encoder

_SMALLEST = 1e-6  # of the largest variance: directions below are not looked at


def erasing_projection(
    codes: Tensor,  # [N, D]
    concept: Tensor,  # [N, K], what is not to be read from them
) -> tuple[Tensor, Tensor]:
    """(M [D, D], v [D]) in float64: M c + v has no covariance with the concept, and is as near to c as can be.

    Near: in the metric of the codes' covariance (LEACE, theorem 4.2).
    """
    codes, concept = codes.double(), concept.double()
    mean = codes.mean(0)
    centred, known = codes - mean, concept - concept.mean(0)
    variance, directions = torch.linalg.eigh(centred.T @ centred / len(codes))
    spread = variance.clamp(min=variance.max() * _SMALLEST).sqrt()
    whiten, colour = directions / spread @ directions.T, directions * spread @ directions.T
    traced, _ = torch.linalg.qr(whiten @ (centred.T @ known / len(codes)))
    projection = torch.eye(len(mean), dtype=codes.dtype, device=codes.device) - colour @ traced @ traced.T @ whiten
    return projection, mean - projection @ mean


@torch.no_grad()
def erase(encoder: Encoder, codes: Tensor, concept: Tensor) -> None:
    """Makes the encoder's codes before their normalisation those of `erasing_projection`.

    codes: [N, D] before the normalisation (`Encoder.raw`). concept: [N, K].
    """
    projection, shift = erasing_projection(codes, concept)
    encoder.linear.bias.copy_(projection @ encoder.linear.bias.double() + shift)
    for layer in filter(None, (encoder.linear, encoder.thumbnail)):
        layer.weight.copy_(projection @ layer.weight.double())
