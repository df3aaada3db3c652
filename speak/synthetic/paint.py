"""The paint of the face, sample by sample in the head's own x and y: brows, lids, lashes, lips, lines, beard.

Edges are exact curves of `features.py`, smoothed over one pixel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from speak.synthetic.features import Lips, brow, brow_place, eye_place, lids
from speak.synthetic.shapes import Numbers, bell, cover, mix, put, smoothstep
from speak.synthetic.surface import fold_line


def rgb(red: float, green: float, blue: float, like: Tensor) -> Tensor:
    """A colour as [3, 1] that meets [3, N], on the device of `like`."""
    return torch.tensor([[red], [green], [blue]], device=like.device)


def paint_skin(
    faces: Numbers,  # plain, [B]
    owner: Tensor,  # [N] whose face each sample is of
    point: Tensor,  # [3, N] in the head's frame
    albedo: Tensor,  # [3, N]
    gloss: Tensor,  # [N]
    pixel: Tensor,  # [N] width of a pixel in head units
) -> tuple[Tensor, Tensor]:
    """Brows, lids, lashes, lips and lines over the skin's own colour: albedo and gloss, painted in place.

    Each paint is laid only where it can show.
    """
    x, y, z = point.unbind(0)
    ahead = (z > 0.05) & (x.abs() < 0.72)
    for paint, low, high in ((_paint_lines, -0.80, 0.80), (_paint_freckles, -0.50, 0.10), (_paint_lids, -0.25, 0.40),
                             (_paint_brows, 0.00, 0.62), (_paint_lips, -1.05, -0.30)):
        where = (ahead & (y > low) & (y < high)).nonzero().squeeze(1)
        if paint is _paint_freckles:
            where = where[faces.freckles.index_select(0, owner.index_select(0, where)) > 0.80]
        face = faces.at(owner.index_select(0, where))
        at, width = point.index_select(1, where), pixel.index_select(0, where)
        new_albedo, new_gloss = paint(face, at, albedo.index_select(1, where), gloss.index_select(0, where), width)
        put(albedo, where, new_albedo)
        put(gloss, where, new_gloss)
    return albedo, gloss


_Painted = tuple[Tensor, Tensor]


def _paint_lines(face: Numbers, point: Tensor, albedo: Tensor, gloss: Tensor, pixel: Tensor) -> _Painted:
    x, y, z = point.unbind(0)
    ax = x.abs()
    front = smoothstep(0.05, 0.3, z)

    # Age and expression lines: darker valleys.
    lines = 0.60 * (face.fold + face.fold_right * (x > 0) + 0.55 * face.wrinkle).clamp(0, 1.3) * fold_line(
        face, x, y, 0.014)
    rows = torch.exp(-((torch.remainder((y - face.brow_y - 0.11) / 0.085 - 0.3 * ax * ax + 0.5, 1) - 0.5) / 0.15) ** 2)
    forehead = smoothstep(face.brow_y + 0.06, face.brow_y + 0.12, y) * smoothstep(0.42, 0.34, y - face.brow_y)
    forehead = forehead * smoothstep(0.42, 0.22, ax)
    lines = lines + rows * forehead * (0.32 * face.wrinkle + 0.42 * face.forehead_lines).clamp(0, 0.6)
    between = bell((ax - 0.045 + 0.1 * (y - face.brow_y)) / 0.011) * bell((y - face.brow_y + 0.05) / 0.055)
    lines = lines + between * (0.75 * face.frown_lines + 0.2 * face.wrinkle)
    bridge = bell((torch.remainder((y + 0.02) / 0.055, 1) - 0.5) / 0.22) * bell((y + 0.03) / 0.075)
    lines = lines + 0.5 * face.nose_wrinkle * bridge * smoothstep(0.12, 0.05, ax)
    u = eye_place(face, x)
    upper, lower = lids(face, x, u.clamp(-1, 1))
    foot = torch.remainder((y - 0.01) / 0.05 - 0.7 * (u - 1.1) * (y > 0).to(y.dtype), 1)
    crow = bell((foot - 0.5) / 0.14) * smoothstep(1.12, 1.25, u) * smoothstep(1.75, 1.35, u)
    crow = crow * smoothstep(0.10, 0.04, y.abs())
    lines = lines + crow * (0.4 * face.wrinkle + 0.25 * face.cheek).clamp(0, 0.5)
    bag = bell((y - lower + 0.055 + 0.02 * u * u) / 0.012) * smoothstep(1.0, 0.5, u.abs())
    lines = lines + bag * (0.35 * face.wrinkle + 0.30 * face.squint_bag)
    wrinkled = albedo * rgb(0.62, 0.50, 0.46, albedo)
    albedo = mix(albedo, wrinkled, (lines * front).clamp(0, 0.85))

    return albedo, gloss


def _paint_freckles(face: Numbers, point: Tensor, albedo: Tensor, gloss: Tensor, pixel: Tensor) -> _Painted:
    x, y, z = point.unbind(0)
    ax = x.abs()
    front = smoothstep(0.05, 0.3, z)

    # Freckles: a jittered lattice of dots over nose and cheeks.
    cell_x, cell_y = x / 0.036, y / 0.036
    ix, iy = cell_x.floor(), cell_y.floor()
    one = torch.frac(torch.sin(ix * 12.99 + iy * 78.23) * 437.58).abs()
    two = torch.frac(torch.sin(ix * 39.35 + iy * 11.13) * 935.71).abs()
    dot = (cell_x - ix - 0.3 - 0.4 * one) ** 2 + (cell_y - iy - 0.3 - 0.4 * two) ** 2
    where = bell((y + 0.20) / 0.13) * smoothstep(0.62, 0.40, ax) * (one * 1.3 > two).to(x.dtype)
    many = ((face.freckles - 0.80) * 5).clamp(0, 1) * (1 - face.skin_tone)
    speck = torch.exp(-dot / 0.035) * where * many * front
    albedo = mix(albedo, albedo * rgb(0.62, 0.42, 0.30, albedo), 0.8 * speck)

    return albedo, gloss


def _paint_lids(face: Numbers, point: Tensor, albedo: Tensor, gloss: Tensor, pixel: Tensor) -> _Painted:
    x, y, z = point.unbind(0)
    front = smoothstep(0.05, 0.3, z)
    u = eye_place(face, x)
    upper, lower = lids(face, x, u.clamp(-1, 1))

    # Lids: crease, shadow, lashes.
    on_eye = smoothstep(1.35, 1.0, u.abs()) * front
    crease_y = upper + (0.042 + 0.018 * face.eye_fold) * (1 - 0.35 * u * u)
    crease = bell((y - crease_y) / 0.012) * smoothstep(1.1, 0.85, u.abs()) * front
    albedo = mix(albedo, albedo * rgb(0.58, 0.45, 0.42, albedo), 0.75 * crease)
    shadow = smoothstep(0.14, 0.0, (y - upper).clamp(min=0) + 0.02 * (u - 0.4).abs()) * (y > upper) * on_eye
    hue = torch.stack([0.30 + 0.3 * face.lip_colour, 0.16 + 0.1 * face.cheeks, 0.30 - 0.15 * face.lip_colour])
    albedo = mix(albedo, hue * albedo.amax(0) * 1.1, 0.62 * shadow * face.eye_paint)
    slope = 1 / (1 + 1.2 * u * u).sqrt()
    wing = 0.045 * (u - 0.75).clamp(min=0) * (0.4 + face.eye_paint)
    lash_u = smoothstep(1.10 + 0.15 * face.eye_paint, 0.98 + 0.12 * face.eye_paint, u) * smoothstep(-1.02, -0.86, u)
    edge = y - upper - wing
    lash_thick = (0.010 + 0.019 * face.lash) * (0.55 + 0.45 * smoothstep(-1.0, 0.3, u))
    lash = torch.minimum(cover(edge * slope + 0.010, pixel), cover((lash_thick - edge) * slope, pixel)) * lash_u * front
    rim = torch.minimum(cover(lower - y + 0.006, pixel), cover(y - lower + 0.006 + 0.006 * face.eye_paint, pixel))
    rim = rim * smoothstep(1.02, 0.9, u.abs()) * front * (0.30 + 0.5 * face.eye_paint)
    dark = rgb(0.020, 0.012, 0.010, albedo)
    albedo = mix(albedo, dark, torch.maximum(lash * 0.92, rim))
    gloss = gloss * (1 - 0.8 * lash)

    return albedo, gloss


def _paint_brows(face: Numbers, point: Tensor, albedo: Tensor, gloss: Tensor, pixel: Tensor) -> _Painted:
    x, y, z = point.unbind(0)
    front = smoothstep(0.05, 0.3, z)
    u = brow_place(face, x)
    brow_y, thick = brow(face, x, u.clamp(-1.15, 1.15))
    hair = torch.sin(60 * u + 55 * (y - brow_y) / face.brow_thick.clamp(min=0.02) * 0.12)
    start = ((-u - 0.55) / 0.52).clamp(0, 1)
    thick = thick * (1 - start**3).sqrt()
    ends = smoothstep(-1.07, -0.95, u) * smoothstep(1.10, 0.98, u)
    soft = pixel + 0.010
    strand = cover(thick - (y - brow_y).abs(), soft) * ends * front
    tone = face.brow_colour * (1 + 0.18 * hair)
    albedo = mix(albedo, tone, strand * 0.93)
    gloss = gloss * (1 - 0.7 * strand)

    return albedo, gloss


def _paint_lips(face: Numbers, point: Tensor, albedo: Tensor, gloss: Tensor, pixel: Tensor) -> _Painted:
    x, y, z = point.unbind(0)
    front = smoothstep(0.05, 0.3, z)
    lips = Lips(face, x)
    outer = torch.minimum(lips.upper_outer - y, y - lips.lower_outer)
    within = cover(outer * 0.9, pixel + 0.006) * smoothstep(1.03, 0.96, lips.u.abs()) * front
    middle = torch.where(y > lips.line, lips.upper_inner, lips.lower_inner)
    deep = bell((y - middle) / 0.016)
    tone = face.lip_skin * (1 - 0.28 * deep)
    above = (y > lips.line).to(y.dtype)
    tone = tone * (1.15 - 0.42 * above)
    strength = 1 - 0.22 * (1 - face.makeup) * (1 - 0.6 * face.lifelike)
    albedo = mix(albedo, tone, within * strength)
    gloss = gloss * (1 - 0.8 * within * above) + within * (0.5 + 0.9 * face.makeup) * (1 - deep) * (1 - above)
    seam = cover(0.006 - (y - middle).abs(), pixel) * smoothstep(1.04, 0.92, lips.u.abs()) * front
    albedo = mix(albedo, face.lip_skin * 0.22, 0.8 * seam)
    corner = bell((lips.u.abs() - 1.02) / 0.07) * bell((y - lips.line) / 0.020) * front
    albedo = mix(albedo, albedo * 0.42, 0.75 * corner)
    return albedo, gloss


def paint_beard(face: Numbers, point: Tensor, albedo: Tensor, gloss: Tensor, beard: Tensor) -> tuple[Tensor, Tensor]:
    """Beard and moustache over the skin, clear of the lips; `beard` [N] is how thick it grows at each sample."""
    x, y, _ = point.unbind(0)
    lips = Lips(face, x)
    outside = torch.maximum(torch.maximum(y - lips.upper_outer, lips.lower_outer - y), (lips.u.abs() - 1) * 0.25)
    strands = torch.sin(x * 105 + 2.5 * torch.sin(y * 13 + x * 7))
    edge = ((beard - 0.30 + 0.04 * strands) * 2.2).clamp(0, 1) * smoothstep(0.0, 0.022, outside)
    albedo = mix(albedo, face.hair * (0.82 + 0.10 * strands), edge)
    return albedo, gloss * (1 - 0.75 * edge)
