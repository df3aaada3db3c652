"""What shows through the openings of the face: the eyeball between the lids; teeth, tongue and cavity between the lips.

Each lies at its own depth behind the skin, so that it shifts with the head's turn.
"""

from __future__ import annotations

import torch
from torch import Tensor

from speak.synthetic.features import Lips, eye_place, lids, lower_teeth_edge, upper_teeth_edge
from speak.synthetic.paint import rgb
from speak.synthetic.shapes import Numbers, bell, cover, length, mix, smoothstep, unit
from speak.synthetic.surface import eyeball_radius, eyeball_z


def paint_eyes(
    face: Numbers, point: Tensor, view: Tensor, light: Tensor, pixel: Tensor
) -> tuple[Tensor, Tensor]:  # point, view, light: [3, N], unit, in the head's frame
    """Colour [3, N] and cover [N] of the eyeball between the lids: white, iris, pupil, highlights, lid's shadow."""
    x, y, z = point.unbind(0)
    u = eye_place(face, x)
    upper, lower = lids(face, x, u.clamp(-1, 1))
    slope = 1 / (1 + 1.2 * u * u).sqrt()
    inside = torch.minimum(upper - y, y - lower) * slope
    alpha = cover(inside, pixel) * cover((1 - u.abs()) * face.eye_half, pixel) * (z > 0)

    radius = eyeball_radius(face)
    start = torch.stack([x - x.sign() * face.eye_x, y, z - eyeball_z(face)])
    along = (start * view).sum(0)
    root = (along * along - (start * start).sum(0) + radius * radius).clamp(min=0).sqrt()
    normal = unit(start + (root - along) * view, 1e-6)
    gaze = unit(torch.stack([0.42 * face.gaze_x - 0.02 * x.sign(), 0.30 * face.gaze_y, torch.ones_like(x)]))
    away = normal - gaze
    chord = length(away) * radius
    iris_radius = face.iris_radius
    r = chord / iris_radius
    soft = pixel / iris_radius

    white = mix(rgb(0.86, 0.86, 0.85, x), rgb(0.68, 0.58, 0.51, x), face.lifelike) * (1 - 0.62 * face.eye_shade)
    inner = smoothstep(-0.70, -1.0, u)
    white = mix(white, rgb(0.75, 0.42, 0.38, x), 0.75 * inner)
    white = white * (0.74 + 0.26 * (normal * light).sum(0).clamp(0, 1))
    white = white * (1 - 0.22 * smoothstep(0.4, 1.0, u.abs()))
    low = (-away[1] * radius / iris_radius).clamp(-1, 1)
    iris = face.iris * (0.62 + 0.75 * smoothstep(-0.6, 0.95, low) + 0.25 * smoothstep(0.8, 0.35, r))
    iris = iris * (1 - 0.4 * face.eye_shade)
    angle = torch.atan2(away[1], away[0])
    iris = iris * (1 + 0.10 * torch.sin(17 * angle) * smoothstep(0.3, 0.6, r))
    iris = iris * (1 - 0.72 * smoothstep(0.72, 1.0, r))
    colour = mix(white, iris, cover(1 - r, soft))
    colour = mix(colour, torch.full_like(colour, 0.004), cover(0.47 - r, soft + 0.05))

    drop = upper - y
    shade = smoothstep(0.075, 0.0, drop) * 0.62 + 0.12 * smoothstep(0.03, 0.0, y - lower)
    colour = colour * (1 - shade)
    cornea = unit(normal + 0.55 * away * cover(1.1 - r, soft + 0.2))
    half = unit(light + view)
    spot = cover(0.135 - length(cornea - half), pixel / radius * 1.6)
    mirrored = half * rgb(-1.0, -1.0, 1.0, x)
    glint = cover(0.085 - length(cornea - mirrored), pixel / radius * 2.2)
    colour = mix(colour, 1.0, (0.95 - 0.5 * face.lifelike) * spot * smoothstep(0.0, 0.02, drop))
    colour = mix(colour, 1.0, 0.28 * (1 - face.lifelike) * glint)
    return colour, alpha


def paint_mouth(face: Numbers, point: Tensor, view: Tensor, pixel: Tensor) -> tuple[Tensor, Tensor]:
    """Colour [3, N] and cover [N] of what shows between the lips: cavity, teeth, tongue, each at its own depth."""
    x, y, z = point.unbind(0)
    lips = Lips(face, x)
    gap = torch.minimum(lips.upper_inner - y, y - lips.lower_inner)
    narrow = cover((1 - lips.u.abs()) * face.mouth_half, pixel)
    alpha = cover(gap - 0.002, pixel) * narrow * (z > 0.2)

    def at(depth: float) -> tuple[Tensor, Tensor]:
        back = depth / view[2].clamp(min=0.4)
        return x - view[0] * back, y - view[1] * back

    deep_x, deep_y = at(0.16)
    height = ((deep_y - face.mouth_y + face.jaw * 0.5) / (face.jaw + 0.06))
    cavity = rgb(0.100, 0.022, 0.022, x)
    cavity = cavity * (1 - 0.7 * bell((deep_x - face.mouth_x) / 0.16) * bell(height / 0.7))

    # Tongue: lies on the floor of the mouth, comes up between the teeth for th.
    tongue_x, tongue_y = at(0.09)
    top = lower_teeth_edge(face) + 0.030 + 0.035 * (face.jaw / 0.2).clamp(0, 1)
    top = mix(top, lips.upper_inner - 0.022, face.tongue)
    wide = 0.62 * face.mouth_half * (1 - 0.15 * face.rounded) + 0.02
    across = (tongue_x - face.mouth_x) / wide
    crown = top - 0.07 * across * across - 0.010 * bell(across / 0.10) * (1 - face.tongue)
    tongue = cover(crown - tongue_y, pixel * 1.5) * cover((1.05 - across.abs()) * wide, pixel * 2)
    round_shade = 0.62 + 0.45 * smoothstep(0.0, 0.07, crown - tongue_y) - 0.25 * bell(across / 0.10)
    flesh = rgb(0.60, 0.17, 0.17, x) * round_shade
    flesh = flesh * mix(0.62, 1.05, face.tongue)

    # Teeth: two bows, the upper fixed to the skull, the lower to the jaw.
    tooth_x, tooth_y = at(0.045)
    row = 0.30 - 0.06 * face.lifelike  # half of its width
    arch = (tooth_x - face.mouth_x * 0.5) / row
    bow = 0.030 * arch * arch
    fade = (1 - (0.55 + 0.25 * face.lifelike) * arch * arch).clamp(min=0.15)
    gaps = torch.remainder(arch * row / 0.0705, 1)
    nick = 0.0035 * (2 * (gaps - 0.5).abs()) ** 6
    up = cover(tooth_y - upper_teeth_edge(face, lips) - nick, pixel)
    up = up * cover((1 - arch.abs()) * row, pixel)
    low_edge = lower_teeth_edge(face)
    down = cover(low_edge - 0.3 * bow - nick - tooth_y, pixel) * cover((0.86 - arch.abs()) * row, pixel)
    ivory = mix(rgb(0.88, 0.84, 0.78, x), rgb(0.68, 0.58, 0.45, x), face.lifelike)
    seam = 1 - 0.10 * bell((torch.minimum(gaps, 1 - gaps)) / 0.05)
    tooth = ivory * (fade * seam * (1 - 0.72 * face.rounded * (1 - face.tongue)))

    colour = cavity
    behind = 1 - face.tongue
    colour = mix(colour, flesh, tongue * behind)
    colour = mix(colour, tooth * 0.80, down)
    colour = mix(colour, tooth, up)
    colour = mix(colour, flesh, tongue * (1 - behind))
    open_here = lips.upper_inner - lips.lower_inner
    # Between shut lips lies a dark line, no tooth; into a mouth that is hardly open little light falls.
    colour = mix(cavity, colour, smoothstep(0.006 + 0.006 * face.lifelike, 0.026 + 0.054 * face.lifelike, open_here))
    room = (open_here / 0.10).clamp(0.25, 1)
    shade = 0.60 * room * smoothstep(0.050, 0.0, (lips.upper_inner - y) / room) + 0.25 * room * smoothstep(
        0.03, 0.0, y - lips.lower_inner)
    shade = shade + 0.5 * smoothstep(0.65 - 0.30 * face.lifelike, 1.0, lips.u.abs()) * (1 + 0.5 * face.lifelike)
    light = 1 - shade.clamp(0, 0.9)
    flush = light * (1 - light) * face.lifelike  # what light is left has met flesh before
    return colour * light * (1 - rgb(0.0, 0.45, 0.70, x) * flush), alpha
