"""What is on and under the head besides its skin: ears, neck and clothes, glasses. Hair has a file of its own."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from speak.synthetic.detail import Detail
from speak.synthetic.shapes import (
    Numbers,
    bell,
    cover,
    cross,
    differences,
    grid_faces,
    grid_normals,
    mix,
    smoothstep,
    spline,
    unit,
)
from speak.synthetic.surface import ring, skull

SKIN, EAR, HAIR, HAIR_INSIDE, BODY, GLASSES = range(6)  # which surface a triangle belongs to


@dataclasses.dataclass
class Mesh:
    """One surface of every picture of a batch.

    points, normals: [3, B, V] in the head's frame (the torso's where follow is 0). albedo: [3, B, V] linear light.
    shade: [B, V] how open to the sky, 1 is open. mark: [2, B, V] what its paint needs. follow: [B, V] how far it turns
    with the head, None for fully. faces: [F, 3]. part: which of the surfaces above.
    """

    points: Tensor
    normals: Tensor
    albedo: Tensor
    shade: Tensor
    mark: Tensor
    follow: Tensor | None
    faces: Tensor
    part: int


_NECK = (
    (-0.50, 0.04, -0.40, -0.66, 0.90, -0.45),
    (-0.75, 0.06, -0.60, -0.66, 0.90, -0.68),
    (-0.97, 0.08, -0.80, -0.66, 0.90, -0.90),
    (-1.15, 0.11, -0.98, -0.67, 0.98, -1.06),
    (-1.28, 0.16, -1.10, -0.68, 1.28, -1.16),
    (-1.39, 0.22, -1.17, -0.70, 1.95, -1.235),
    (-1.52, 0.28, -1.25, -0.71, 2.70, -1.32),
    (-1.70, 0.33, -1.40, -0.72, 3.26, -1.50),
    (-2.00, 0.37, -1.70, -0.74, 3.50, -1.90),
    (-2.60, 0.40, -2.20, -0.74, 3.55, -2.50),
    (-3.40, 0.40, -3.20, -0.74, 3.55, -3.30),
)  # half widths in units of the person's own


_LONGER_NECK = 0.20  # head units by which the shoulders of adults lie lower than a figurine's


def neck_drop(face: Numbers, y: Tensor) -> Tensor:
    """How much lower the torso at a figurine's height y lies: nothing under the chin, all of it from the collar on."""
    return _LONGER_NECK * face.lifelike * smoothstep(-0.70, -1.10, y)


def neckline(face: Numbers, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Height y under which the torso is clothed, and under which the outer of two layers (jacket) begins."""
    front = smoothstep(-0.35, 0.25, z)
    kind = face.clothing_kind
    ax = x.abs()
    crew = -1.165 - 0.165 * front + 0.10 * front * smoothstep(0.10, 0.5, ax)
    vee = -1.165 - front * (0.52 - 1.05 * ax).clamp(min=0.02)
    shirt = -1.10 - front * (0.34 - 0.95 * ax).clamp(min=0.0)
    turtle = -0.985 - 0.10 * front
    hood = mix(torch.full_like(x, -0.93), -1.36 + 0.55 * ax.clamp(max=0.4), front)
    line = crew
    for index, other in ((1, vee), (2, shirt), (3, turtle), (4, hood)):
        line = torch.where(kind == index, other, line)
    outer = torch.where(kind == 5, -1.12 - front * (1.30 - 2.5 * ax).clamp(min=0.0), torch.full_like(x, 9.0))
    return line + 0.07, outer + 0.07


def body(face: Numbers, plain: Numbers, detail: Detail) -> Mesh:  # face: columns, plain: [B]
    """Neck, shoulders and chest with their clothes."""
    count, device = plain.age.shape[0], plain.age.device
    stations = torch.tensor(_NECK, device=device).expand(count, -1, -1).clone()
    neck = 0.335 + 0.085 * plain.neck_width + 0.02 * plain.fullness + 0.07 * plain.lifelike
    place = torch.arange(len(_NECK), device=device)
    own = torch.where(place[None] < 5, neck[:, None], 0.5 * neck[:, None] + 0.5 * 0.37)
    shoulder = (0.94 + 0.10 * plain.man + 0.05 * plain.fullness) * (1 + 0.28 * plain.lifelike)
    stations[:, :, [0, 2, 5]] += 0.07 * (place > 2).to(stations.dtype)[None, :, None]
    stations[:, :, 4] *= own * torch.where(place[None] > 4, shoulder[:, None], torch.ones_like(own))
    stations = torch.cat([stations[:, :1], stations, stations[:, -1:]], 1)
    neck_rows, collar_rows, chest_rows = detail.body_rows
    spans = ((0, 2 - 2 / neck_rows, neck_rows), (2, 7, collar_rows), (10 - 2.25, 10, chest_rows))
    rows = torch.cat([torch.linspace(*span, device=device) for span in spans])
    k = torch.linspace(-1, 1, detail.body_columns, device=device)
    angle = math.pi * (0.75 * k + 0.25 * k**3)
    grid = ring(spline(stations, rows).unsqueeze(3), torch.cos(angle), torch.sin(angle))
    x, y, z = grid.flatten(2).unbind(0)
    # Throat: two tendons and an apple.
    front = smoothstep(-0.1, 0.1, z) * smoothstep(-0.7, -0.9, y) * smoothstep(-1.35, -1.2, y)
    z = z + front * 0.010 * bell((x.abs() - 0.10 - 0.25 * (y + 1.25)) / 0.05) + front * 0.03 * face.man * bell(
        x / 0.06) * bell((y + 0.98) / 0.06)
    normals = grid_normals(torch.stack([x, y, z]).reshape(grid.shape)).flatten(2)
    line, outer = neckline(face, x, z)
    cloth = smoothstep(line + 0.06, line - 0.06, y) * 0.035 + smoothstep(outer + 0.06, outer - 0.06, y) * 0.03
    collar = bell((y - line + 0.05) / 0.06) * (face.clothing_kind != 1)
    thick = torch.where(face.clothing_kind == 3, 0.03, 0.018) * collar
    hood = (face.clothing_kind == 4) * smoothstep(0.25, -0.35, z) * bell((y + 1.10) / 0.13) * 0.16
    hood = hood + (face.clothing_kind == 4) * bell((y - line + 0.07) / 0.07) * 0.05
    points = torch.stack([x, y - neck_drop(face, y), z]) + normals * (cloth + thick + hood)
    normals = grid_normals(points.reshape(grid.shape)).flatten(2)
    # The head keeps the light from the throat; cloth keeps it from the skin beside it.
    shade = 0.40 + 0.60 * smoothstep(-0.86, -1.30, y + 0.18 * smoothstep(0.1, -0.4, z))
    albedo = face.skin.expand(-1, -1, x.shape[1]) * torch.tensor([0.97, 0.93, 0.91], device=device)[:, None, None]
    follow = smoothstep(-1.30, -0.70, y)
    return Mesh(points, normals, albedo, shade, torch.zeros_like(points[:2]), follow, grid_faces(*grid.shape[2:]), BODY)


def ears(face: Numbers, stations: Tensor, detail: Detail) -> Mesh:  # face: [B]
    """Both ears: a bowl with a rolled rim and a lobe, standing away from the head."""
    count, device = stations.shape[0], stations.device
    level = torch.full((count, 1), 6.6, device=device)
    half = skull(stations, level, torch.full_like(level, math.pi / 2))[0]
    ring_count, spokes = detail.ear
    q = torch.linspace(0, 1, ring_count, device=device)[:, None]
    turn = torch.linspace(0, 2 * math.pi, spokes, device=device)[None]
    out = torch.where(q < 0.72, q / 0.72 * 0.86, torch.where(q < 0.86, 0.86 + (q - 0.72) / 0.14 * 0.14, 1.0 + 0 * q))
    height = 0.030 + 0.055 * smoothstep(0.25, 0.70, q) - 0.16 * smoothstep(0.80, 1.0, q)
    up = torch.sin(turn)
    height = height + 0.020 * bell((q - 0.42) / 0.10) * smoothstep(-0.9, 0.1, torch.cos(turn))  # the inner fold
    height = height - 0.03 * smoothstep(-0.4, -0.9, up) * smoothstep(0.3, 0.7, q)
    narrow = 1 - 0.30 * smoothstep(0.1, -1.0, up)
    size = ((0.82 + 0.36 * face.ear_size) * (1 - 0.08 * face.lifelike))[:, None, None]
    a = 0.235 * size * out * up
    b = 0.150 * size * out * torch.cos(turn) * narrow
    flat = torch.where(face.hair_hangs > 0, 0.25, 1.0)[:, None, None]  # long hair presses them to the head
    flare = (0.25 + 0.55 * face.ear_angle)[:, None, None]
    outward = height * size + flare * (b + 0.12) * smoothstep(1.0, 0.75, q)
    outward = outward * flat
    y = -0.09 + a
    z = -0.10 - b
    mirrored = []
    for side in (-1.0, 1.0):
        x = side * (half[:, :, None] - 0.035 + outward)
        grid = torch.stack([x, y.expand_as(x), z.expand_as(x)])
        mirrored.append(grid if side > 0 else grid.flip(3))
    points = torch.cat([side.flatten(2) for side in mirrored], 2)
    normals = torch.cat([grid_normals(side).flatten(2) for side in mirrored], 2)
    bowl = (0.50 + 0.50 * smoothstep(0.10, 0.66, q)).expand(-1, spokes).reshape(1, -1)
    bowl = bowl * (1 - 0.35 * smoothstep(0.9, 1.0, q)).expand(-1, spokes).reshape(1, -1)
    shade = torch.cat([bowl, bowl], 1).expand(count, -1)
    red = torch.tensor([1.0, 0.80, 0.76], device=device)
    albedo = (face.skin * red).T.unsqueeze(2).expand(-1, -1, points.shape[2])
    faces = grid_faces(ring_count, spokes)
    faces = torch.cat([faces, faces + ring_count * spokes])
    return Mesh(points, normals, albedo, shade, torch.zeros_like(points[:2]), None, faces, EAR)


def _tube(path: Tensor, radius: Tensor, sides: int) -> tuple[Tensor, Tensor]:
    """A tube along a path [3, B, P], radius [B, 1, 1]: points and normals [3, B, P * (sides + 1)]."""
    along = unit(differences(path, 2), 1e-9)
    helper = torch.tensor([0.05, 0.1, 1.0], device=path.device)[:, None, None]
    helper = torch.where(along[2].abs() > 0.8, helper[[1, 2, 0]], helper.expand_as(along))
    first = unit(cross(along, helper), 1e-9)
    second = cross(along, first)
    turn = torch.linspace(0, 2 * math.pi, sides + 1, device=path.device)
    normal = first.unsqueeze(3) * torch.cos(turn) - second.unsqueeze(3) * torch.sin(turn)
    points = path.unsqueeze(3) + normal * radius
    return points.flatten(2), normal.flatten(2)


def glasses(face: Numbers, stations: Tensor, detail: Detail) -> Mesh:  # face: [B]
    """Rims, bridge and temples as tubes; who wears none has them far behind the picture's edge, where none is drawn."""
    count, device = stations.shape[0], stations.device
    form = face.glasses_form[:, None]
    turn = torch.linspace(0, 2 * math.pi, detail.rim, device=device)[None]
    square = torch.where(form == 0, 1.0, torch.where(form == 1, 0.55, torch.where(form == 2, 0.75, 0.62)))
    wide = torch.lerp(face.eye_half, face.brow_half, face.lifelike)[:, None] * torch.where(form == 0, 1.16, 1.26)
    high = wide * torch.where(form == 0, 1.0, torch.where(form == 1, 0.70, torch.where(form == 2, 0.86, 0.80)))
    cos, sin = torch.cos(turn), torch.sin(turn)
    a = wide * cos.sign() * cos.abs().pow(square)
    b = high * sin.sign() * sin.abs().pow(square)
    b = b + torch.where(form == 3, 0.06 * (cos * 0.5 + 0.5) * (sin > -0.2), 0.0 * cos)  # cat eye
    middle = face.eye_x[:, None] + 0.010
    thick = torch.where(face.glasses_form == 2, 0.011, 0.017)[:, None, None]

    def bent(x: Tensor, y: Tensor) -> Tensor:
        return torch.stack([x, y - 0.015, 0.835 - 0.32 * x * x])

    tubes, faces, vertex = [], [], 0
    level = torch.full((count, 1), 6.3, device=device)
    half = skull(stations, level, torch.full_like(level, math.pi / 2))[0] + 0.02
    t = torch.linspace(0, 1, detail.temple, device=device)[None]
    edge = middle + wide
    hinge_y = 0.45 * high
    for side in (-1.0, 1.0):
        tubes.append(_tube(bent(side * (middle + a), b.expand(count, -1)), thick, detail.tube))
        start = bent(edge, hinge_y)[2]
        temple = torch.stack([side * (edge + (half - edge) * t.sqrt()), -0.015 + hinge_y + (0.03 - hinge_y) * t,
                              start - (start + 0.16) * t])
        tubes.append(_tube(temple, thick * 0.9, detail.tube))
    x = (middle - wide) * (t * 2 - 1)
    tubes.append(_tube(bent(x, 0.03 + 0.3 * high + 0.03 * (1 - (t * 2 - 1) ** 2)), thick * 0.85, detail.tube))
    for points, _ in tubes:
        faces.append(grid_faces(points.shape[2] // (detail.tube + 1), detail.tube + 1) + vertex)
        vertex += points.shape[2]
    points = torch.cat([points for points, _ in tubes], 2)
    points = torch.where(face.glasses_on[:, None] > 0, points, torch.zeros_like(points))
    normals = torch.cat([normals for _, normals in tubes], 2)
    tones = torch.tensor([[0.006, 0.006, 0.008], [0.10, 0.035, 0.014], [0.42, 0.31, 0.13], [0.15, 0.01, 0.02]],
                         device=device)
    albedo = tones[face.glasses_form].T.unsqueeze(2).expand(-1, -1, points.shape[2])
    return Mesh(points, normals, albedo, torch.ones_like(points[0]), torch.zeros_like(points[:2]), None,
                torch.cat(faces), GLASSES)


def paint_body(face: Numbers, point: Tensor, albedo: Tensor, gloss: Tensor, pixel: Tensor) -> tuple[Tensor, Tensor]:
    """Clothes over the torso's skin, per sample: albedo [3, N] and gloss [N]."""
    x, y, z = point.unbind(0)
    y = y + _LONGER_NECK * face.lifelike
    line, outer = neckline(face, x, z)
    clothed = cover(line - y, pixel)
    albedo = albedo * (1 - 0.30 * smoothstep(0.08, 0.0, y - line))
    kind = face.clothing_kind
    cloth = torch.where(kind == 5, face.cloth_under, face.cloth)
    rib = line - y
    stitch = bell((rib - 0.065) / 0.009) * ((kind == 0) | (kind == 4))
    hem = (0.45 + 0.55 * smoothstep(0.0, 0.030, rib)) * (1 - 0.35 * stitch)
    fold = 1 - 0.30 * bell((rib - 0.16) / 0.014) * (kind == 3)
    front = (z > 0).to(x.dtype)
    out = x.abs() - (y + 1.37) / 0.95  # how far outside the opening of a shirt
    inside = torch.minimum(torch.minimum(out + 0.02, 0.17 - out), y + 1.40 - 0.55 * out)
    flap = (kind == 2) * front * cover(inside, pixel)
    collar = (kind == 2) * front * smoothstep(-0.035, -0.004, inside) * (1 - flap)  # the flap's shadow
    placket = (kind == 2) * front * bell((x - 0.035) / 0.008) * (y < -1.40)
    from_button = (x**2 + (torch.remainder(y, 0.17) - 0.085) ** 2).sqrt()
    button = (kind == 2) * front * smoothstep(0.026, 0.018, from_button) * (y < -1.42)
    strings = (kind == 4) * front * bell((x.abs() - 0.12) / 0.014) * (y < line - 0.05) * (y > -1.75)
    cloth = cloth * (hem * fold * (1 - 0.40 * collar + 0.10 * flap) * (1 - 0.35 * placket))
    cloth = mix(cloth, torch.full_like(cloth, 0.75), 0.8 * torch.maximum(button, strings))
    albedo = mix(albedo, cloth, clothed)
    coat = cover(outer - y, pixel) * (kind == 5)
    lapel = bell((outer - y - 0.22) / 0.018) * front
    albedo = mix(albedo, face.cloth * (1 - 0.4 * lapel), coat)
    gloss = gloss * (1 - 0.85 * torch.maximum(clothed, coat))
    return albedo, gloss
