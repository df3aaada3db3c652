"""Renders people: a head in three dimensions from exact numbers, with its landmarks, for a whole batch at once.

The head's frame is right-handed: x to the image's right, y up, z out of the face towards the viewer. So yaw is
positive when the nose turns to the image's right, pitch when it turns down, roll when the crown turns to the image's
left. A unit of length is about half a head; at scale 1 it is `UNIT` image widths.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from speak.synthetic.detail import detail_of
from speak.synthetic.expression import decode_expression
from speak.synthetic.features import mouth_opening
from speak.synthetic.hair import hair
from speak.synthetic.identity import decode_identity
from speak.synthetic.landmarks import landmark_points
from speak.synthetic.openings import paint_eyes, paint_mouth
from speak.synthetic.paint import paint_beard, paint_skin
from speak.synthetic.parts import BODY, SKIN, Mesh, body, ears, glasses, paint_body
from speak.synthetic.raster import Samples, rasterise
from speak.synthetic.scene import Scene, background_colour
from speak.synthetic.shading import develop, light_surface
from speak.synthetic.shapes import Numbers, mix, put, unit
from speak.synthetic.skin import head_skin
from speak.synthetic.surface import stations_of

UNIT = 0.300  # image widths a head unit at scale 1
_CAMERA = 9.0  # head units from the viewer to the neck's axis
_PIVOT = (0.0, -0.35, -0.15)  # the head turns about the top of the neck
_WAIST = (0.0, -1.70, -0.20)  # the shoulders turn a little, about this
_MIDDLE = 0.05  # height that lies in the picture's middle when x and y are 0
_SHAPED_AT_ONCE = 32  # pictures whose surfaces a CPU makes together
_DRAWN_AT_ONCE = 1 << 17  # pixels that it draws together: more no longer fit its caches
_DEPTH_EDGE = 0.10  # a jump of depth, head units, that is smoothed like an edge


@dataclasses.dataclass
class Rendered:
    """Pictures and their truth.

    frames: [B, 3, S, S] RGB in [-1, 1]. landmarks: [B, 68, 2] iBUG, pixels x and y, a pixel's middle at whole numbers.
    mouth_opening: [B] gap of the inner lips, 0 shut, about 1 widest. visible: [B, S, S] in [0, 1], how much of a pixel
    the person covers.
    """

    frames: Tensor
    landmarks: Tensor
    mouth_opening: Tensor
    visible: Tensor


def rotation(yaw: Tensor, pitch: Tensor, roll: Tensor) -> Tensor:  # [B] degrees -> [B, 3, 3]
    """Turns the head's frame into the viewer's: roll after yaw after pitch."""
    cy, sy = torch.cos(torch.deg2rad(yaw)), torch.sin(torch.deg2rad(yaw))
    cp, sp = torch.cos(torch.deg2rad(pitch)), torch.sin(torch.deg2rad(pitch))
    cr, sr = torch.cos(torch.deg2rad(roll)), torch.sin(torch.deg2rad(roll))
    rows = [cr * cy, cr * sy * sp - sr * cp, cr * sy * cp + sr * sp,
            sr * cy, sr * sy * sp + cr * cp, sr * sy * cp - cr * sp,
            -sy, cy * sp, cy * cp]  # fmt: skip
    return torch.stack(rows, 1).reshape(-1, 3, 3)


def _turn(matrix: Tensor, points: Tensor) -> Tensor:
    """[B, 3, 3] on [3, B, V], written out so that a picture does not depend on its neighbours in the batch."""
    x, y, z = points.unbind(0)
    rows = [matrix[:, row, 0:1] * x + matrix[:, row, 1:2] * y + matrix[:, row, 2:3] * z for row in range(3)]
    return torch.stack(rows)


class _Camera:
    """Where the points of head and torso fall in the picture."""

    def __init__(self, pose: Tensor, size: int) -> None:
        yaw, pitch, roll, self.x, self.y, self.scale = pose.unbind(1)
        self.size = size
        self.head = rotation(yaw, pitch, roll)
        self.torso = rotation(yaw * 0.30, pitch * 0.08, roll * 0.22)
        self.pivot = torch.tensor(_PIVOT, device=pose.device)[:, None, None]
        self.waist = torch.tensor(_WAIST, device=pose.device)[:, None, None]
        # The neck's top goes with the shoulders, and takes the head along.
        self.carry = _turn(self.torso, (self.pivot - self.waist).expand(3, pose.shape[0], 1)) + self.waist

    def place(self, mesh: Mesh) -> tuple[Tensor, Tensor]:
        """A surface's points and normals [3, B, V] in the viewer's frame."""
        turned, normals = self.turn(mesh.points), _turn(self.head, mesh.normals)
        if mesh.follow is None:
            return turned, normals
        along = mesh.follow.expand_as(turned)
        rest = _turn(self.torso, mesh.points - self.waist) + self.waist
        return torch.lerp(rest, turned, along), torch.lerp(_turn(self.torso, mesh.normals), normals, along)

    def turn(self, points: Tensor) -> Tensor:
        """Points [3, B, V] of the head in the viewer's frame."""
        return _turn(self.head, points - self.pivot) + self.carry

    def project(self, points: Tensor) -> Tensor:
        """[3, B, V] in the viewer's frame to [2, B, V] pixels, continuous (pixel i spans i to i + 1)."""
        x, y, z = points.unbind(0)
        zoom = (UNIT * self.size * self.scale)[:, None] * (_CAMERA / (_CAMERA - z))
        across = self.size * (0.5 + self.x[:, None]) + zoom * x
        down = self.size * (0.5 + self.y[:, None]) - zoom * (y - _MIDDLE)
        return torch.stack([across, down])


def render(
    identity: Tensor,  # [B, K] in [0, 1], IDENTITY_NAMES
    pose: Tensor,  # [B, 6] POSE_NAMES: degrees; x to the right and y down in image widths, scale 1 is the usual size
    emotion_weights: Tensor,  # [B, 8] strengths in the order of EMOTIONS, rows sum to 1 at most
    mouth: Tensor,  # [B, 6] in [0, 1], MOUTH_NAMES
    eyes: Tensor,  # [B, 4] EYE_NAMES: blinks in [0, 1], gaze in [-1, 1]
    scene: Scene,
    size: int = 256,
) -> Rendered:
    """Pictures of people with their landmarks. Same numbers, same bytes on the CPU; all on the device of `identity`."""
    inputs = (identity, pose, emotion_weights, mouth, eyes)
    at_once = _SHAPED_AT_ONCE if identity.device.type == "cpu" else identity.shape[0]
    parts = [_render(*(value[start : start + at_once] for value in inputs), scene[start : start + at_once], size)
             for start in range(0, identity.shape[0], at_once)]  # fmt: skip
    if len(parts) == 1:
        return parts[0]
    names = [field.name for field in dataclasses.fields(Rendered)]
    return Rendered(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def _render(
    identity: Tensor, pose: Tensor, emotion_weights: Tensor, mouth: Tensor, eyes: Tensor, scene: Scene, size: int
) -> Rendered:
    person = decode_identity(identity)
    plain = Numbers({**person, **decode_expression(person, emotion_weights, mouth, eyes)})
    face = plain.columns()
    stations = stations_of(plain)
    detail = detail_of(size)
    skin = head_skin(face, plain, stations, detail)
    meshes = [skin, ears(plain, stations, detail), *hair(plain, stations, detail), body(face, plain, detail),
              glasses(plain, stations, detail)]

    camera = _Camera(pose, size)
    placed = [camera.place(mesh) for mesh in meshes]
    points = torch.cat([point for point, _ in placed], 2)
    surfaces = _Surfaces(camera.project(points), points[2], torch.cat([
        torch.cat([mesh.points for mesh in meshes], 2),
        torch.cat([normals for _, normals in placed], 2),
        torch.cat([mesh.albedo for mesh in meshes], 2),
        torch.cat([mesh.shade for mesh in meshes], 1).unsqueeze(0),
        torch.cat([mesh.mark for mesh in meshes], 2),
    ]), *_topology(meshes))  # fmt: skip
    landmarks = camera.project(camera.turn(landmark_points(face, skin, camera.head, detail))) - 0.5
    count = identity.shape[0]
    step = max(1, _DRAWN_AT_ONCE // size**2) if identity.device.type == "cpu" else count
    drawn = [_draw(surfaces, slice(first, first + step), plain, scene, camera) for first in range(0, count, step)]
    frames, visible = (torch.cat(parts) for parts in zip(*drawn, strict=True))
    return Rendered(frames, landmarks.permute(1, 2, 0).contiguous(), mouth_opening(plain), visible)


@dataclasses.dataclass
class _Surfaces:
    """All surfaces of all pictures as one mesh."""

    screen: Tensor  # [2, B, V] pixels
    depth: Tensor  # [B, V]
    attributes: Tensor  # [12, B, V]: point and normal, albedo, shade, mark
    faces: Tensor  # [F, 3]
    parts: Tensor  # [F]


def _draw(surfaces: _Surfaces, which: slice, plain: Numbers, scene: Scene, camera: _Camera) -> tuple[Tensor, Tensor]:
    """Frames and cover of some of the pictures."""
    samples = rasterise(surfaces.screen[:, which], surfaces.depth[which], surfaces.faces, surfaces.parts, camera.size,
                        _DEPTH_EDGE)
    samples.picture += which.start
    colour = _shade(samples, surfaces, plain, scene, camera)
    return _compose(samples, colour, scene[which], camera.size)


def _topology(meshes: list[Mesh]) -> tuple[Tensor, Tensor]:
    faces, parts, vertex = [], [], 0
    for mesh in meshes:
        faces.append(mesh.faces.to(mesh.points.device) + vertex)
        parts.append(torch.full((mesh.faces.shape[0],), mesh.part, device=mesh.points.device))
        vertex += mesh.points.shape[2]
    return torch.cat(faces), torch.cat(parts)


def _shade(samples: Samples, surfaces: _Surfaces, plain: Numbers, scene: Scene, camera: _Camera) -> Tensor:
    """Developed colour [3, N] in [0, 1] of every sample."""
    corners = surfaces.faces.T.contiguous().index_select(1, samples.face)
    first, second, third = corners + samples.picture * surfaces.depth.shape[1]
    table = surfaces.attributes.flatten(1)
    mixed = table.index_select(1, first) * samples.weights[0]
    mixed.addcmul_(table.index_select(1, second), samples.weights[1])
    mixed.addcmul_(table.index_select(1, third), samples.weights[2])
    point, normal, albedo = mixed[:3], unit(mixed[3:6], 1e-6), mixed[6:9].clamp(min=0)
    shade, mark = mixed[9].clamp(0, 1), mixed[10:]
    part = surfaces.parts[samples.face]
    gloss = torch.ones_like(shade)
    pixel = 1 / (UNIT * camera.size * camera.scale)

    skin = (part == SKIN).nonzero().squeeze(1)
    owner, on_skin = samples.picture[skin], point.index_select(1, skin)
    bare, shiny = paint_skin(plain, owner, on_skin, albedo.index_select(1, skin), gloss[skin], pixel[owner])
    beard = mark[0].index_select(0, skin)
    hairy = (beard > 0.05).nonzero().squeeze(1)
    painted = paint_beard(plain.at(owner[hairy]), on_skin.index_select(1, hairy), bare.index_select(1, hairy),
                          shiny[hairy], beard[hairy])
    for under, over in ((bare, painted[0]), (shiny, painted[1])):
        put(under, hairy, over)
    cloth = (part == BODY).nonzero().squeeze(1)
    owner_cloth = samples.picture[cloth]
    dressed, dull = paint_body(plain.at(owner_cloth), point.index_select(1, cloth), albedo.index_select(1, cloth),
                               gloss[cloth], pixel[owner_cloth])
    for under, where, over in ((albedo, skin, bare), (gloss, skin, shiny), (albedo, cloth, dressed),
                               (gloss, cloth, dull)):
        put(under, where, over)

    light, tint = scene.light.T.contiguous().split(3)
    light = unit(light)
    lit = light_surface(part, normal, albedo, shade, gloss, mark, light.index_select(1, samples.picture),
                        tint.index_select(1, samples.picture))

    # Eyes and mouth show through openings of the skin, each lit in its own way.
    view = camera.head[:, 2, :].T.contiguous()
    head_light = (camera.head * light.T.unsqueeze(2)).sum(1).T.contiguous()
    x, y, z = on_skin.unbind(0)
    eyes = ((y.abs() < 0.26) & (z > 0.2) & (x.abs() < 0.62)).nonzero().squeeze(1)
    mouths = ((y < -0.35) & (y > -1.2) & (z > 0.35) & (x.abs() < 0.5)).nonzero().squeeze(1)
    for chosen, paint, directions in ((eyes, paint_eyes, (view, head_light)), (mouths, paint_mouth, (view,))):
        who, target = owner[chosen], skin[chosen]
        towards = (direction.index_select(1, who) for direction in directions)
        seen, alpha = paint(plain.at(who), on_skin.index_select(1, chosen), *towards, pixel[who])
        put(lit, target, mix(lit.index_select(1, target), seen * tint.index_select(1, who) * 1.05, alpha))
    return develop(lit)


def _compose(samples: Samples, colour: Tensor, scene: Scene, size: int) -> tuple[Tensor, Tensor]:
    """Frames [B, 3, S, S] in [-1, 1] and how much of each pixel the person covers, [B, S, S]."""
    back = background_colour(scene, size)  # [3, B, S, S]
    flat = back.flatten(1)
    visible = torch.zeros(flat.shape[1], device=flat.device)
    put(flat, samples.whole, colour[:, : samples.whole.numel()])
    visible[samples.whole] = 1.0
    padded = torch.cat([colour, torch.zeros_like(colour[:, :1])], 1)
    drawn = samples.edge_sample < colour.shape[1]
    quarter = padded.index_select(1, samples.edge_sample.reshape(-1)).unflatten(1, (-1, 4))
    quarter = torch.where(drawn, quarter, flat.index_select(1, samples.edge).unsqueeze(2))
    put(flat, samples.edge, quarter.mean(2))
    visible[samples.edge] = drawn.to(visible.dtype).mean(1)
    batch = back.shape[1]
    frames = (flat * 2 - 1).unflatten(1, (batch, size, size)).movedim(0, 1)
    return frames.contiguous(), visible.reshape(batch, size, size)

