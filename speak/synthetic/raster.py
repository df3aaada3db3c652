"""A z-buffer in torch operations: triangles of a batch of pictures to samples, four a pixel on a rotated grid."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

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


def _expand(counts: Tensor) -> tuple[Tensor, Tensor]:
    """[0, 0, 0, 1, 2, 2] and [0, 1, 2, 0, 0, 1] from counts [3, 1, 2]: whose, and the how-manieth."""
    owner = torch.repeat_interleave(counts)
    start = counts.cumsum(0) - counts
    return owner, torch.arange(owner.numel(), device=counts.device) - start[owner]


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
    scale = (1 << 24) / (2 * _DEEPEST)
    seen = (area < -1e-6) & (span_x > 0) & (span_y > 0)
    chosen = seen.reshape(-1).nonzero().squeeze(1)
    picture = torch.div(chosen, faces.shape[0], rounding_mode="floor")
    face = chosen - picture * faces.shape[0]
    first_x, first_y = first_x.reshape(-1)[chosen], first_y.reshape(-1)[chosen]
    # From here on x and y count from each triangle's own first sample: float32 keeps its precision.
    px, py = px.reshape(-1, 3)[chosen] - first_x[:, None], py.reshape(-1, 3)[chosen] - first_y[:, None]
    pz = depth.reshape(-1)[faces[face] + (picture * depth.shape[1])[:, None]]
    high = span_y.reshape(-1)[chosen].long()
    right = span_x.reshape(-1)[chosen] - 1
    origin_x, origin_y = first_x.long(), first_y.long()

    # Barycentric planes: weight_i = a_i x + b_i y + c_i, and depth likewise.
    inverse = 1 / area.reshape(-1)[chosen]
    x0, x1, x2 = px.unbind(1)
    y0, y1, y2 = py.unbind(1)
    ax, ay, bx, by = (y1 - y2) * inverse, (x2 - x1) * inverse, (y2 - y0) * inverse, (x0 - x2) * inverse
    planes = torch.stack([ax, ay, (x1 * y2 - x2 * y1) * inverse, bx, by, (x2 * y0 - x0 * y2) * inverse], 1)
    z0, z1, z2 = pz.unbind(1)
    zx, zy = ax * (z0 - z2) + bx * (z1 - z2), ay * (z0 - z2) + by * (z1 - z2)
    zc = planes[:, 2] * (z0 - z2) + planes[:, 5] * (z1 - z2) + z2

    # Every row of every triangle: the columns that may lie inside, from its three edges.
    lines, row = _expand(high)
    plane = torch.cat([planes, torch.stack([zx, zy, zc], 1)], 1)[lines]
    y = row + 0.5
    odd_x, odd_y = (origin_x % 2)[lines], (origin_y % 2)[lines]
    start_of_row = ((picture * fine + origin_y) * fine + origin_x)[lines] + row * fine
    shift = _offset(row + odd_y)
    top = right[lines]
    low = torch.zeros_like(top)
    at_row = []
    for k in (0, 3, 6):
        at_row.append(plane[:, k + 1] * y + plane[:, k + 2] + plane[:, k] * (0.5 + shift))
    slopes = (plane[:, 0], plane[:, 3], -plane[:, 0] - plane[:, 3])
    rises = (plane[:, 1], plane[:, 4], -plane[:, 1] - plane[:, 4])
    for slope, rise, start in zip(slopes, rises, (at_row[0], at_row[1], 1 - at_row[0] - at_row[1]), strict=True):
        reach = -(start + rise.abs() * _TILT + 1e-4) / torch.where(slope.abs() < 1e-9, 1e-9, slope)
        low = torch.where(slope > 1e-9, torch.maximum(low, reach.clamp(-1e6, 1e6).ceil()), low)
        top = torch.where(slope < -1e-9, torch.minimum(top, reach.clamp(-1e6, 1e6).floor()), top)
    spans, column = _expand((top - low + 1).clamp(min=0).long())
    column = column + low.long()[spans]

    # Every sample: is it inside, and how deep?
    table = torch.stack([plane[:, 0], plane[:, 1], at_row[0], plane[:, 3], plane[:, 4], at_row[1], plane[:, 6],
                         plane[:, 7], at_row[2]], 1).index_select(0, spans).unbind(1)
    tilt = _offset(column + odd_x[spans])
    first = table[0] * column + table[1] * tilt + table[2]
    second = table[3] * column + table[4] * tilt + table[5]
    inside = (first >= -1e-5) & (second >= -1e-5) & (first + second <= 1 + 1e-5)
    z = table[6] * column + table[7] * tilt + table[8]
    key = ((_DEEPEST - z) * scale).long().clamp(0, (1 << 25)) << 32 | lines[spans]
    key = torch.where(inside, key, _FAR)
    place = start_of_row[spans] + column
    buffer = torch.full((batch * fine * fine,), _FAR, dtype=torch.int64, device=screen.device)
    buffer.scatter_reduce_(0, place, key, "amin")
    return _resolve(buffer.reshape(batch, size, 2, size, 2), picture, face, parts, planes, torch.stack([first_x, first_y], 1), step * scale)


def _resolve(
    buffer: Tensor, picture: Tensor, face: Tensor, parts: Tensor, planes: Tensor, origin: Tensor, step: float
) -> Samples:
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
    x, y = x - origin[member, 0], y - origin[member, 1]
    plane = planes[member].unbind(1)
    first = plane[0] * x + plane[1] * y + plane[2]
    second = plane[3] * x + plane[4] * y + plane[5]
    weights = torch.stack([first, second, 1 - first - second], 1).clamp(0, 1)  # no reaching out of slivers
    weights = weights / weights.sum(1, keepdim=True)
    return Samples(picture[member], face[member], weights, some[whole], some[mixed], edge_sample)
