"""Hair: a shell grown from the skull, from the crown to the hairline or hanging past it, in several styles."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from speak.synthetic.detail import Detail
from speak.synthetic.identity import HAIR_STYLES
from speak.synthetic.parts import HAIR, HAIR_INSIDE, Mesh
from speak.synthetic.shapes import Numbers, bell, grid_faces, grid_normals, mix, smoothstep, unit
from speak.synthetic.surface import skull

# line, side, nape: station where hair ends in front, before the ear, at the neck. top, sides, front: thickness.
# end: thickness left at the front edge (a fringe). length: how far it hangs. open: angle where hanging begins.
# curl: bumps. sweep: how far strands and volume lean to a side. tuck: ends turn in (a bob) or out.
_NAMES = ("line", "side", "nape", "top", "sides", "front", "end", "length", "open", "curl", "sweep", "tuck", "part")
_STYLES = {
    "bald": (0.30, 0.3, 0.3, -0.06, -0.06, -0.06, -0.06, 0.0, 1.2, 0.0, 0.0, 0.0, 0.0),
    "cropped": (3.15, 6.1, 9.0, 0.045, 0.035, 0.03, 0.0, 0.0, 1.2, 0.004, 0.0, 0.0, 0.0),
    "short": (3.30, 6.4, 9.4, 0.13, 0.065, 0.11, 0.02, 0.0, 1.2, 0.010, 0.3, 0.0, 0.0),
    "swept": (3.15, 6.5, 9.4, 0.17, 0.07, 0.19, 0.05, 0.0, 1.2, 0.012, 1.0, 0.0, 0.05),
    "quiff": (3.00, 6.2, 9.2, 0.24, 0.050, 0.34, 0.08, 0.0, 1.2, 0.014, 0.25, 0.0, 0.0),
    "curly": (3.35, 6.3, 9.4, 0.24, 0.14, 0.22, 0.08, 0.0, 1.2, 0.050, 0.2, 0.0, 0.0),
    "afro": (3.10, 6.3, 9.4, 0.52, 0.46, 0.36, 0.10, 0.0, 1.2, 0.055, 0.0, 0.0, 0.0),
    "fringe": (4.65, 6.8, 9.6, 0.16, 0.12, 0.14, 0.055, 0.0, 1.2, 0.012, 0.4, 0.0, 0.0),
    "bob": (3.20, 6.8, 9.6, 0.17, 0.15, 0.14, 0.04, 1.02, 1.12, 0.010, 0.6, 0.13, 0.07),
    "long": (3.10, 6.8, 9.6, 0.16, 0.13, 0.13, 0.03, 1.75, 1.14, 0.012, 0.4, -0.04, 0.08),
    "long_fringe": (4.75, 6.8, 9.6, 0.16, 0.13, 0.15, 0.055, 1.65, 1.10, 0.010, 0.3, 0.04, 0.0),
    "bun": (3.10, 6.2, 9.4, 0.085, 0.060, 0.07, 0.01, 0.0, 1.2, 0.006, 0.1, 0.0, 0.0),
    "tied_back": (3.10, 6.3, 9.5, 0.10, 0.065, 0.08, 0.015, 0.0, 1.2, 0.008, 0.5, 0.0, 0.04),
    "wavy": (3.20, 6.8, 9.6, 0.20, 0.17, 0.16, 0.04, 1.35, 1.12, 0.045, 0.6, -0.08, 0.08),
}  # fmt: skip


def style_numbers(face: Numbers) -> dict[str, Tensor]:  # face: [B]
    """The style's numbers bent by the person's own hairline, volume, length and curl; each [B, 1]."""
    table = torch.tensor([_STYLES[name] for name in HAIR_STYLES], device=face.age.device)
    style = dict(zip(_NAMES, table[face.hair_kind].unbind(1), strict=True))
    grown = (face.hair_kind > 0).to(face.age.dtype)
    volume = 0.72 + 0.62 * face.hair_volume
    for name in ("top", "sides", "front"):
        style[name] = torch.where(style[name] > 0, style[name] * volume, style[name])
    back = (0.5 - face.hair_line) * 0.75 - 0.35 * face.wrinkle * face.man
    style["line"] = style["line"] + grown * back
    style["recess"] = grown * (0.15 + 0.65 * face.man * (0.3 + face.wrinkle)) * (style["line"] < 4.2)
    style["length"] = style["length"] * (0.72 + 0.56 * face.hair_length)
    style["curl"] = style["curl"] * (0.7 + 0.8 * face.hair_wave)
    style["spike"] = (0.02 + 0.14 * face.hair_wave) * grown * (style["end"] > 0.012)
    style["wave"] = 0.012 + 0.035 * face.hair_wave
    style["sweep"] = style["sweep"] * torch.where(face.hair_side > 0.5, 1.0, -1.0) * (0.5 + (face.hair_side * 2 % 1))
    style["part"] = style["part"] * torch.where(face.hair_side * 2 % 1 > 0.25, 1.0, 0.0)
    style["curtain"] = (style["part"] > 0.055).to(face.age.dtype) * (0.55 + 0.45 * face.hair_volume)
    style["part_at"] = 0.38 * style["sweep"].sign() * (face.hair_side * 2 % 1)
    style["part_x"] = 0.22 * style["sweep"].sign() * (face.hair_side * 2 % 1)
    return {name: value.unsqueeze(1) for name, value in style.items()}


def hairline(style: dict[str, Tensor], angle: Tensor) -> Tensor:  # angle: [1 or B, C]
    """Station of the head's loft at which hair ends, by angle round the head."""
    a = angle.abs()
    lean = style["sweep"] * torch.sin(angle)
    front = style["line"] - style["recess"] * bell((a - 0.72) / 0.28) + 0.12 * style["recess"] * bell(a / 0.25)
    front = front + style["spike"] * (0.6 * torch.sin(15 * angle) + 0.4 * torch.sin(26 * angle + 1))
    front = front + 0.30 * lean * (style["end"] > 0.045) * (style["line"] > 4.0)
    front = front + 0.16 * lean * (style["line"] < 4.0) * smoothstep(1.1, 0.6, a)
    apart = smoothstep(0.04, 0.85, (angle - style["part_at"]).abs())
    front = front + style["curtain"] * (2.3 * apart - 0.25)
    s = mix(front, torch.maximum(style["side"], front), smoothstep(0.80, 1.22, a))
    s = mix(s, style["side"] - 0.9, smoothstep(1.42, 1.62, a))
    return mix(s, style["nape"], smoothstep(1.75, 2.35, a))


def hair(face: Numbers, stations: Tensor, detail: Detail) -> list[Mesh]:  # face: [B]
    """The shell, its inside, and a bun or tail."""
    count, device = stations.shape[0], stations.device
    rows, columns = detail.hair_rows, detail.hair_columns
    style = style_numbers(face)
    k = torch.linspace(-1, 1, columns, device=device)
    angle = math.pi * (0.80 * k + 0.20 * k**3)
    v = torch.linspace(0, 1 + 1 / (rows - 2), rows, device=device).clamp(max=1)
    rim = (torch.arange(rows, device=device) == rows - 1)[None, :, None]  # a last row closes the edge
    wide_angle = angle[None]
    end = hairline(style, wide_angle)  # [B, C]
    hang = smoothstep(style["open"] - 0.16, style["open"] + 0.16, wide_angle.abs()) * (style["length"] > 0)
    split = 0.50
    knee = torch.minimum(end, mix(end, torch.full_like(end, 5.0), hang))
    grow = (v / split).clamp(max=1)[:, None]
    drop = ((v - split) / (1 - split)).clamp(min=0)[:, None]
    s = knee[:, None] * grow + (end - knee)[:, None] * drop  # [B, R, C]
    s_hang = knee[:, None] * grow
    flat = (count, rows * columns)
    turns = wide_angle[:, None].expand(count, rows, -1)
    ends = drop.expand(-1, columns)[None]
    fall = ends * hang[:, None]  # how far down it hangs; where nothing hangs these rows lie on the edge together

    def cell(name: str) -> Tensor:
        return style[name].unsqueeze(2)

    along = torch.where(cell("length") > 0, mix(s / end[:, None], grow.expand(-1, columns)[None] * 0.8,
                                                hang[:, None]), s / end[:, None])
    scalp = skull(stations, s.reshape(flat), turns.reshape(flat)).reshape(3, count, rows, columns)
    knee_point = skull(stations, s_hang.reshape(flat), turns.reshape(flat)).reshape(scalp.shape)
    base = mix(scalp, knee_point, hang[:, None])
    centre = torch.tensor([0.0, 0.10, -0.14], device=device)[:, None, None, None]
    out = unit(base - centre)

    # Thickness: top, sides, a lift in front; thin at the edge; ridges and curls.
    upward = smoothstep(0.15, 0.85, out[1])
    ahead = smoothstep(0.1, 0.85, out[2]) * smoothstep(0.0, 0.5, out[1])
    thick = mix(cell("sides"), cell("top"), upward)
    thick = mix(thick, cell("front"), ahead)
    lean = cell("sweep") * base[0]
    thick = thick * (1 + 0.75 * lean * smoothstep(0.2, 0.7, out[1]))
    close = 1 - along.clamp(0, 1) ** 5
    edge = mix(cell("end"), torch.full_like(cell("end"), 0.0), smoothstep(0.85, 1.2, turns.abs()))
    thick = torch.where(thick > 0, edge + (thick - edge) * close, thick)
    thick = mix(thick, cell("sides") * (1 - 0.25 * ends), hang[:, None])
    thick = torch.where(rim, mix(torch.full_like(thick, -0.06), thick, hang[:, None]), thick)
    groove = cell("part") * bell((base[0] - cell("part_x")) / 0.045) * smoothstep(0.45, 0.75, base[1]) * (
        base[2] > -0.4)
    thick = (thick - groove).clamp(min=-0.06)
    swirl = turns + cell("sweep") * 0.5 * s / 3
    strand_wave = cell("wave") * torch.sin(11 * swirl + 2.5 * torch.sin(3 * turns)) * 0.45
    strand_wave = strand_wave * smoothstep(0.04, 0.12, thick) * smoothstep(0.05, 0.4, along)
    curls = torch.sin(16 * turns + 3.1 * torch.sin(s * 1.9))
    curls = curls * torch.sin(3.6 * s + 6 * fall + 1.7 * torch.sin(5 * turns))
    curls = curls * smoothstep(0.02, 0.1, thick) * cell("curl")
    points = base + out * (thick + strand_wave + curls)

    # Hanging: straight down from the knee, waving, the ends turned in or out.
    shorter = 1 - 0.10 * bell((turns.abs() - cell("open")) / 0.5)
    y = points[1] - fall * cell("length") * shorter
    flow = torch.stack([torch.sin(turns), torch.zeros_like(turns), torch.cos(turns)])
    bulge = 0.06 * torch.sin(math.pi * fall.clamp(0, 1)) - cell("tuck") * fall**3
    bulge = bulge + fall * cell("curl") * 1.4 * torch.sin(9 * fall + 2 * torch.sin(4 * turns))
    bulge = bulge + 0.020 * fall * torch.sin(17 * turns + 2 * fall)
    x, y, z = (torch.stack([points[0], y, points[2]]) + flow * bulge).unbind(0)
    points = torch.stack([x, y, z + 0.12 * (smoothstep(0.0, -0.3, z) * fall)])

    normals = grid_normals(points)
    normals = torch.cat([out[:, :, :1], normals[:, :, 1:]], 2).flatten(2)  # the crown is one point
    strand = (swirl * 1.0 + 0.06 * fall).reshape(count, -1)
    shade = (0.62 + 0.38 * smoothstep(0.0, 0.10, thick)) * (1 - 0.25 * fall) * (1 - 0.5 * (groove > 0) * groove / 0.08)
    shade = shade * (0.86 + 0.14 * (strand_wave + curls) / (cell("wave") * 0.45 + cell("curl")))
    mark = torch.stack([strand, (s / 6 + fall).reshape(count, -1)])
    albedo = face.hair.T.unsqueeze(2).expand(-1, -1, flat[1])
    follow = (1 - 0.75 * smoothstep(-0.9, -1.6, points[1])).reshape(count, -1)
    faces = grid_faces(rows, columns)
    flat_points = points.flatten(2)
    shell = Mesh(flat_points, normals, albedo, shade.reshape(count, -1), mark, follow, faces, HAIR)
    hanging = style["length"] > 0
    inside = Mesh(torch.where(hanging, flat_points, torch.zeros_like(flat_points)), -normals, albedo * 0.5,
                  shade.reshape(count, -1) * 0.35, mark, follow, faces[:, [0, 2, 1]], HAIR_INSIDE)
    return [shell, inside, _bun(face, *detail.bun)]


def _bun(face: Numbers, rows: int, columns: int) -> Mesh:
    """A ball on the crown, or a tail behind; nothing for other styles."""
    count, device = face.age.shape[0], face.age.device
    polar = torch.linspace(0.02, math.pi - 0.02, rows, device=device)[:, None]
    turn = torch.linspace(-math.pi, math.pi, columns, device=device)[None]
    ball = torch.stack([torch.sin(polar) * torch.sin(turn), torch.cos(polar).expand(-1, columns),
                        torch.sin(polar) * torch.cos(turn)])
    on_top = (face.hair_kind == HAIR_STYLES.index("bun")).to(face.age.dtype)
    behind = (face.hair_kind == HAIR_STYLES.index("tied_back")).to(face.age.dtype)
    grow = 0.8 + 0.4 * face.hair_volume
    high = face.hair_length
    zero = torch.zeros_like(grow)
    middle = on_top * torch.stack([zero, 1.22 - 0.35 * high, -0.28 - 0.75 * high])
    middle = middle + behind * torch.stack([zero, -0.25 + zero, -1.20 + zero])
    size = on_top * torch.stack([0.33 * grow, 0.28 * grow, 0.31 * grow])
    size = size + behind * torch.stack([0.24 * grow, 0.75 * grow, 0.22 * grow])
    twist = 1 + 0.05 * torch.sin(7 * turn + 5 * polar)
    points = middle[:, :, None, None] + size[:, :, None, None] * (ball * twist)[:, None]
    normals = grid_normals(points).flatten(2)
    flat = points.flatten(2)
    mark = torch.stack([(turn * 0.8 + polar * 0.6), polar.expand(-1, columns)]).reshape(2, 1, -1).expand(-1, count, -1)
    shade = (0.80 + 0.20 * torch.sin(7 * turn + 5 * polar)).reshape(1, -1).expand(count, -1)
    albedo = face.hair.T.unsqueeze(2).expand(-1, -1, flat.shape[2])
    return Mesh(flat, normals, albedo, shade, mark, None, grid_faces(rows, columns), HAIR)
