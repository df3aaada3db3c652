"""Light on surfaces: soft wrapped diffuse with a warm terminator, two lobes of highlight, sky and bounce, rim light."""

from __future__ import annotations

import torch
from torch import Tensor

from speak.synthetic.parts import BODY, EAR, GLASSES, HAIR, HAIR_INSIDE, SKIN
from speak.synthetic.shapes import put, unit

# By surface: wrap of red, green, blue light past the edge of shadow; strength and sharpness of the highlight; rim.
_MATERIAL = {
    SKIN: (0.55, 0.34, 0.28, 0.16, 22.0, 0.30),
    EAR: (0.75, 0.40, 0.32, 0.10, 18.0, 0.30),
    HAIR: (0.30, 0.30, 0.30, 0.0, 10.0, 0.40),
    HAIR_INSIDE: (0.30, 0.30, 0.30, 0.0, 10.0, 0.0),
    BODY: (0.35, 0.32, 0.30, 0.05, 8.0, 0.22),
    GLASSES: (0.2, 0.2, 0.2, 0.35, 30.0, 0.0),
}


def light_surface(
    part: Tensor,  # [N] which surface
    normal: Tensor,  # [3, N] unit
    albedo: Tensor,  # [3, N] linear
    shade: Tensor,  # [N] openness
    gloss: Tensor,  # [N] strength of highlights
    strand: Tensor,  # [2, N] hair: across and along strands
    light: Tensor,  # [3, N] unit, towards the light
    colour: Tensor,  # [3, N] of the light
) -> Tensor:
    """The light that each sample sends to the viewer, [3, N] linear."""
    device = normal.device
    material = torch.tensor([_MATERIAL[index] for index in range(len(_MATERIAL))], device=device)
    material = material.T.contiguous().index_select(1, part)
    wrap, strength, sharp, rim = material[:3], material[3], material[4], material[5]
    facing = (normal * light).sum(0)
    diffuse = ((facing + wrap) / (1 + wrap)).clamp(min=0)
    diffuse = diffuse * diffuse.sqrt()
    up = normal[1]
    sky = 0.28 + 0.10 * up + 0.05 * normal[2]
    bounce = (0.12 - 0.12 * up).clamp(min=0)
    ambient = sky * torch.tensor([[0.98], [0.98], [1.03]], device=device) + bounce * torch.tensor(
        [[1.10], [0.92], [0.82]], device=device)
    bend = torch.tensor([[0.25], [-0.05], [-0.10]], device=device)  # hollows go red before they go dark
    warm = shade * (1 + bend - bend * shade)
    lit = albedo * (0.84 * diffuse * colour * (0.35 + 0.65 * warm) + ambient * warm)

    half = unit(light + torch.tensor([[0.0], [0.0], [1.0]], device=device))
    peak = (normal * half).sum(0).clamp(min=0)
    shine = strength * (peak ** sharp + 0.35 * peak ** (sharp * 0.28)) * gloss
    fresnel = (1 - normal[2].clamp(0, 1)) ** 3
    shine = shine + rim * fresnel * (0.35 + 0.4 * (normal[0] * -light[0].sign() + 0.5 * up).clamp(min=0)) * shade

    lit = lit + (shine * 0.8) * colour
    locks = (part == HAIR).nonzero().squeeze(1)
    put(lit, locks, _light_hair(*(value.index_select(-1, locks) for value in
                                  (lit, normal, albedo, shade, strand[0], half, facing, colour))))
    return lit


def _light_hair(lit: Tensor, normal: Tensor, albedo: Tensor, shade: Tensor, strand: Tensor, half: Tensor,
                facing: Tensor, colour: Tensor) -> Tensor:
    """Adds hair's own light after Kajiya and Kay (1989): a band across strands that run down from the crown."""
    down = torch.tensor([[0.0], [1.0], [0.0]], device=normal.device) - normal * normal[1]
    tangent = unit(down + 0.05)
    fine = torch.sin(strand * 43 + 2 * torch.sin(strand * 17)) + 0.6 * torch.sin(strand * 97 + 1.3)
    slip = (tangent * half).sum(0) + 0.05 * fine - 0.06
    band = (1 - slip * slip).clamp(min=0) ** 26
    back = (1 - (slip + 0.22) ** 2).clamp(min=0) ** 9
    lit = lit * (1 + 0.11 * fine)
    glow = (0.30 * band * (facing + 0.4).clamp(0, 1) * shade) * (0.30 + albedo.sqrt())
    glow = glow + (0.55 * back * (facing + 0.3).clamp(0, 1)) * albedo
    return lit + glow * colour


def develop(light: Tensor) -> Tensor:
    """Linear light as RGB in [0, 1]: a soft shoulder above 0.7, then gamma 2."""
    soft = 0.70 + 0.30 * torch.tanh((light - 0.70) / 0.30)
    return torch.where(light > 0.70, soft, light).clamp(min=0).sqrt()
