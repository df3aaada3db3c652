"""Rendered people for the tests of what is drawn: as they look unless the test says otherwise."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from speak.synthetic.head import Rendered, render
from speak.synthetic.identity import IDENTITY_NAMES, sample_identity
from speak.synthetic.motion import emotion_weights
from speak.synthetic.scene import Scene, sample_scene


def people(count: int, seed: int = 0, lifelike: float = 0.0) -> tuple[Tensor, Scene]:
    generator = torch.Generator().manual_seed(seed)
    return with_traits(sample_identity(count, generator), lifelike=lifelike), sample_scene(count, generator)


def with_traits(identity: Tensor, **traits: float) -> Tensor:
    changed = identity.clone()
    for name, value in traits.items():
        changed[:, IDENTITY_NAMES.index(name)] = value
    return changed


def straight(count: int) -> Tensor:
    return torch.tensor([0, 0, 0, 0, 0, 1.0]).repeat(count, 1)


def show(identity: Tensor, scene: Scene, pose: Tensor | None = None, weights: Tensor | None = None,
         mouth: Tensor | None = None, eyes: Tensor | None = None, size: int = 128) -> Rendered:
    count = identity.shape[0]
    return render(
        identity, straight(count) if pose is None else pose,
        emotion_weights("neutral", torch.ones(count)) if weights is None else weights,
        torch.zeros(count, 6) if mouth is None else mouth, torch.zeros(count, 4) if eyes is None else eyes, scene, size,
    )  # fmt: skip


def polygon(points: Tensor, size: int, grow: float) -> np.ndarray:
    """Pixels [size, size] within `grow` pixels of the polygon, drawn eight times finer."""
    image = Image.new("1", (size * 8, size * 8))
    draw = ImageDraw.Draw(image)
    corners = [((x + 0.5) * 8, (y + 0.5) * 8) for x, y in points.tolist()]
    draw.polygon(corners, fill=1)
    draw.line([*corners, corners[0]], fill=1, width=int(16 * grow), joint="curve")
    return np.asarray(image).reshape(size, 8, size, 8).any((1, 3))
