"""The curves that a face is drawn by, in the head's own x and y: lids, brows, lips.

The surface bulges along them, the paint is edged by them and the landmarks lie on them, so the three always agree.
Each takes the face's Numbers in a view that meets the shape of x (columns for vertices, `at` for samples).
"""

from __future__ import annotations

import torch
from torch import Tensor

from speak.synthetic.shapes import Numbers, bell, mix, smoothstep


def eye_place(face: Numbers, x: Tensor) -> Tensor:
    """Across the eye on x's side of the face: -1 at the inner corner, 1 at the outer."""
    return (x.abs() - face.eye_x) / face.eye_half


def lids(face: Numbers, x: Tensor, u: Tensor, blinking: bool = True) -> tuple[Tensor, Tensor]:
    """Heights y of the upper and the lower lid's edge at place `u` of the eye on x's side."""
    right = (x > 0).to(x.dtype)
    line = face.eye_slant * face.eye_half * u
    arch = (1 - u * u).clamp(min=0)
    lift = mix(face.lid_left, face.lid_right, right)
    upper = line + face.eye_open * lift * arch.pow(0.62) * (1 - 0.16 * u - (0.10 + 0.30 * face.lid_sad) * u)
    lower = line - 0.60 * face.eye_open * face.lower_lid * arch.pow(0.75) * (1 + 0.16 * u)
    if blinking:
        shut = mix(face.blink_left, face.blink_right, right)
        meet = line - 0.42 * face.eye_open * arch.pow(0.75)
        upper = mix(upper, meet, shut)
        lower = mix(lower, meet, shut * 0.999)
    return upper, lower


def brow_place(face: Numbers, x: Tensor) -> Tensor:
    """Along the brow on x's side: -1 at its inner end, 1 at its outer."""
    return (x.abs() + face.brow_in - face.eye_x - 0.015) / face.brow_half


def brow(face: Numbers, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Height y of the brow's middle at place `u` and half its thickness there."""
    right = (x > 0).to(x.dtype)
    outward = smoothstep(-1.0, 1.0, u)
    inner = mix(face.brow_inner_left, face.brow_inner_right, right)
    outer = mix(face.brow_outer_left, face.brow_outer_right, right)
    bend = (face.brow_bend + 0.02) * (1 - 0.75 * face.brow_flat.clamp(0, 1))
    y = face.brow_y + face.brow_turn * u + bend * (1 - ((u - 0.18) / 1.25) ** 2) - 0.03 * (u - 0.4).clamp(min=0) ** 2
    y = y + mix(inner, outer, outward)
    thick = face.brow_thick * (1.05 - 0.72 * smoothstep(0.0, 1.05, u) - 0.18 * smoothstep(-0.6, -1.05, u))
    return y, thick


class Lips:
    """The four edges of the lips at x, as heights y: upper_outer, upper_inner, lower_inner, lower_outer."""

    def __init__(self, face: Numbers, x: Tensor) -> None:
        self.u = (x - face.mouth_x) / face.mouth_half
        u = self.u.clamp(-1, 1)
        arch = 1 - u * u
        side = smoothstep(-0.35, 0.35, u)
        corner = mix(face.smile_left, face.smile_right, side)
        line = face.mouth_y + face.lip_lift * arch + 0.004 * bell(u / 0.25)
        line = line + (corner + 0.022) * (u.abs().pow(1.6) - 0.30)
        open_arch = mix(arch.pow(0.85), arch.pow(0.45), face.square.clamp(0, 1))
        open_arch = mix(open_arch, arch.pow(0.55), face.rounded)
        sag = 1 + 0.5 * (face.smile_left * 8).clamp(0, 1) * arch
        self.upper_inner = line + face.gap_up * open_arch
        self.lower_inner = line - face.gap_low * open_arch * sag / 1.25
        bow = 0.24 * bell((u.abs() - 0.26) / 0.20) - 0.20 * bell(u / 0.13)
        full = arch.pow(0.62)
        self.upper_outer = self.upper_inner + face.upper_thick * full * (0.88 + bow * (1 - 0.5 * face.rounded)) + 0.004
        self.lower_outer = self.lower_inner - face.lower_thick * arch.pow(0.60) * (1 - 0.12 * u * u) - 0.004
        self.line = line


def mouth_opening(face: Numbers) -> Tensor:
    """Gap of the inner lips at their middle, in units of the widest that speech alone makes: about 0 to 1."""
    lips = Lips(face, face.mouth_x)
    return (lips.upper_inner - lips.lower_inner) / 0.30


def upper_teeth_edge(face: Numbers, lips: Lips) -> Tensor:
    """Height y of the upper teeth's lower edge: it belongs to the skull, so it stays while the jaw drops; it is drawn
    along the bow of the upper lip."""
    smile = 0.5 * (face.smile_left + face.smile_right).clamp(min=0)
    # Speaking adults show a few millimetres, the old hardly any; figurines a whole row.
    shown = 0.045 - (0.011 + 0.020 * face.wrinkle) * face.lifelike
    return lips.line - shown - 0.35 * smile - 0.35 * face.lip_lift + 0.9 * face.gap_up


def lower_teeth_edge(face: Numbers) -> Tensor:
    """Height y of the lower teeth's upper edge: it goes down with the jaw."""
    return face.mouth_y - 0.045 - 0.015 * face.lifelike - 0.70 * face.jaw


def lip_profile(lips: Lips, y: Tensor) -> Tensor:
    """How far the lips stand out at (x, y), 0 to 1: round between each lip's edges, 0 elsewhere."""
    upper = ((y - lips.upper_inner) / (lips.upper_outer - lips.upper_inner)).clamp(0, 1)
    lower = ((lips.lower_inner - y) / (lips.lower_inner - lips.lower_outer)).clamp(0, 1)
    inside = (lips.u.abs() < 1).to(y.dtype)
    upper = 3.4 * upper * (1 - upper)
    lower = (1 - lower) ** 2 * (1 + 2 * lower) * (1 - (1 - lower) ** 5) * 1.25
    return torch.maximum(upper, lower) * inside
