"""The paint of the face, sample by sample in the head's own x and y: brows, lids, lashes, lips, lines, eyes, mouth.

Edges are exact curves of `features.py`, smoothed over one pixel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from speak.synthetic.features import Lips, brow, brow_place, eye_place, lids, lower_teeth_edge, upper_teeth_edge
from speak.synthetic.shapes import Numbers, bell, cover, mix, smoothstep
from speak.synthetic.surface import eyeball_radius, eyeball_z, fold_line


def blend(under: Tensor, over: Tensor | float, amount: Tensor) -> Tensor:  # [N, 3], [N, 3] or number, [N]
    return under + (over - under) * amount.unsqueeze(1)


def paint_skin(face: Numbers, point: Tensor, albedo: Tensor, gloss: Tensor, pixel: Tensor) -> tuple[Tensor, Tensor]:
    """Brows, lids, lashes, lips and lines over the skin's own colour: albedo [N, 3] and gloss [N], new ones."""
    x, y, z = point.unbind(1)
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
    crow = bell((foot - 0.5) / 0.14) * smoothstep(1.12, 1.25, u) * smoothstep(1.75, 1.35, u) * smoothstep(0.10, 0.04, y.abs())
    lines = lines + crow * (0.4 * face.wrinkle + 0.25 * face.cheek).clamp(0, 0.5)
    bag = bell((y - lower + 0.055 + 0.02 * u * u) / 0.012) * smoothstep(1.0, 0.5, u.abs())
    lines = lines + bag * (0.35 * face.wrinkle + 0.30 * face.squint_bag)
    wrinkled = albedo * torch.tensor([0.62, 0.50, 0.46], device=albedo.device)
    albedo = blend(albedo, wrinkled, (lines * front).clamp(0, 0.85))

    # Freckles: a jittered lattice of dots over nose and cheeks.
    cell_x, cell_y = x / 0.036, y / 0.036
    ix, iy = cell_x.floor(), cell_y.floor()
    one = torch.frac(torch.sin(ix * 12.99 + iy * 78.23) * 437.58).abs()
    two = torch.frac(torch.sin(ix * 39.35 + iy * 11.13) * 935.71).abs()
    dot = (cell_x - ix - 0.3 - 0.4 * one) ** 2 + (cell_y - iy - 0.3 - 0.4 * two) ** 2
    where = bell((y + 0.20) / 0.13) * smoothstep(0.62, 0.40, ax) * (one * 1.3 > two).to(x.dtype)
    many = ((face.freckles - 0.80) * 5).clamp(0, 1) * (1 - face.skin_tone)
    speck = torch.exp(-dot / 0.035) * where * many * front
    albedo = blend(albedo, albedo * torch.tensor([0.62, 0.42, 0.30], device=albedo.device), 0.8 * speck)

    # Lids: crease, shadow, lashes.
    on_eye = smoothstep(1.35, 1.0, u.abs()) * front
    crease_y = upper + (0.042 + 0.018 * face.eye_fold) * (1 - 0.35 * u * u)
    crease = bell((y - crease_y) / 0.012) * smoothstep(1.1, 0.85, u.abs()) * front
    albedo = blend(albedo, albedo * torch.tensor([0.58, 0.45, 0.42], device=albedo.device), 0.75 * crease)
    shadow = smoothstep(0.14, 0.0, (y - upper).clamp(min=0) + 0.02 * (u - 0.4).abs()) * (y > upper) * on_eye
    hue = torch.stack([0.30 + 0.3 * face.lip_colour, 0.16 + 0.1 * face.cheeks, 0.30 - 0.15 * face.lip_colour], 1)
    albedo = blend(albedo, hue * albedo.amax(1, keepdim=True) * 1.1, 0.62 * shadow * face.eye_paint)
    slope = 1 / (1 + 1.2 * u * u).sqrt()
    wing = 0.045 * (u - 0.75).clamp(min=0) * (0.4 + face.eye_paint)
    lash_u = smoothstep(1.10 + 0.15 * face.eye_paint, 0.98 + 0.12 * face.eye_paint, u) * smoothstep(-1.02, -0.86, u)
    edge = y - upper - wing
    lash_thick = (0.010 + 0.019 * face.lash) * (0.55 + 0.45 * smoothstep(-1.0, 0.3, u))
    lash = torch.minimum(cover(edge * slope + 0.010, pixel), cover((lash_thick - edge) * slope, pixel)) * lash_u * front
    rim = torch.minimum(cover(lower - y + 0.006, pixel), cover(y - lower + 0.006 + 0.006 * face.eye_paint, pixel))
    rim = rim * smoothstep(1.02, 0.9, u.abs()) * front * (0.30 + 0.5 * face.eye_paint)
    dark = torch.tensor([0.020, 0.012, 0.010], device=albedo.device)
    albedo = blend(albedo, dark, torch.maximum(lash * 0.92, rim))
    gloss = gloss * (1 - 0.8 * lash)

    # Brows.
    u = brow_place(face, x)
    brow_y, thick = brow(face, x, u.clamp(-1.15, 1.15))
    hair = torch.sin(60 * u + 55 * (y - brow_y) / face.brow_thick.clamp(min=0.02) * 0.12)
    start = ((-u - 0.55) / 0.52).clamp(0, 1)
    thick = thick * (1 - start**3).sqrt()
    ends = smoothstep(-1.07, -0.95, u) * smoothstep(1.10, 0.98, u)
    soft = pixel + 0.010
    strand = cover(thick - (y - brow_y).abs(), soft) * ends * front
    tone = face.brow_colour * (1 + 0.18 * hair.unsqueeze(1))
    albedo = blend(albedo, tone, strand * 0.93)
    gloss = gloss * (1 - 0.7 * strand)

    # Lips.
    lips = Lips(face, x)
    outer = torch.minimum(lips.upper_outer - y, y - lips.lower_outer)
    within = cover(outer * 0.9, pixel + 0.006) * smoothstep(1.03, 0.96, lips.u.abs()) * front
    middle = torch.where(y > lips.line, lips.upper_inner, lips.lower_inner)
    deep = bell((y - middle) / 0.016)
    tone = face.lip_skin * (1 - 0.28 * deep.unsqueeze(1))
    tone = tone * (1 + 0.15 * (y < lips.line).to(y.dtype) - 0.10 * (y > lips.line).to(y.dtype)).unsqueeze(1)
    strength = 0.78 + 0.22 * face.makeup
    albedo = blend(albedo, tone, within * strength)
    gloss = gloss + within * (0.5 + 0.9 * face.makeup) * (1 - deep)
    seam = cover(0.006 - (y - middle).abs(), pixel) * smoothstep(1.04, 0.92, lips.u.abs()) * front
    albedo = blend(albedo, face.lip_skin * 0.22, 0.8 * seam)
    corner = bell((lips.u.abs() - 1.02) / 0.07) * bell((y - lips.line) / 0.020) * front
    albedo = blend(albedo, albedo * 0.42, 0.75 * corner)
    return albedo, gloss


def paint_beard(face: Numbers, point: Tensor, albedo: Tensor, gloss: Tensor, beard: Tensor) -> tuple[Tensor, Tensor]:
    """Beard and moustache over the skin, clear of the lips; `beard` [N] is how thick it grows at each sample."""
    x, y, _ = point.unbind(1)
    lips = Lips(face, x)
    outside = torch.maximum(torch.maximum(y - lips.upper_outer, lips.lower_outer - y), (lips.u.abs() - 1) * 0.25)
    strands = torch.sin(x * 105 + 2.5 * torch.sin(y * 13 + x * 7))
    edge = ((beard - 0.30 + 0.04 * strands) * 2.2).clamp(0, 1) * smoothstep(0.0, 0.022, outside)
    albedo = blend(albedo, face.hair * (0.82 + 0.10 * strands).unsqueeze(1), edge)
    return albedo, gloss * (1 - 0.75 * edge)


def paint_eyes(
    face: Numbers, point: Tensor, view: Tensor, light: Tensor, pixel: Tensor
) -> tuple[Tensor, Tensor]:  # view, light: [N, 3] unit, in the head's frame
    """Colour [N, 3] and cover [N] of the eyeball seen through the lids: white, iris, pupil, highlights, lid's shadow."""
    x, y, z = point.unbind(1)
    u = eye_place(face, x)
    upper, lower = lids(face, x, u.clamp(-1, 1))
    slope = 1 / (1 + 1.2 * u * u).sqrt()
    inside = torch.minimum(upper - y, y - lower) * slope
    alpha = cover(inside, pixel) * cover((1 - u.abs()) * face.eye_half, pixel) * (z > 0)

    radius = eyeball_radius(face)
    start = torch.stack([x - x.sign() * face.eye_x, y, z - eyeball_z(face)], 1)
    along = (start * view).sum(1)
    root = (along * along - (start * start).sum(1) + radius * radius).clamp(min=0).sqrt()
    normal = torch.nn.functional.normalize(start + (root - along).unsqueeze(1) * view, dim=1, eps=1e-6)
    gaze = torch.nn.functional.normalize(
        torch.stack([0.42 * face.gaze_x - 0.02 * x.sign(), 0.30 * face.gaze_y, torch.ones_like(x)], 1), dim=1)
    away = normal - gaze
    chord = away.norm(dim=1) * radius
    iris_radius = 0.565 * face.eye_half
    r = chord / iris_radius
    soft = pixel / iris_radius

    white = torch.tensor([0.86, 0.86, 0.85], device=x.device).expand(x.shape[0], 3)
    inner = smoothstep(-0.70, -1.0, u)
    white = blend(white, torch.tensor([0.75, 0.42, 0.38], device=x.device), 0.75 * inner)
    white = white * (0.74 + 0.26 * (normal * light).sum(1).clamp(0, 1)).unsqueeze(1)
    white = white * (1 - 0.22 * smoothstep(0.4, 1.0, u.abs())).unsqueeze(1)
    low = (-away[:, 1] * radius / iris_radius).clamp(-1, 1)
    iris = face.iris * (0.62 + 0.75 * smoothstep(-0.6, 0.95, low) + 0.25 * smoothstep(0.8, 0.35, r)).unsqueeze(1)
    angle = torch.atan2(away[:, 1], away[:, 0])
    iris = iris * (1 + 0.10 * torch.sin(17 * angle) * smoothstep(0.3, 0.6, r)).unsqueeze(1)
    iris = iris * (1 - 0.72 * smoothstep(0.72, 1.0, r)).unsqueeze(1)
    colour = blend(white, iris, cover(1 - r, soft))
    colour = blend(colour, torch.full_like(colour, 0.004), cover(0.47 - r, soft + 0.05))

    drop = upper - y
    shade = smoothstep(0.075, 0.0, drop) * 0.62 + 0.12 * smoothstep(0.03, 0.0, y - lower)
    colour = colour * (1 - shade).unsqueeze(1)
    cornea = torch.nn.functional.normalize(normal + 0.55 * away * cover(1.1 - r, soft + 0.2).unsqueeze(1), dim=1)
    half = torch.nn.functional.normalize(light + view, dim=1)
    spot = cover(0.135 - (cornea - half).norm(dim=1), pixel / radius * 1.6)
    mirrored = half * torch.tensor([-1.0, -1.0, 1.0], device=x.device)
    glint = cover(0.085 - (cornea - mirrored).norm(dim=1), pixel / radius * 2.2)
    colour = blend(colour, 1.0, 0.95 * spot * smoothstep(0.0, 0.02, drop))
    colour = blend(colour, 1.0, 0.28 * glint)
    return colour, alpha


def paint_mouth(face: Numbers, point: Tensor, view: Tensor, pixel: Tensor) -> tuple[Tensor, Tensor]:
    """Colour [N, 3] and cover [N] of what shows between the lips: cavity, teeth, tongue, each at its own depth."""
    x, y, z = point.unbind(1)
    lips = Lips(face, x)
    gap = torch.minimum(lips.upper_inner - y, y - lips.lower_inner)
    narrow = cover((1 - lips.u.abs()) * face.mouth_half, pixel)
    alpha = cover(gap - 0.002, pixel) * narrow * (z > 0.2)

    def at(depth: float) -> tuple[Tensor, Tensor]:
        back = depth / view[:, 2].clamp(min=0.4)
        return x - view[:, 0] * back, y - view[:, 1] * back

    deep_x, deep_y = at(0.16)
    height = ((deep_y - face.mouth_y + face.jaw * 0.5) / (face.jaw + 0.06))
    cavity = torch.tensor([0.100, 0.022, 0.022], device=x.device).expand(x.shape[0], 3)
    cavity = cavity * (1 - 0.7 * bell((deep_x - face.mouth_x) / 0.16) * bell(height / 0.7)).unsqueeze(1)

    # Tongue: lies on the floor of the mouth, comes up between the teeth for th.
    tongue_x, tongue_y = at(0.09)
    top = lower_teeth_edge(face) + 0.030 + 0.035 * (face.jaw / 0.2).clamp(0, 1)
    top = mix(top, lips.upper_inner - 0.022, face.tongue)
    wide = 0.62 * face.mouth_half * (1 - 0.15 * face.rounded) + 0.02
    across = (tongue_x - face.mouth_x) / wide
    crown = top - 0.07 * across * across - 0.010 * bell(across / 0.10) * (1 - face.tongue)
    tongue = cover(crown - tongue_y, pixel * 1.5) * cover((1.05 - across.abs()) * wide, pixel * 2)
    round_shade = 0.62 + 0.45 * smoothstep(0.0, 0.07, crown - tongue_y) - 0.25 * bell(across / 0.10)
    flesh = torch.tensor([0.60, 0.17, 0.17], device=x.device) * round_shade.unsqueeze(1)
    flesh = flesh * mix(0.62, 1.05, face.tongue).unsqueeze(1)

    # Teeth: two bows, the upper fixed to the skull, the lower to the jaw.
    tooth_x, tooth_y = at(0.045)
    arch = (tooth_x - face.mouth_x * 0.5) / 0.30
    bow = 0.030 * arch * arch
    fade = (1 - 0.55 * arch * arch).clamp(min=0.15)
    gaps = torch.remainder(arch / 0.235, 1)
    nick = 0.0035 * (2 * (gaps - 0.5).abs()) ** 6
    up = cover(tooth_y - upper_teeth_edge(face, lips) - nick, pixel)
    up = up * cover((1 - arch.abs()) * 0.3, pixel)
    low_edge = lower_teeth_edge(face)
    down = cover(low_edge - 0.3 * bow - nick - tooth_y, pixel) * cover((0.86 - arch.abs()) * 0.3, pixel)
    ivory = torch.tensor([0.88, 0.84, 0.78], device=x.device)
    seam = 1 - 0.10 * bell((torch.minimum(gaps, 1 - gaps)) / 0.05)
    tooth = ivory * (fade * seam * (1 - 0.72 * face.rounded * (1 - face.tongue))).unsqueeze(1)

    colour = cavity
    behind = 1 - face.tongue
    colour = blend(colour, flesh, tongue * behind)
    colour = blend(colour, tooth * 0.80, down)
    colour = blend(colour, tooth, up)
    colour = blend(colour, flesh, tongue * (1 - behind))
    room = ((lips.upper_inner - lips.lower_inner) / 0.10).clamp(0.25, 1)
    shade = 0.60 * room * smoothstep(0.050, 0.0, (lips.upper_inner - y) / room) + 0.25 * room * smoothstep(
        0.03, 0.0, y - lips.lower_inner)
    shade = shade + 0.5 * smoothstep(0.65, 1.0, lips.u.abs())
    return colour * (1 - shade.clamp(0, 0.9)).unsqueeze(1), alpha
