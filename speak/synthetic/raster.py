"""A z-buffer in torch operations: triangles of a batch of pictures to samples, four a pixel on a rotated grid."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

_TILT = 0.25  # samples of odd rows and columns are shifted by this: near-upright edges get four steps instead of two
_FAR = 1 << 62
_PART = 26  # a sample's key: depth above bit 32, its surface above this bit, its triangle below
_DEEPEST = 8.0  # depths lie within plus and minus this
_LEVELS = 1 << 20  # steps of depth a unit


@dataclasses.dataclass
class Samples:
    """What shading works on: N points of surfaces, and how they make up the pictures.

    picture, face: [N] which picture and which triangle. weights: [3, N] of its corners.
    whole: [N1] pixel (flat over the batch) of each of the first N1 samples, which fill their pixel.
    edge: [E] pixels that are made of four samples; edge_sample: [E, 4] index of the sample, or N for the background.
    """

    picture: Tensor
    face: Tensor
    weights: Tensor
    whole: Tensor
    edge: Tensor
    edge_sample: Tensor


def _expand(counts: Tensor) -> tuple[Tensor, Tensor]:
    """[0, 0, 0, 1, 2, 2] and where each owner's entries start, [0, 3, 4], from counts [3, 1, 2]."""
    end = counts.cumsum(0)
    total = int(end[-1]) if end.numel() else 0
    steps = torch.zeros(total + 1, dtype=torch.int64, device=counts.device)
    steps.scatter_add_(0, end[:-1], torch.ones_like(end[:-1]))  # quicker than repeat_interleave
    return steps.cumsum(0)[:total], end - counts


def rasterise(
    screen: Tensor,  # [2, B, V] pixels, continuous: pixel i spans i to i + 1
    depth: Tensor,  # [B, V] nearer is greater
    faces: Tensor,  # [F, 3] counter-clockwise as seen, y down
    parts: Tensor,  # [F] which surface a triangle belongs to
    size: int,
    step: float,  # a jump of depth inside a pixel that counts as an edge
) -> Samples:
    """The visible samples of every picture, four a pixel where surfaces meet, one elsewhere.

    Two expansions without loops: triangles to the rows of samples that they meet, rows to the samples in them.
    """
    batch, fine, device = screen.shape[1], size * 2, screen.device
    corners = faces.T.contiguous()
    (x0, y0), (x1, y1), (x2, y2) = ((screen * 2).index_select(2, corner).unbind(0) for corner in corners)
    area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
    low_x, low_y = torch.minimum(torch.minimum(x0, x1), x2), torch.minimum(torch.minimum(y0, y1), y2)
    high_x, high_y = torch.maximum(torch.maximum(x0, x1), x2), torch.maximum(torch.maximum(y0, y1), y2)
    first_x, first_y = (low_x - 0.5 - _TILT).ceil().clamp(min=0), (low_y - 0.5 - _TILT).ceil().clamp(min=0)
    last_x = (high_x - 0.5 + _TILT).floor().clamp(max=fine - 1)
    last_y = (high_y - 0.5 + _TILT).floor().clamp(max=fine - 1)
    seen = (area < -1e-6) & (last_x >= first_x) & (last_y >= first_y)
    chosen = seen.reshape(-1).nonzero().squeeze(1)
    picture = torch.div(chosen, faces.shape[0], rounding_mode="floor")
    face = chosen - picture * faces.shape[0]

    # From here on x and y count from an even sample near each triangle: float32 keeps its precision.
    def own(value: Tensor) -> Tensor:
        return value.reshape(-1).index_select(0, chosen)

    first_x, first_y = own(first_x), own(first_y)
    origin_x, origin_y = (first_x / 2).floor() * 2, (first_y / 2).floor() * 2
    x0, x1, x2 = own(x0) - origin_x, own(x1) - origin_x, own(x2) - origin_x
    y0, y1, y2 = own(y0) - origin_y, own(y1) - origin_y, own(y2) - origin_y
    vertex = corners.index_select(1, face) + picture * depth.shape[1]
    z0, z1, z2 = ((_DEEPEST - depth.reshape(-1).index_select(0, corner)) * _LEVELS for corner in vertex)
    inverse = 1 / own(area)
    ax, ay, ac = (y1 - y2) * inverse, (x2 - x1) * inverse, (x1 * y2 - x2 * y1) * inverse
    bx, by, bc = (y2 - y0) * inverse, (x0 - x2) * inverse, (x2 * y0 - x0 * y2) * inverse
    z0, z1 = z0 - z2, z1 - z2
    planes = torch.stack([ax, ay, ac, bx, by, bc, origin_x, origin_y])
    table = torch.stack([
        ax, ay, ac, bx, by, bc, ax * z0 + bx * z1, ay * z0 + by * z1, ac * z0 + bc * z1 + z2,
        first_x - origin_x, own(last_x) - origin_x, first_y - origin_y,
    ])  # fmt: skip

    # Every row of every triangle: the columns that may lie inside, from its three edges.
    lines, start = _expand((own(last_y) - first_y + 1).long())
    ax, ay, ac, bx, by, bc, zx, zy, zc, low, top, row = table.index_select(1, lines).unbind(0)
    row = row + (torch.arange(lines.numel(), device=device) - start.index_select(0, lines)).to(row.dtype)
    odd = torch.remainder(row, 2)
    y, x = row + 0.5, 0.5 + 2 * _TILT * odd - _TILT  # the row's height and where its column 0 lies
    ac, bc, zc = ac + ay * y + ax * x, bc + by * y + bx * x, zc + zy * y + zx * x
    for slope, rise, value in ((ax, ay, ac), (bx, by, bc), (-ax - bx, -ay - by, 1 - ac - bc)):
        reach = (-(value + rise.abs() * _TILT + 1e-4) / slope).clamp(-1e6, 1e6)
        low = torch.where(slope > 1e-9, torch.maximum(low, reach.ceil()), low)
        top = torch.where(slope < -1e-9, torch.minimum(top, reach.floor()), top)
    counts = (top - low + 1).clamp(min=0).long()
    base = ((picture * size + (origin_y / 2).long()) * size + (origin_x / 2).long()).index_select(0, lines)
    base = base + (row / 2).floor().long() * size
    quarter = odd.long() * (2 * batch * size * size)  # the four samples of a pixel lie in four planes of the buffer

    # Every sample: is it inside, and how deep? Odd columns are shifted down by twice the tilt.
    spans, start = _expand(counts)
    column = torch.arange(spans.numel(), device=device, dtype=low.dtype)
    column += (low - start.to(low.dtype)).index_select(0, spans)
    half = (column / 2).floor()
    odd = column - 2 * half

    def across(slope: Tensor, rise: Tensor, value: Tensor) -> Tensor:
        """A linear function at every sample; one at a time, so that the rows stay in the processor's cache."""
        at = (value - _TILT * rise).index_select(0, spans)
        at.addcmul_(slope.index_select(0, spans), column)
        return at.addcmul_((2 * _TILT * rise).index_select(0, spans), odd)

    first, second = across(ax, ay, ac), across(bx, by, bc)
    outside = torch.minimum(torch.minimum(first, second), 1 - first - second) < -1e-4
    name = torch.arange(chosen.numel(), device=device) + (parts.index_select(0, face) << _PART)
    key = across(zx, zy, zc).clamp_(0, 2 * _DEEPEST * _LEVELS).long() << 32
    key += name.index_select(0, lines).index_select(0, spans)
    key += outside.long() * _FAR
    place = (base + quarter).index_select(0, spans) + half.long() + odd.long() * (batch * size * size)
    buffer = torch.full((4 * batch * size * size,), _FAR, dtype=torch.int64, device=device)
    buffer.scatter_reduce_(0, place, key, "amin")
    return _resolve(buffer.reshape(4, -1), size, picture, face, planes, int(step * _LEVELS) << 32)


def _resolve(buffer: Tensor, size: int, picture: Tensor, face: Tensor, planes: Tensor, step: int) -> Samples:
    """Splits pixels into whole ones and edges, and finds each sample's place in its triangle."""
    nearest = torch.minimum(torch.minimum(buffer[0], buffer[1]), torch.minimum(buffer[2], buffer[3]))
    some = (nearest < _FAR).nonzero().squeeze(1)
    cells = buffer.index_select(1, some)  # [4, P]
    flat = cells[0] < _FAR
    for k in (1, 2, 3):  # the background is so far that it is never near
        flat &= ((cells[k] ^ cells[0]) & (63 << _PART) == 0) & ((cells[k] - cells[0]).abs() < step)
    whole, mixed = flat.nonzero().squeeze(1), (~flat).nonzero().squeeze(1)

    count = whole.numel()
    edges = cells.index_select(1, mixed).T
    covered = edges < _FAR
    drawn = covered.reshape(-1).nonzero().squeeze(1)
    total = count + drawn.numel()
    edge_sample = torch.where(covered, covered.reshape(-1).cumsum(0).reshape(-1, 4) - 1 + count, total)
    member = torch.cat([cells[0].index_select(0, whole), edges.reshape(-1).index_select(0, drawn)])
    member = member & ((1 << _PART) - 1)

    whole_pixel, edge_pixel = some.index_select(0, whole), some.index_select(0, mixed)
    pixel = torch.cat([whole_pixel, edge_pixel.index_select(0, torch.div(drawn, 4, rounding_mode="floor"))])
    pixel = torch.remainder(pixel, size * size)
    row = torch.div(pixel, size, rounding_mode="floor")
    x, y = (pixel - row * size).to(planes.dtype) * 2 + 1, row.to(planes.dtype) * 2 + 1  # the pixel's middle
    right, below = drawn % 2, torch.div(drawn % 4, 2, rounding_mode="floor")
    x[count:] += right - 0.5 + 2 * _TILT * below - _TILT
    y[count:] += below - 0.5 + 2 * _TILT * right - _TILT
    ax, ay, ac, bx, by, bc, origin_x, origin_y = planes.index_select(1, member).unbind(0)
    x, y = x - origin_x, y - origin_y
    first = ax * x + ay * y + ac
    second = bx * x + by * y + bc
    weights = torch.stack([first, second, 1 - first - second]).clamp(0, 1)  # no reaching out of slivers
    weights = weights / weights.sum(0)
    return Samples(picture.index_select(0, member), face.index_select(0, member), weights, whole_pixel, edge_pixel,
                   edge_sample)
