"""A z-buffer in torch operations: triangles of a batch of pictures to samples, four a pixel on a rotated grid."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

_SIZES = (2, 3, 4, 6, 8, 12, 18, 32, 64)  # triangles are tested in groups by the square of samples that holds them
_TILT = 0.25  # samples of odd rows and columns are shifted by this: near-upright edges get four steps instead of two
_FAR = 1 << 62
_DEEPEST = 8.0  # depths lie within plus and minus this


@dataclasses.dataclass
class Samples:
    """What shading works on: N points of surfaces, and how they make up the pictures.

    picture, face: [N] which picture and which triangle. weights: [N, 3] of its corners.
    whole: [N1] pixel (flat over the batch) of each of the first N1 samples, which fill their pixel.
    edge: [E] pixels that are made of four samples; edge_sample: [E, 4] index of the sample, or N for the background.
    """

    picture: Tensor
    face: Tensor
    weights: Tensor
    whole: Tensor
    edge: Tensor
    edge_sample: Tensor


def _offset(index: Tensor) -> Tensor:
    return (index % 2).to(torch.float32) * (2 * _TILT) - _TILT


def rasterise(
    screen: Tensor,  # [B, V, 2] pixels, continuous: pixel i spans i to i + 1
    depth: Tensor,  # [B, V] nearer is greater
    faces: Tensor,  # [F, 3] counter-clockwise as seen, y down
    parts: Tensor,  # [F] which surface a triangle belongs to
    size: int,
    step: float,  # a jump of depth inside a pixel that counts as an edge
) -> Samples:
    """The visible samples of every picture, four a pixel where surfaces meet, one elsewhere."""
    batch, fine = screen.shape[0], size * 2
    point = screen * 2
    corners = faces.reshape(-1)
    px = point[..., 0].index_select(1, corners).reshape(batch, -1, 3)
    py = point[..., 1].index_select(1, corners).reshape(batch, -1, 3)
    low_x, high_x = px.amin(2), px.amax(2)
    low_y, high_y = py.amin(2), py.amax(2)
    first_x = (low_x - 0.5 - _TILT).ceil().clamp(min=0)
    first_y = (low_y - 0.5 - _TILT).ceil().clamp(min=0)
    span_x = (high_x - 0.5 + _TILT).floor().clamp(max=fine - 1) - first_x + 1
    span_y = (high_y - 0.5 + _TILT).floor().clamp(max=fine - 1) - first_y + 1
    area = (px[..., 1] - px[..., 0]) * (py[..., 2] - py[..., 0]) - (px[..., 2] - px[..., 0]) * (py[..., 1] - py[..., 0])
    seen = (area < -1e-6) & (span_x > 0) & (span_y > 0)
    chosen = seen.reshape(-1).nonzero().squeeze(1)
    picture = torch.div(chosen, faces.shape[0], rounding_mode="floor")
    face = chosen - picture * faces.shape[0]
    px, py = px.reshape(-1, 3)[chosen], py.reshape(-1, 3)[chosen]
    pz = depth.reshape(-1)[faces[face] + (picture * depth.shape[1])[:, None]]
    span = torch.maximum(span_x, span_y).reshape(-1)[chosen]
    first_x, first_y = first_x.reshape(-1)[chosen].long(), first_y.reshape(-1)[chosen].long()

    # Barycentric planes: weight_i = a_i x + b_i y + c_i, and depth likewise.
    inverse = 1 / area.reshape(-1)[chosen]
    x0, x1, x2 = px.unbind(1)
    y0, y1, y2 = py.unbind(1)
    planes = torch.stack([
        (y1 - y2) * inverse, (x2 - x1) * inverse, (x1 * y2 - x2 * y1) * inverse,
        (y2 - y0) * inverse, (x0 - x2) * inverse, (x2 * y0 - x0 * y2) * inverse,
    ], 1)  # fmt: skip
    z0, z1, z2 = pz.unbind(1)

    buffer = torch.full((batch * fine * fine,), _FAR, dtype=torch.int64, device=screen.device)
    scale = (1 << 24) / (2 * _DEEPEST)
    bottom = 0
    for top in _SIZES:
        group = ((span > bottom) & (span <= top)).nonzero().squeeze(1)
        bottom = top
        if group.numel() == 0:
            continue
        cell = torch.arange(top, device=screen.device)
        column = (first_x[group][:, None] + cell)  # [G, K]
        row = (first_y[group][:, None] + cell)
        x = (column + 0.5)[:, None, :] + _offset(row)[:, :, None]  # [G, K rows, K columns]
        y = (row + 0.5)[:, :, None] + _offset(column)[:, None, :]
        plane = planes[group][:, :, None, None].unbind(1)
        first = plane[0] * x + plane[1] * y + plane[2]
        second = plane[3] * x + plane[4] * y + plane[5]
        third = 1 - first - second
        inside = torch.minimum(torch.minimum(first, second), third) >= -1e-5
        inside &= ((column < fine)[:, None, :] & (row < fine)[:, :, None])
        hit = inside.reshape(-1).nonzero().squeeze(1)
        which = torch.div(hit, top * top, rounding_mode="floor")
        rest = hit - which * (top * top)
        row_of = torch.div(rest, top, rounding_mode="floor")
        column_of = rest - row_of * top
        member = group[which]
        first, second, third = first.reshape(-1)[hit], second.reshape(-1)[hit], third.reshape(-1)[hit]
        z = first * z0[member] + second * z1[member] + third * z2[member]
        key = ((_DEEPEST - z) * scale).long().clamp(0, (1 << 25)) << 32 | member
        place = (picture[member] * fine + first_y[member] + row_of) * fine + first_x[member] + column_of
        buffer.scatter_reduce_(0, place, key, "amin")

    return _resolve(buffer.reshape(batch, size, 2, size, 2), picture, face, parts, planes, step * scale)


def _resolve(buffer: Tensor, picture: Tensor, face: Tensor, parts: Tensor, planes: Tensor, step: float) -> Samples:
    """Splits pixels into whole ones and edges, and finds each sample's place in its triangle."""
    batch, size = buffer.shape[:2]
    cells = buffer.permute(0, 1, 3, 2, 4).reshape(-1, 4)  # [B H W, 4]
    covered = cells < _FAR
    some = covered.any(1).nonzero().squeeze(1)
    cells, covered = cells[some], covered[some]
    triangle = torch.where(covered, cells & 0xFFFFFFFF, torch.zeros_like(cells))
    part = torch.where(covered, parts[face[triangle]], torch.full_like(triangle, -1))
    deep = torch.where(covered, cells >> 32, torch.zeros_like(cells))
    same = (part == part[:, :1]).all(1) & (deep.amax(1) - deep.amin(1) < step)
    whole, mixed = same.nonzero().squeeze(1), (~same).nonzero().squeeze(1)

    count = whole.numel()
    mixed_covered = covered[mixed]
    order = mixed_covered.reshape(-1).cumsum(0).reshape(-1, 4) - 1 + count
    total = count + int(mixed_covered.sum())
    edge_sample = torch.where(mixed_covered, order, torch.full_like(order, total))
    member = torch.cat([triangle[whole, 0], triangle[mixed][mixed_covered]])

    pixel = torch.cat([some[whole], some[mixed][:, None].expand(-1, 4)[mixed_covered]])
    inside = pixel % (size * size)
    row, column = torch.div(inside, size, rounding_mode="floor"), inside % size
    x, y = column.to(planes.dtype) * 2 + 1, row.to(planes.dtype) * 2 + 1  # the pixel's middle
    quarter = torch.arange(4, device=pixel.device).expand(mixed.numel(), 4)[mixed_covered]
    right, below = quarter % 2, torch.div(quarter, 2, rounding_mode="floor")
    x[count:] += right - 0.5 + _offset(below)
    y[count:] += below - 0.5 + _offset(right)
    plane = planes[member].unbind(1)
    first = plane[0] * x + plane[1] * y + plane[2]
    second = plane[3] * x + plane[4] * y + plane[5]
    weights = torch.stack([first, second, 1 - first - second], 1)
    return Samples(picture[member], face[member], weights, some[whole], some[mixed], edge_sample)
