"""Domain randomisation of what encoders look at: colour, light, texture behind the head, occluders, blur, noise, JPEG.

Every picture has a seed of its own, so that what happens to it does not depend on the batch it is in or the device.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# Numbers drawn for each picture, in this order.
_NAMES = (
    "gain_r", "gain_g", "gain_b", "lift_r", "lift_g", "lift_b", "gamma", "contrast", "saturation", "hue", "grey",
    "texture", "texture_scale", "texture_turn", "texture_warp", "texture_kind", "tex_r", "tex_g", "tex_b",
    "shadow", "shadow_x", "shadow_y", "shadow_turn", "hide", "hide_x", "hide_y", "hide_w", "hide_h", "hide_turn",
    "hide_r", "hide_g", "hide_b", "blur", "blur_turn", "noise", "jpeg", "shrink", "flare",
)  # fmt: skip


def draw(seeds: Tensor) -> dict[str, Tensor]:  # [B] int64
    """The numbers of each picture's own seed, uniform in [0, 1]: name -> [B] on the seeds' device."""
    rows = []
    for seed in seeds.tolist():
        rows.append(torch.rand(len(_NAMES), generator=torch.Generator().manual_seed(int(seed))))
    return dict(zip(_NAMES, torch.stack(rows).to(seeds.device).unbind(1), strict=True))


def augment(
    frames: Tensor,  # [B, 3, H, W] in [-1, 1]
    seeds: Tensor,  # [B] int64, one a picture
    visible: Tensor | None = None,  # [B, H, W] how much of a pixel the person covers; without it the background stays
    strength: float = 1.0,
    occluders: bool = True,
) -> Tensor:
    """The pictures as bad cameras and other rooms would show them: [B, 3, H, W] in [-1, 1].

    Geometry is left alone, so that landmarks and pose stay true.
    """
    number = draw(seeds)
    picture = (frames + 1) / 2
    if visible is not None:
        picture = _behind(picture, visible, number, strength)
    picture = _light(picture, number, strength)
    if occluders:
        picture = _occlude(picture, number, strength)
    picture = _colour(picture, number, strength)
    picture = _camera(picture, seeds, number, strength)
    return picture.clamp(0, 1) * 2 - 1


def recoloured(
    frames: Tensor,  # [B, 3, H, W] in [-1, 1]
    seeds: Tensor,  # [B] int64, one a picture: the same seed does the same to every picture
    strength: float = 1.0,
) -> Tensor:
    """The pictures in another camera's colours: [B, 3, H, W] in [-1, 1]."""
    return _colour((frames + 1) / 2, draw(seeds), strength).clamp(0, 1) * 2 - 1


def reshaped(
    frames: Tensor,  # [B, C, H, W]
    seeds: Tensor,  # [B] int64, one a picture: the same seed does the same to every picture
) -> Tensor:
    """The pictures nearer or farther, moved, and pulled this way and that like another face: [B, C, H, W]."""
    rows = []
    for seed in seeds.tolist():
        generator = torch.Generator().manual_seed(int(seed) + 2)
        rows.append((torch.rand(4, generator=generator) * 2 - 1, torch.randn(2, 4, 4, generator=generator)))
    (size, wide, *move), pull = torch.stack([row[0] for row in rows], 1), torch.stack([row[1] for row in rows])
    size, wide = torch.exp(0.1 + 0.2 * size), torch.exp(0.06 * wide)
    turn = torch.zeros(len(rows), 2, 3)
    turn[:, 0, 0], turn[:, 1, 1] = wide / size, 1 / (wide * size)
    turn[:, :, 2] = 0.1 * torch.stack(move, 1)
    still = F.affine_grid(turn, [len(rows), 1, *frames.shape[2:]], align_corners=False)
    pull = F.interpolate(0.03 * pull, size=frames.shape[2:], mode="bicubic", align_corners=False)
    grid = (still + pull.permute(0, 2, 3, 1)).to(frames.device)
    return F.grid_sample(frames, grid, padding_mode="border", align_corners=False)


def _cell(value: Tensor) -> Tensor:
    return value[:, None, None]


def _chance(value: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Whether it happens (0 or 1), and how much where it does, uniform in [0, 1]."""
    return (value < share).to(value.dtype), (value / share).clamp(0, 1)


def _grid(picture: Tensor) -> tuple[Tensor, Tensor]:
    height, width = picture.shape[-2:]
    y = (torch.arange(height, device=picture.device, dtype=picture.dtype) + 0.5) / height - 0.5
    x = (torch.arange(width, device=picture.device, dtype=picture.dtype) + 0.5) / width - 0.5
    return x[None, None, :], y[None, :, None]


def _behind(picture: Tensor, visible: Tensor, number: dict[str, Tensor], strength: float) -> Tensor:
    """Stripes, checks and marbled waves where the person does not cover."""
    x, y = _grid(picture)
    on, much = _chance(number["texture"], 0.75 * strength)
    turn = _cell(number["texture_turn"]) * math.pi
    scale = 2 * math.pi * (2 + 14 * _cell(number["texture_scale"]) ** 2)
    along = x * torch.cos(turn) + y * torch.sin(turn)
    across = y * torch.cos(turn) - x * torch.sin(turn)
    warp = 1.5 * _cell(number["texture_warp"]) * torch.sin(scale * 0.43 * across + 2 * torch.sin(scale * 0.31 * along))
    one, two = torch.sin(scale * along + warp), torch.sin(scale * across + 1.3 * warp + 1)
    kind = _cell(number["texture_kind"])
    pattern = torch.where(kind < 0.35, one, torch.where(kind < 0.6, one * two, torch.tanh(3 * (one + two))))
    grain = torch.sin(91.7 * x + 37.3 * y + 5 * pattern) * torch.sin(53.1 * y - 71.9 * x + 3 * warp)
    pattern = 0.5 + 0.38 * pattern + 0.12 * grain
    colour = torch.stack([number["tex_r"], number["tex_g"], number["tex_b"]], 1)[:, :, None, None]
    ground = torch.lerp(picture, colour.expand_as(picture), (pattern * (0.25 + 0.75 * _cell(much))).unsqueeze(1))
    amount = (1 - visible) * _cell(on)
    return torch.lerp(picture, ground, amount.unsqueeze(1))


def _light(picture: Tensor, number: dict[str, Tensor], strength: float) -> Tensor:
    """A cast shadow with a soft edge across the picture, or a flare of light."""
    x, y = _grid(picture)
    on, much = _chance(number["shadow"], 0.4 * strength)
    turn = _cell(number["shadow_turn"]) * 2 * math.pi
    side = (x - 0.6 * (_cell(number["shadow_x"]) - 0.5)) * torch.cos(turn) + (
        y - 0.6 * (_cell(number["shadow_y"]) - 0.5)) * torch.sin(turn)
    shade = 1 - _cell(on * (0.15 + 0.45 * much)) * torch.sigmoid(side / 0.05)
    bright, glare = _chance(number["flare"], 0.2 * strength)
    spot = torch.exp(-((x - _cell(number["shadow_y"]) + 0.5) ** 2 + (y - _cell(number["shadow_x"]) + 0.5) ** 2) / 0.08)
    return picture * shade.unsqueeze(1) + (0.45 * _cell(bright * glare) * spot).unsqueeze(1)


def _occlude(picture: Tensor, number: dict[str, Tensor], strength: float) -> Tensor:
    """A plain bar or round thing in front of a part of the picture."""
    x, y = _grid(picture)
    on, much = _chance(number["hide"], 0.25 * strength)
    turn = _cell(number["hide_turn"]) * math.pi
    dx, dy = x - (_cell(number["hide_x"]) - 0.5), y - (_cell(number["hide_y"]) - 0.5)
    a = (dx * torch.cos(turn) + dy * torch.sin(turn)) / (0.04 + 0.16 * _cell(number["hide_w"]))
    b = (dy * torch.cos(turn) - dx * torch.sin(turn)) / (0.04 + 0.16 * _cell(number["hide_h"]))
    power = torch.where(_cell(much) > 0.5, 2.0, 8.0)
    inside = torch.sigmoid((1 - (a.abs() ** power + b.abs() ** power)) * 12)
    colour = torch.stack([number["hide_r"], number["hide_g"], number["hide_b"]], 1)[:, :, None, None]
    shade = (0.75 + 0.5 * _cell(much) * (a * 0.3)).unsqueeze(1)
    return torch.lerp(picture, (colour * shade).expand_as(picture), (inside * _cell(on)).unsqueeze(1))


def _colour(picture: Tensor, number: dict[str, Tensor], strength: float) -> Tensor:
    """Another camera's colours: gains, lifts, gamma, contrast, saturation, a turn of hue, now and then grey."""
    def of(name: str, low: float, high: float, rest: float) -> Tensor:
        return (rest + strength * (low + (high - low) * number[name] - rest))[:, None, None, None]

    gain = torch.cat([of("gain_" + c, 0.75, 1.25, 1.0) for c in "rgb"], 1)
    lift = torch.cat([of("lift_" + c, -0.08, 0.08, 0.0) for c in "rgb"], 1)
    picture = (picture * gain + lift).clamp(1e-4, 1)
    picture = picture ** of("gamma", 0.6, 1.6, 1.0)
    picture = 0.5 + (picture - 0.5) * of("contrast", 0.6, 1.3, 1.0)
    grey = (picture * picture.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    all_grey, _ = _chance(number["grey"], 0.08 * strength)
    saturation = of("saturation", 0.3, 1.5, 1.0) * (1 - all_grey[:, None, None, None])
    picture = grey + (picture - grey) * saturation
    angle = of("hue", -0.25, 0.25, 0.0)
    swing = torch.roll(picture, 1, 1) - torch.roll(picture, -1, 1)  # a turn about the grey axis, to first order
    return picture + torch.sin(angle) * swing / math.sqrt(3)


def _camera(picture: Tensor, seeds: Tensor, number: dict[str, Tensor], strength: float) -> Tensor:
    """Low resolution, blur, sensor noise, JPEG blocks."""
    size = picture.shape[-1]
    small, much = _chance(number["shrink"], 0.3 * strength)
    low = F.interpolate(F.interpolate(picture, scale_factor=0.5, mode="area"), size=picture.shape[-2:], mode="bilinear")
    picture = torch.lerp(picture, low, (small * (0.4 + 0.6 * much))[:, None, None, None])
    picture = _blur(picture, number, strength)
    loud, much = _chance(number["noise"], 0.6 * strength)
    noise = torch.stack([
        torch.randn(3, *picture.shape[-2:], generator=torch.Generator().manual_seed(int(seed) + 1))
        for seed in seeds.tolist()
    ]).to(picture.device)  # fmt: skip
    picture = picture + noise * (loud * 0.06 * much)[:, None, None, None]
    lossy, much = _chance(number["jpeg"], 0.6 * strength)
    if size % 8 == 0 and picture.shape[-2] % 8 == 0:
        picture = torch.lerp(picture, jpeg(picture.clamp(0, 1), 1 - 0.85 * much), lossy[:, None, None, None])
    return picture


def _blur(picture: Tensor, number: dict[str, Tensor], strength: float) -> Tensor:
    """A Gaussian, longer along one direction: out of focus, or moving."""
    on, much = _chance(number["blur"], 0.5 * strength)
    reach = 4
    offset = torch.arange(-reach, reach + 1, device=picture.device, dtype=picture.dtype)
    turn = _cell(number["blur_turn"]) * math.pi
    wide = _cell(0.25 + on * 1.9 * much * picture.shape[-1] / 256)
    along = offset[None, None, :] * torch.cos(turn) + offset[None, :, None] * torch.sin(turn)
    across = offset[None, :, None] * torch.cos(turn) - offset[None, None, :] * torch.sin(turn)
    kernel = torch.exp(-0.5 * ((along / wide) ** 2 + (across / (wide * 0.5 + 0.12)) ** 2))
    kernel = kernel / kernel.sum((1, 2), keepdim=True)
    batch, channels = picture.shape[:2]
    padded = F.pad(picture, (reach,) * 4, mode="reflect").flatten(0, 1).unsqueeze(0)
    weight = kernel[:, None].expand(-1, channels, -1, -1).reshape(batch * channels, 1, 2 * reach + 1, 2 * reach + 1)
    return F.conv2d(padded, weight, groups=batch * channels).reshape(picture.shape)


# Luminance quantisation of ITU-T T.81, table K.1.
_LUMA = (16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22,
         29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103,
         121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99)  # fmt: skip


def jpeg(picture: Tensor, quality: Tensor) -> Tensor:  # [B, 3, H, W] in [0, 1], H and W multiples of 8; [B] in [0, 1]
    """What a JPEG of that quality leaves: 8x8 cosine blocks quantised, chroma by a coarser table, no entropy coding."""
    batch, _, height, width = picture.shape
    matrix = picture.new_tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    colour = torch.einsum("kc,bchw->bkhw", matrix, picture * 255) - picture.new_tensor([128.0, 0, 0])[:, None, None]
    k = torch.arange(8, device=picture.device, dtype=picture.dtype)
    basis = torch.cos((2 * k[None] + 1) * k[:, None] * math.pi / 16) * 0.5
    basis[0] = math.sqrt(1 / 8)
    blocks = colour.reshape(batch, 3, height // 8, 8, width // 8, 8).transpose(3, 4)
    waves = basis @ blocks @ basis.T
    percent = 1 + 99 * quality.clamp(0, 1)
    factor = torch.where(percent < 50, 50 / percent, 2 - percent / 50).clamp(min=0.02)
    table = picture.new_tensor(_LUMA).reshape(8, 8)
    tables = torch.stack([table, (table * 1.4 + 8).clamp(max=99), (table * 1.4 + 8).clamp(max=99)])
    step = (tables[None] * factor[:, None, None, None]).clamp(1, 255)[:, :, None, None]
    waves = torch.round(waves / step) * step
    blocks = basis.T @ waves @ basis
    colour = blocks.transpose(3, 4).reshape(batch, 3, height, width) + picture.new_tensor([128.0, 0, 0])[:, None, None]
    return (torch.einsum("kc,bchw->bkhw", torch.linalg.inv(matrix), colour) / 255).clamp(0, 1)
