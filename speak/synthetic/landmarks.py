"""The 68 iBUG landmarks of a rendered head, on the curves that draw its features."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from speak.config import LANDMARKS
from speak.synthetic.detail import FULL, Detail
from speak.synthetic.features import Lips, brow, lids
from speak.synthetic.parts import Mesh
from speak.synthetic.shapes import Numbers
from speak.synthetic.surface import head_columns, head_rows

# Station and angle of the jaw line's points 0 to 8, ear to chin; 9 to 16 mirror them.
_JAW = ((6.0, 1.36), (7.0, 1.36), (8.0, 1.34), (9.0, 1.27), (9.9, 1.14), (10.7, 0.97), (11.4, 0.72), (11.85, 0.40),
        (12.0, 0.0))  # fmt: skip


def landmark_points(face: Numbers, skin: Mesh, head: Tensor, detail: Detail) -> Tensor:
    """Points [3, B, 68] in the head's frame.

    face: columns. skin: the head's mesh. head: [B, 3, 3] its turn, because on the far side the jaw line is the
    outline, as annotators draw it.
    """
    x, y = _feature_curves(face)
    z = _depth_at(skin.points, x, y, detail)
    points = torch.cat([_jaw_line(skin.points, head, detail), torch.stack([x, y, z])], 2)
    assert points.shape[2] == LANDMARKS
    return points


def _feature_curves(face: Numbers) -> tuple[Tensor, Tensor]:
    """x and y, each [B, 51], of landmarks 17 to 67."""
    device = face.age.device
    count = face.age.shape[0]
    xs, ys = [], []
    along = torch.tensor([0.96, 0.50, 0.0, -0.50, -0.96], device=device)[None]
    for side, order in ((-1.0, along), (1.0, -along)):
        u = order.expand(count, -1)
        x = side * (u * face.brow_half + face.eye_x + 0.015 - face.brow_in)
        y, thick = brow(face, x, u)
        xs.append(x)
        ys.append(y + 0.25 * thick)
    bridge = torch.tensor([0.0, 1 / 3, 2 / 3, 1.0], device=device)[None]
    top, tip = 0.04, face.nose_y + 0.045
    xs.append(torch.zeros(count, 4, device=device))
    ys.append(top + (tip - top) * bridge)
    wide = face.nose_wide
    base = torch.tensor([-0.155, -0.075, 0.0, 0.075, 0.155], device=device)[None] * wide
    drop = torch.tensor([-0.035, -0.055, -0.070, -0.055, -0.035], device=device)[None]
    xs.append(base.expand(count, -1))
    ys.append(face.nose_y + drop + 0.015 * face.nose_wrinkle)
    for side, places in ((-1.0, (1, 0.34, -0.34, -1, -0.34, 0.34)), (1.0, (-1, -0.34, 0.34, 1, 0.34, -0.34))):
        u = torch.tensor(places, device=device)[None].expand(count, -1)
        x = side * (face.eye_x + u * face.eye_half)
        upper, lower = lids(face, x, u)
        xs.append(x)
        ys.append(torch.cat([upper[:, :3], (upper[:, 3:4] + lower[:, 3:4]) / 2, lower[:, 4:]], 1))
    outer = torch.tensor([-1, -0.66, -0.28, 0, 0.28, 0.66, 1, 0.62, 0.28, 0, -0.28, -0.62], device=device)[None]
    inner = torch.tensor([-0.90, -0.36, 0, 0.36, 0.90, 0.36, 0, -0.36], device=device)[None]
    x = face.mouth_x + torch.cat([outer, inner], 1) * face.mouth_half
    lips = Lips(face, x)
    up, low, mid_up, mid_low = lips.upper_outer, lips.lower_outer, lips.upper_inner, lips.lower_inner
    ys.append(torch.cat([
        lips.line[:, :1], up[:, 1:6], lips.line[:, 6:7], low[:, 7:12],
        (mid_up + mid_low)[:, 12:13] / 2, mid_up[:, 13:16], (mid_up + mid_low)[:, 16:17] / 2, mid_low[:, 17:20],
    ], 1))  # fmt: skip
    xs.append(x)
    return torch.cat(xs, 1), torch.cat(ys, 1)


def _depth_at(points: Tensor, x: Tensor, y: Tensor, detail: Detail) -> Tensor:
    """Depth of the face's surface at (x, y): a narrow weighted mean of the mesh's front vertices."""
    upper = [*range(0, 10), *range(19, 31)]  # brows and eyes, then nose and mouth: each with its part of the mesh
    lower = [index for index in range(x.shape[1]) if index not in upper]
    z = torch.empty_like(x)
    for which, low, high in ((upper, 3.6, 7.2), (lower, 6.0, 12.0)):
        z[:, which] = _nearby_depth(points, x[:, which], y[:, which], low, high, detail)
    return z


def _nearby_depth(points: Tensor, x: Tensor, y: Tensor, low: float, high: float, detail: Detail) -> Tensor:
    rows, columns = head_rows(detail), head_columns(detail)
    chosen = ((rows > low) & (rows < high))[:, None] & (columns.abs() < 1.1)[None]
    index = chosen.reshape(-1).nonzero().squeeze(1).to(points.device)
    near_x, near_y, near_z = points.index_select(2, index).unsqueeze(2).unbind(0)
    away = (near_x - x[:, :, None]) ** 2 + (near_y - y[:, :, None]) ** 2
    weight = torch.exp((-(away - away.amin(2, keepdim=True)) / (2 * 0.016**2)).clamp(min=-80.0))
    return (weight * near_z).sum(2) / weight.sum(2)


@functools.lru_cache(maxsize=8)
def _jaw_places(detail: Detail) -> tuple[Tensor, ...]:
    """Where on this mesh the full mesh's vertices lie that a jaw point may be: for the 17 points the row before, the
    row after and the place between [17], and the same of the columns [17, K]."""
    rows, columns = head_rows(FULL), head_columns(FULL)
    stations, angles = [], []
    for side in (-1, 1):
        for station, angle in _JAW if side < 0 else _JAW[-2::-1]:
            stations.append(rows[int((rows - station).abs().argmin())])
            start = int((columns - side * angle).abs().argmin())
            front = int((columns - side * min(angle, 0.35)).abs().argmin()) if station < 11.9 else start
            angles.append(columns[min(start, front) : max(start, front) + 1])
    most = max(map(len, angles))
    angle = torch.stack([torch.cat([some, some[-1:].expand(most - len(some))]) for some in angles])
    return *_between(head_rows(detail), torch.stack(stations)), *_between(head_columns(detail), angle)


def _between(knots: Tensor, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The knots before and after each place, and how far it lies from the one towards the other."""
    after = torch.searchsorted(knots, at).clamp(1, len(knots) - 1)
    return after - 1, after, (at - knots[after - 1]) / (knots[after] - knots[after - 1])


def _jaw_line(points: Tensor, head: Tensor, detail: Detail) -> Tensor:
    """[3, B, 17]: fixed points of the jaw, which slide forward to the outline on the side turned away."""
    row, next_row, down, column, next_column, along = (place.to(points.device) for place in _jaw_places(detail))
    grid = points.unflatten(2, (-1, detail.head_columns))
    lines = torch.lerp(grid[:, :, row], grid[:, :, next_row], down[:, None])  # [3, B, 17, C]
    which = torch.arange(len(row), device=points.device)[:, None]
    reach = torch.lerp(lines[:, :, which, column], lines[:, :, which, next_column], along)  # [3, B, 17, K]
    lateral = reach[0] * head[:, 0, 0, None, None] + reach[2] * head[:, 0, 2, None, None]
    side = torch.ones(len(row), 1, device=points.device)
    side[: len(_JAW)] = -1
    best = (lateral * side).argmax(2, keepdim=True)
    return reach.gather(3, best.expand(3, -1, -1, -1)).squeeze(3)
