"""The head's skin as a mesh: its shape, its colour in large (blush, stubble, beard) and the shade in its hollows."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from speak.synthetic.detail import Detail
from speak.synthetic.features import Lips, lids
from speak.synthetic.hair import hairline, style_numbers
from speak.synthetic.parts import SKIN, Mesh
from speak.synthetic.shapes import Numbers, bell, grid_faces, grid_normals, mix, smoothstep
from speak.synthetic.surface import head_columns, head_grid, head_rows, raise_features


@functools.lru_cache(maxsize=4)
def _faces(detail: Detail) -> Tensor:
    return grid_faces(sum(detail.head_rows), detail.head_columns)


def head_skin(face: Numbers, plain: Numbers, stations: Tensor, detail: Detail) -> Mesh:  # face: columns, plain: [B]
    """The head's surface with its features, beard included; mark is how much beard covers it and how much stubble."""
    count = stations.shape[0]
    bare = head_grid(stations, detail)
    shape = bare.shape
    points = raise_features(face, bare.flatten(2))
    x, y, z = points.unbind(0)
    ax = x.abs()
    front = smoothstep(-0.1, 0.3, z)

    # Beard: from the sideburns along the jaw, round the mouth; moustache above it.
    lips = Lips(face, x)
    rest_y = bare[1].flatten(1)
    cheek_line = face.mouth_y + 0.06 + 0.46 * ((ax - 0.25) / 0.5).clamp(0, 1) ** 1.6 + 0.42 * smoothstep(0.42, 0.0, z)
    jaw_area = smoothstep(cheek_line + 0.05, cheek_line - 0.06, rest_y) * smoothstep(-0.30, 0.0, z)
    outside = torch.maximum(y - lips.upper_outer, lips.lower_outer - y)
    outside = torch.maximum(outside, (lips.u.abs() - 1) * 0.25)
    off_lips = smoothstep(0.0, 0.05, outside)
    mouth_side = smoothstep(0.20, 0.30, ax)
    below = smoothstep(face.mouth_y + 0.02, face.mouth_y - 0.06, rest_y)
    jaw_area = jaw_area * torch.maximum(mouth_side, below)
    philtrum = 1 - 0.25 * bell(x / 0.025)
    arc = face.nose_y - 0.050 - 0.55 * (ax - 0.05).clamp(min=0)
    under_nose = smoothstep(arc + 0.012, arc - 0.030, y)
    lip_area = under_nose * smoothstep(face.mouth_half * 1.25, face.mouth_half * 1.0, ax) * philtrum
    lip_area = lip_area * smoothstep(lips.line - 0.045, lips.line - 0.005, y) * front
    short = face.beard_full
    beard = (jaw_area * (short > 0)).clamp(0, 1)
    tache = lip_area * torch.maximum(face.moustache_full, (short > 0).to(x.dtype))
    cover = torch.maximum(beard, tache) * smoothstep(0.25, 0.55, torch.maximum(beard, tache))
    stubble = torch.maximum(jaw_area, lip_area) * face.stubble

    normals = grid_normals(points.reshape(shape)).flatten(2)
    chin = smoothstep(face.mouth_y - 0.15, face.mouth_y - 0.35, rest_y)
    depth = beard * (0.020 + 0.05 * short + 0.16 * chin * (short - 0.35).clamp(min=0)) + tache * 0.035
    depth = depth * off_lips
    points = points + normals * depth
    normals = grid_normals(points.reshape(shape)).flatten(2)

    # Colour in large.
    flush = bell((ax - 0.42) / 0.17) * bell((y + 0.26) / 0.14) * (0.35 + 0.55 * face.blush + 0.3 * face.makeup)
    flush = flush + 0.40 * bell(x / 0.15) * bell((y - face.nose_y - 0.02) / 0.11)
    flush = flush + 0.22 * bell(x / 0.22) * bell((rest_y - face.mouth_y + 0.32) / 0.12)
    flush = (flush * front).clamp(0, 0.9)
    red = torch.tensor([1.00, 0.70, 0.66], device=x.device)[:, None, None]
    albedo = face.skin * mix(torch.ones_like(red), red, flush)
    socket = bell((ax - face.eye_x + 0.03) / 0.21) * bell((y + 0.02) / 0.12) * front
    dark = (0.14 + 0.10 * face.wrinkle + 0.06 * face.lifelike + 0.50 * face.eye_shade) * socket
    albedo = albedo * (1 - dark * torch.tensor([0.7, 1.0, 0.9], device=x.device)[:, None, None])
    roots = face.hair * 0.6 + 0.15 * face.skin
    albedo = mix(albedo, roots, 0.42 * stubble * (1 - cover))

    # Shade of hollows and of the hair above the forehead.
    shade = torch.ones_like(x)
    shade = shade - (0.30 + 0.30 * face.eye_shade) * bell((ax - 0.115) / 0.07) * bell((y - 0.03) / 0.10) * front
    shade = shade - 0.20 * bell(x / 0.11) * bell((y - face.nose_y + 0.085) / 0.040) * front
    nostril_y = face.nose_y - 0.030 + 0.02 * face.nose_wrinkle
    nostril = bell((ax - 0.060 * face.nose_wide) / 0.030) * bell((y - nostril_y) / 0.020)
    shade = shade - 0.66 * nostril * front
    wing = bell((ax - 0.180 * (0.85 + 0.3 * face.nose_width)) / 0.025) * bell((y - face.nose_y - 0.01) / 0.055)
    shade = shade - 0.22 * wing * front
    shade = shade - 0.26 * bell(x / 0.20) * bell((y - lips.lower_outer + 0.035) / 0.035) * front
    under_brow = bell((ax - face.eye_x + 0.04) / 0.20) * bell((y - 0.05) / 0.15) * front
    shade = shade - 0.55 * face.eye_shade * under_brow
    upper, lower = lids(face, x, ((ax - face.eye_x) / face.eye_half).clamp(-1, 1))
    shade = shade - 0.16 * bell((ax - face.eye_x) / 0.17) * bell((y - upper - 0.045) / 0.05) * front
    under = smoothstep(-0.80, -0.98, rest_y) * smoothstep(0.62, 0.35, z)
    shade = shade - 0.35 * under
    style = style_numbers(plain)
    rows = head_rows(detail).to(x)[None, :, None]
    to_hair = rows - hairline(style, head_columns(detail).to(x)[None])[:, None]
    hairy = (plain.hair_kind > 0).to(x.dtype)[:, None, None]
    reach = (0.35 + 1.6 * style["end"] + 0.8 * style["front"]).unsqueeze(2)
    cast = (1 - (to_hair / reach).clamp(0, 1)) ** 2 * hairy * 0.48
    shade = shade - cast.expand(shape[1:]).reshape(count, -1)
    scalp = hairy * smoothstep(-0.15, -0.55, to_hair)
    # Cropped and combed-back hair thins out before its line: without it the hair looks like a cap.
    thin = (smoothstep(0.03, 0.0, style["end"]) * (style["length"] == 0)).unsqueeze(2)
    scalp = torch.maximum(scalp, hairy * thin * 0.75 * smoothstep(0.34, -0.06, to_hair))
    buzz = (plain.hair_kind == 0).to(x.dtype)[:, None, None] * 0.10 * smoothstep(3.4, 2.9, rows)
    covered = torch.maximum(scalp, buzz.expand_as(to_hair)).expand(shape[1:]).reshape(count, -1)
    albedo = mix(albedo, face.hair, covered)
    return Mesh(points, normals, albedo, shade.clamp(0.10, 1), torch.stack([cover, stubble]), None,
                _faces(detail).to(x.device), SKIN)
