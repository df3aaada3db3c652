"""What surrounds a rendered person: the light, and a smooth background of two colours and two soft spots."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor


@dataclasses.dataclass
class Scene:
    """light: [B, 6], direction towards the light (right, up, to the viewer) and its RGB colour, about 1.

    background: [B, 14] in [0, 1]: two RGB colours, the gradient's angle in turns, then for each of two spots x, y and
    size in image widths, and their strength in common.
    """

    light: Tensor
    background: Tensor

    def __getitem__(self, index: Tensor | slice) -> Scene:
        return Scene(self.light[index], self.background[index])

    def to(self, device: torch.device | str) -> Scene:
        return Scene(self.light.to(device), self.background.to(device))


def sample_scene(count: int, generator: torch.Generator) -> Scene:
    """`count` scenes; the generator lives on the CPU."""
    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator)

    across = (uniform() * 2 - 1) * 1.0
    light = torch.stack([across, 0.25 + 0.65 * uniform(), 0.75 + 0.35 * uniform()], 1)
    light = torch.nn.functional.normalize(light, dim=1)
    warm = uniform() * 2 - 1
    tint = torch.stack([1 + 0.10 * warm, 1 + 0.01 * warm, 1 - 0.12 * warm], 1) * (0.90 + 0.22 * uniform()).unsqueeze(1)
    hue, pale = uniform(), uniform() ** 1.5
    turn = torch.stack([hue, hue + 1 / 3, hue + 2 / 3], 1) * (2 * math.pi)
    colour = 0.5 + 0.5 * torch.cos(turn)
    value = (0.30 + 0.58 * uniform()).unsqueeze(1)
    first = value * torch.lerp(torch.ones(count, 3), colour, 0.10 + 0.45 * (1 - pale).unsqueeze(1))
    second = (first * (0.55 + 0.35 * uniform()).unsqueeze(1) + 0.06 * (uniform(3) - 0.3)).clamp(0, 1)
    spots = torch.cat([uniform(2), 0.15 + 0.30 * uniform(1), uniform(2), 0.15 + 0.30 * uniform(1)], 1)
    background = torch.cat([first.clamp(0, 1), second, uniform(1), spots, uniform(1)], 1)
    return Scene(torch.cat([light, tint], 1), background)


def background_colour(scene: Scene, size: int) -> Tensor:
    """[3, B, size, size] in [0, 1]: a gradient, lighter behind the head, two faint spots."""
    first, second, turn, spots, strength = scene.background.split([3, 3, 1, 6, 1], 1)
    place = (torch.arange(size, device=turn.device, dtype=turn.dtype) + 0.5) / size
    x, y = place[None, None, :], place[None, :, None]
    angle = (turn * 2 * math.pi).unsqueeze(2)
    along = 0.5 + 0.6 * ((x - 0.5) * torch.cos(angle) + (y - 0.5) * torch.sin(angle))
    glow = torch.exp(-((x - 0.5) ** 2 + (y - 0.42) ** 2) / 0.16)
    amount = (along * (1 - 0.45 * glow)).clamp(0, 1)
    for index in (0, 3):
        centre_x, centre_y, radius = spots[:, index : index + 3].unsqueeze(2).unbind(1)
        spot = torch.exp(-(((x - centre_x[:, None]) ** 2 + (y - centre_y[:, None]) ** 2) / radius[:, None] ** 2))
        amount = amount - 0.22 * strength.unsqueeze(2) * spot
    first, second = (colour.T[:, :, None, None].expand(-1, *amount.shape) for colour in (first, second))
    return torch.lerp(first, second, amount.clamp(0, 1).expand_as(first))
