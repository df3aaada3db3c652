"""Smooth steps, bells, splines and the named numbers that the renderer's surfaces and paints are written in."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class Numbers:
    """Named numbers of a batch of people, each [B], seen in the shape that the reader needs.

    `numbers.name` is the number as the view shapes it: [B] (`plain`), [B, 1] (`columns`, to meet [B, V] vertices) or
    [N] (`at(samples)`, to meet samples of any of the pictures). Vectors [B, K] are seen with K in front, as all vectors
    of surfaces and samples are: long rows of one component are what a processor is fast at. Views are made when first
    asked for, and kept.
    """

    def __init__(self, values: dict[str, Tensor], view: Callable[[Tensor], Tensor] | None = None) -> None:
        self._values = values
        self._view = view
        self._made: dict[str, Tensor] = {}

    def __getattr__(self, name: str) -> Tensor:
        if name.startswith("_"):
            raise AttributeError(name)
        if self._view is None:
            return self._values[name]
        if name not in self._made:
            self._made[name] = self._view(self._values[name])
        return self._made[name]

    def columns(self) -> Numbers:
        """The same numbers as [B, 1]; vectors [B, K] become [K, B, 1]."""
        return Numbers(self._values, lambda value: value.movedim(-1, 0).unsqueeze(-1))

    def at(self, samples: Tensor) -> Numbers:  # samples: [N] indices into the batch
        """The same numbers as [N]: each sample's own; vectors [B, K] become [K, N]."""
        return Numbers(self._values, lambda value: value.movedim(-1, 0).contiguous().index_select(-1, samples))

    def of(self, people: Tensor) -> Numbers:  # people: indices into the batch
        """The numbers of some of the batch, [P]."""
        return Numbers({name: value.index_select(0, people) for name, value in self._values.items()})


def smoothstep(low: float | Tensor, high: float | Tensor, x: Tensor) -> Tensor:
    """0 below `low`, 1 above `high`, a cubic between; falls instead where low > high."""
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def bell(x: Tensor) -> Tensor:
    """exp(-x^2), at least 1e-35: processors are ten times slower where exp comes near the smallest numbers."""
    return torch.exp((x * x).clamp(max=80.0).neg())


def hump(x: Tensor) -> Tensor:
    """(1 - x^2)^2 within [-1, 1], 0 outside: a bell that ends."""
    t = (1 - x * x).clamp(min=0)
    return t * t


def cover(distance: Tensor, pixel: Tensor | float) -> Tensor:
    """How much of a pixel of width `pixel` lies inside an edge at signed `distance` (positive inside): 0 to 1."""
    return (distance / pixel + 0.5).clamp(0, 1)


def mix(a: Tensor | float, b: Tensor | float, t: Tensor) -> Tensor:
    """a where t is 0, b where t is 1."""
    return a + (b - a) * t


def smooth_max(a: Tensor, b: Tensor, width: float) -> Tensor:
    """The greater of two, rounded over `width`."""
    gap = (a - b).abs()
    return torch.maximum(a, b) + (1 - gap / width).clamp(min=0) ** 2 * (width / 4)


def spline_weights(s: Tensor) -> tuple[Tensor, list[Tensor]]:
    """First of the four stations (counted from one before station 0) and weights of a uniform cubic B-spline at `s`."""
    first = s.floor()
    u = s - first
    v = 1 - u
    weights = [v * v * v / 6, (3 * u * u * (u - 2) + 4) / 6, (3 * v * v * (v - 2) + 4) / 6, u * u * u / 6]
    return first.long(), weights


def spline(stations: Tensor, s: Tensor) -> Tensor:
    """A uniform cubic B-spline along padded stations.

    stations: [B, S + 3, K], the row of S + 1 stations with one more before and one more after; s: [R] in [0, S], the
    same for all, or [B, R]. Returns [K, B, R].
    """
    first, weights = spline_weights(s.clamp(0, stations.shape[1] - 3 - 1e-4))
    if s.dim() == 1:
        basis = torch.zeros(s.shape[0], stations.shape[1], dtype=stations.dtype, device=stations.device)
        for step, weight in enumerate(weights):
            basis.scatter_(1, first[:, None] + step, weight[:, None])
        return (basis[None, :, :, None] * stations[:, None]).sum(2).movedim(2, 0)
    total = torch.zeros((), dtype=stations.dtype, device=stations.device)
    table = stations.movedim(2, 0).contiguous()
    for step, weight in enumerate(weights):
        total = total + torch.gather(table, 2, (first + step).expand(table.shape[0], -1, -1)) * weight
    return total


def ramp(table: tuple[tuple[float, ...], ...], x: Tensor) -> Tensor:  # x: [...] in [0, 1] -> [..., K]
    """Piecewise linear through the rows of a table at equal steps."""
    rows = torch.tensor(table, dtype=x.dtype, device=x.device)
    place = x.clamp(0, 1) * (len(table) - 1)
    low = place.floor().clamp(max=len(table) - 2)
    return torch.lerp(rows[low.long()], rows[low.long() + 1], (place - low).unsqueeze(-1))


def put(under: Tensor, places: Tensor, values: Tensor) -> None:
    """Writes values [P] or [K, P] into the columns `places` [P] of under [N] or [K, N]."""
    for row, new in zip(torch.atleast_2d(under), torch.atleast_2d(values), strict=True):
        row.scatter_(0, places, new)  # several times faster than an assignment by index


def grid_faces(rows: int, columns: int) -> Tensor:
    """Triangles [F, 3] of a rows x columns grid of vertices in row order, wound so that (row step) x (column step)
    points out of the seen side."""
    index = torch.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    return torch.cat([torch.stack([a, c, b], -1).reshape(-1, 3), torch.stack([b, c, d], -1).reshape(-1, 3)])


def differences(values: Tensor, dim: int) -> Tensor:
    """Next minus previous along a dimension; at its ends the one-sided difference."""
    count = values.shape[dim]
    return torch.cat([
        values.narrow(dim, 1, 1) - values.narrow(dim, 0, 1),
        values.narrow(dim, 2, count - 2) - values.narrow(dim, 0, count - 2),
        values.narrow(dim, count - 1, 1) - values.narrow(dim, count - 2, 1),
    ], dim)  # fmt: skip


def cross(a: Tensor, b: Tensor) -> Tensor:  # [3, ...] each
    """The cross product along the first dimension."""
    (ax, ay, az), (bx, by, bz) = a.unbind(0), b.unbind(0)
    rows = [torch.addcmul(-(az * by), ay, bz), torch.addcmul(-(ax * bz), az, bx), torch.addcmul(-(ay * bx), ax, by)]
    return torch.stack(rows)


def length(vector: Tensor) -> Tensor:  # [3, ...] -> [...]
    """Its length; the root is taken in float64, so that it is exact on every machine."""
    x, y, z = vector.unbind(0)
    return torch.addcmul(torch.addcmul(x * x, y, y), z, z).double().sqrt().to(vector.dtype)


def unit(vector: Tensor, least: float = 1e-12) -> Tensor:  # [3, ...]
    """The vector of length 1 in the same direction; 0 stays 0. `least`: lengths below count as this."""
    return vector / length(vector).clamp(min=least)


def grid_normals(points: Tensor) -> Tensor:  # [3, B, R, C] -> the same, unit length
    """Normals of a grid surface from differences of neighbours, (down the rows) x (along the columns)."""
    return unit(cross(differences(points, 2), differences(points, 3)), 1e-9)
