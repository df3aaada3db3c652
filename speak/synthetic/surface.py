"""The skin of the head: rings lofted along splines from crown to throat, then brow, eyes, nose, cheeks, lips and chin
raised from it along the view axis."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from speak.synthetic.detail import Detail
from speak.synthetic.features import Lips, brow, brow_place, eye_place, lids, lip_profile
from speak.synthetic.shapes import Numbers, bell, hump, mix, smooth_max, smoothstep, spline

# Stations from the crown (0) to the throat: y and z of the front line, y and z of the back line, half width, y of side.
_STATIONS = (
    (1.10, -0.10, 1.10, -0.10, 0.00, 1.10),
    (1.05, 0.17, 1.05, -0.40, 0.30, 1.05),
    (0.93, 0.42, 0.90, -0.69, 0.53, 0.92),
    (0.72, 0.60, 0.65, -0.89, 0.685, 0.69),
    (0.46, 0.70, 0.35, -0.98, 0.760, 0.43),
    (0.20, 0.735, 0.06, -0.98, 0.780, 0.18),
    (0.00, 0.720, -0.18, -0.92, 0.770, -0.03),
    (-0.20, 0.720, -0.38, -0.82, 0.745, -0.22),
    (-0.38, 0.715, -0.52, -0.72, 0.705, -0.37),
    (-0.54, 0.705, -0.60, -0.66, 0.650, -0.50),
    (-0.69, 0.690, -0.66, -0.62, 0.575, -0.61),
    (-0.82, 0.665, -0.70, -0.60, 0.480, -0.69),
    (-0.915, 0.590, -0.74, -0.58, 0.375, -0.745),
    (-0.945, 0.450, -0.78, -0.56, 0.31, -0.79),
    (-0.93, 0.26, -0.82, -0.54, 0.27, -0.85),
    (-0.97, 0.06, -0.90, -0.50, 0.22, -0.93),
    (-1.05, -0.02, -1.00, -0.46, 0.18, -1.02),
)
# A head of adults is narrower by these factors than the figurines' at each station, most so at cheekbones and jaw.
_HUMAN_WIDTHS = (1.0, 0.90, 0.89, 0.885, 0.88, 0.86, 0.82, 0.80, 0.79, 0.78, 0.78, 0.80, 0.85, 0.90, 1.0, 1.0, 1.0)
LAST_STATION = len(_STATIONS) - 1
WIDEST_Z = -0.08  # depth of a ring's widest place


@functools.lru_cache(maxsize=8)
def head_rows(detail: Detail) -> Tensor:
    """Station of each row of the head's grid: dense from brow to chin."""
    crown, features, below = detail.head_rows
    top = torch.linspace(0, 4, crown + 1)[:-1]
    face = torch.linspace(4, 13, features)
    throat = torch.linspace(13, LAST_STATION, below + 1)[1:]
    return torch.cat([top, face, throat])


@functools.lru_cache(maxsize=8)
def head_columns(detail: Detail) -> Tensor:
    """Angle of each column, -pi at the back over 0 at the nose to pi: dense in front."""
    k = torch.linspace(-1, 1, detail.head_columns)
    return math.pi * (0.58 * k + 0.42 * k**3)


def stations_of(face: Numbers) -> Tensor:
    """The person's own stations, padded for `spline`: [B, S + 3, 6]."""
    base = torch.tensor(_STATIONS, dtype=face.age.dtype, device=face.age.device)
    place = torch.arange(len(_STATIONS), dtype=base.dtype, device=base.device)
    stations = base.expand(face.age.shape[0], -1, -1).clone()

    def around(middle: float, width: float) -> Tensor:
        return bell((place - middle) / width)[None]

    def of(number: Tensor, low: float, high: float) -> Tensor:
        return (low + (high - low) * number)[:, None]

    width = 1 + of(face.head_width, -0.055, 0.075) + of(face.fullness, -0.02, 0.05) * around(9, 3)
    width = width + of(face.cheekbones, -0.035, 0.035) * around(7, 1.5)
    width = width + of(face.jaw_width, -0.10, 0.09) * around(10, 1.6)
    width = width + of(face.jaw_corner, -0.04, 0.06) * around(9.5, 1)
    width = width + of(face.chin_width, -0.20, 0.20) * around(12, 1.1)
    width = width + of(face.forehead, -0.03, 0.03) * around(3.5, 1.5)
    human = torch.tensor(_HUMAN_WIDTHS, dtype=base.dtype, device=base.device)
    width = width * (1 + face.lifelike[:, None] * (human - 1)[None])
    stations[:, :, 4] *= width
    high = of(face.head_height, -0.05, 0.09) - 0.06 * face.lifelike[:, None]
    high = high * ((place < 5).float() * (1 - place / 5))[None]
    stations[:, :, 0] += high
    stations[:, :, 2] += high
    stations[:, :, 5] += high
    chin = ((place - 7.5) / 4.5).clamp(0, 1) ** 1.3 * (1 - ((place - 13) / 3).clamp(0, 1))
    longer = (of(face.chin_length, 0.075, -0.085) - 0.06 * face.lifelike[:, None]) * chin[None]
    stations[:, :, 0] += longer
    stations[:, :, 5] += longer * 0.55
    stations[:, :, 2] += longer * 0.3
    stations[:, :, 1] += of(face.chin_forward, -0.05, 0.05) * around(12, 1.2)
    stations[:, :, 5] += of(face.jaw_corner, 0.03, -0.06) * around(10.5, 1.4)
    stations[:, :, 0] -= of(face.fullness, -0.02, 0.07) * around(13.8, 0.9)
    before = stations[:, 1:2, [2, 3, 0, 1, 4, 5]] * torch.tensor([1, 1, 1, 1, -1, 1.0], device=base.device)
    return torch.cat([before, stations, stations[:, -1:]], 1)


def ring(profile: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Points [3, ...] of the loft: profile [6, ...] of the row, cosine and sine of the angle, broadcast."""
    front_y, front_z, back_y, back_z, half, side_y = profile.unbind(0)
    y = side_y + 0.5 * (front_y - back_y) * cosine + (0.5 * (front_y + back_y) - side_y) * cosine * cosine
    ahead = cosine.clamp(min=0).pow(0.86)
    behind = (-cosine).clamp(min=0).pow(0.9)
    middle = torch.minimum(torch.maximum(torch.full_like(front_z, WIDEST_Z), back_z), front_z)
    z = middle + (front_z - middle) * ahead + (back_z - middle) * behind
    x = half * sine.sign() * sine.abs().pow(0.93)
    return torch.stack(torch.broadcast_tensors(x, y, z))


def skull(stations: Tensor, s: Tensor, angle: Tensor) -> Tensor:
    """Points of the bare loft at stations `s` and angles, each [B, R]: [3, B, R]."""
    return ring(spline(stations, s), torch.cos(angle), torch.sin(angle))


def head_grid(stations: Tensor, detail: Detail) -> Tensor:
    """The bare head as a grid: [3, B, R, C]."""
    rows, columns = head_rows(detail).to(stations), head_columns(detail).to(stations)
    return ring(spline(stations, rows).unsqueeze(3), torch.cos(columns), torch.sin(columns))


def raise_features(face: Numbers, points: Tensor) -> Tensor:
    """The bare head's points [3, B, V] with features and expression: face is a view in columns."""
    x, y, z = points.unbind(0)
    ax = x.abs()
    front = smoothstep(-0.05, 0.35, z)

    # The jaw swings down and back; the chin is pushed up by a pout.
    lower = smoothstep(face.mouth_y + 0.10, face.mouth_y - 0.16, y) * smoothstep(-0.25, 0.30, z)
    y = y - lower * face.jaw
    z = z - lower * face.jaw * 0.28
    x = x * (1 - 0.10 * lower * face.jaw)
    y = y + 0.02 * face.chin_up * bell(x / 0.2) * bell((y - face.mouth_y + 0.28) / 0.12)

    # Brow ridge, temples, sockets.
    u = brow_place(face, x)
    brow_y, _ = brow(face, x, u)
    z = z + front * (0.030 + 0.03 * face.man) * hump(u / 1.5) * bell((y - brow_y + 0.02) / 0.07)
    z = z + front * 0.022 * face.brow_flat.clamp(0, 1) * bell(x / 0.16) * bell((y - face.brow_y + 0.06) / 0.08)
    z = z - front * 0.085 * bell((ax - face.eye_x + 0.02) / 0.21) * bell((y - 0.03) / 0.15)
    z = z - front * 0.02 * bell(x / 0.10) * bell((y - 0.06) / 0.10)

    # Cheeks: identity, smile, hollows.
    up = 0.05 * face.cheek
    z = z + front * (0.025 + 0.045 * face.cheeks + 0.060 * face.cheek) * bell((ax - 0.42) / 0.17) * bell(
        (y + 0.30 - up) / 0.15)
    x = x + front * x.sign() * (0.035 * face.cheek) * bell((ax - 0.5) / 0.2) * bell((y + 0.34 - up) / 0.16)
    hollow = (0.035 * (1 - face.fullness) + 0.02 * face.wrinkle)
    z = z - front * hollow * bell((ax - 0.50) / 0.13) * bell((y + 0.55) / 0.13)

    # The muzzle under the nose, the furrow under the lower lip, the chin.
    z = z + front * 0.055 * bell(x / 0.30) * bell((y - face.mouth_y - 0.01) / 0.17)
    z = z - front * 0.035 * bell(x / 0.20) * bell((y - face.mouth_y + 0.165 + face.jaw * 0.95) / 0.06)
    ball = bell(x / (0.12 + 0.08 * face.chin_width)) * bell((y - face.mouth_y + 0.30 + face.jaw) / 0.09)
    z = z + front * 0.035 * ball

    # Nose: bridge, ball, wings; the fold from wing to mouth corner.
    top, tip = 0.06, face.nose_y
    along = ((top - y) / (top - tip)).clamp(0, 1.4)
    wide = face.nose_wide
    bridge = (0.045 + 0.05 * face.nose_bridge) * smoothstep(0.22, -0.02, y) + 0.115 * along.clamp(0, 1) ** 1.5
    ends = smoothstep(tip - 0.10, tip + 0.02, y)
    z = z + front * bridge * ends * bell(x / ((0.060 + 0.028 * along) * wide))
    tip_y = tip + 0.035 + 0.03 * (face.nose_tip - 0.5)
    reach = ((x / (0.112 * wide)) ** 2 + ((y - tip_y) / 0.108) ** 2).clamp(max=4)
    ball = torch.exp(-reach.pow(1.35))
    z = z + front * (0.120 + 0.05 * face.nose_tip) * ball
    lift = 0.022 * face.nose_wrinkle
    wing_y = tip + 0.004 + lift
    wing = (((ax - 0.104 * wide - 0.012 * face.nose_wrinkle) / (0.068 * wide)) ** 2 + ((y - wing_y) / 0.070) ** 2)
    z = z + front * 0.088 * torch.exp(-wing.clamp(max=4).pow(1.4))
    crease = face.mouth_x.sign() * (x > 0).to(x.dtype) * face.fold_right
    fold = face.fold + crease + 0.35 * face.wrinkle
    z = z - front * 0.020 * fold * fold_line(face, x, y, 0.035)

    # Lips stand out round; pushed forward when rounded; sunk between them when the mouth is open.
    lips = Lips(face, x)
    shape = lip_profile(lips, y)
    thickness = 0.012 + 0.34 * mix(face.upper_thick * 0.8, face.lower_thick, (y < lips.lower_inner).to(y.dtype))
    around = bell(lips.u / 1.0) * bell((y - lips.line + 0.4 * face.gap_low) / (0.14 + 0.5 * face.gap_low))
    z = z + front * (shape * thickness + face.protrude * around)
    parted = smoothstep(0.0, 0.03, torch.minimum(lips.upper_inner - y, y - lips.lower_inner)) * (lips.u.abs() < 1)
    z = z - front * parted * 0.03

    # The eyeball pushes the lids forward.
    eye_u = eye_place(face, x)
    dx, radius = ax - face.eye_x, eyeball_radius(face) + 0.016
    bulge = eyeball_z(face) + (radius * radius - dx * dx - y * y).clamp(min=0).sqrt()
    near = smoothstep(1.5, 1.05, (dx * dx + y * y).sqrt() / radius)
    z = torch.where(z > 0, mix(z, smooth_max(z, bulge, 0.06), near), z)
    upper, lower_lid = lids(face, x, eye_u)
    inside = smoothstep(-0.005, 0.02, torch.minimum(upper - y, y - lower_lid)) * (eye_u.abs() < 1)
    z = z - front * inside * 0.020
    z = z + front * 0.012 * (0.4 + face.eye_fold) * hump(eye_u / 1.15) * bell((y - upper - 0.05) / 0.03)

    # Bags and age.
    z = z + front * 0.010 * (face.wrinkle + 0.4 * face.squint_bag) * hump(eye_u / 1.1) * bell((y + 0.135) / 0.03)
    return torch.stack([x, y, z])


def fold_line(face: Numbers, x: Tensor, y: Tensor, width: float) -> Tensor:
    """The nasolabial fold as a bell across the line from the nose's wing round the mouth's corner."""
    top, bottom = face.nose_y + 0.03, face.mouth_y - 0.06
    t = ((top - y) / (top - bottom)).clamp(-0.2, 1.3)
    line = 0.165 + (face.mouth_half * 1.22 - 0.165) * t.clamp(0, 1).pow(0.8) + 0.02 * t
    return bell((x.abs() - line) / width) * smoothstep(-0.1, 0.2, t) * smoothstep(1.25, 0.75, t)


def eyeball_radius(face: Numbers) -> Tensor:
    return face.eye_half * 1.12


def eyeball_z(face: Numbers) -> Tensor:
    """Depth of the eyeball's middle."""
    return 0.655 - eyeball_radius(face)
