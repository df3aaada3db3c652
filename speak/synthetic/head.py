"""Renders people: a head in three dimensions from exact numbers, with its landmarks, for a whole batch at once.

The head's frame is right-handed: x to the image's right, y up, z out of the face towards the viewer. So yaw is
positive when the nose turns to the image's right, pitch when it turns down, roll when the crown turns to the image's
left. A unit of length is about half a head; at scale 1 it is `UNIT` image widths.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from speak.synthetic.expression import decode_expression
from speak.synthetic.features import mouth_opening
from speak.synthetic.hair import hair
from speak.synthetic.identity import decode_identity
from speak.synthetic.landmarks import landmark_points
from speak.synthetic.openings import paint_eyes, paint_mouth
from speak.synthetic.paint import blend, paint_beard, paint_skin
from speak.synthetic.parts import BODY, SKIN, Mesh, body, ears, glasses, paint_body
from speak.synthetic.raster import Samples, rasterise
from speak.synthetic.scene import Scene, background_colour
from speak.synthetic.shading import develop, light_surface
from speak.synthetic.shapes import Numbers
from speak.synthetic.skin import head_skin
from speak.synthetic.surface import stations_of

UNIT = 0.300  # image widths a head unit at scale 1
_CAMERA = 9.0  # head units from the viewer to the neck's axis
_PIVOT = (0.0, -0.35, -0.15)  # the head turns about the top of the neck
_WAIST = (0.0, -1.70, -0.20)  # the shoulders turn a little, about this
_MIDDLE = 0.05  # height that lies in the picture's middle when x and y are 0
_AT_ONCE = 8  # pictures that a CPU renders together: more no longer fit its caches
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
    """[B, 3, 3] on [B, V, 3], written out so that a picture does not depend on its neighbours in the batch."""
    x, y, z = points.unbind(2)
    rows = [matrix[:, row, 0:1] * x + matrix[:, row, 1:2] * y + matrix[:, row, 2:3] * z for row in range(3)]
    return torch.stack(rows, 2)


class _Camera:
    """Where the points of head and torso fall in the picture."""

    def __init__(self, pose: Tensor, size: int) -> None:
        yaw, pitch, roll, self.x, self.y, self.scale = pose.unbind(1)
        self.size = size
        self.head = rotation(yaw, pitch, roll)
        self.torso = rotation(yaw * 0.30, pitch * 0.08, roll * 0.22)
        self.pivot = torch.tensor(_PIVOT, device=pose.device)
        self.waist = torch.tensor(_WAIST, device=pose.device)
        # The neck's top goes with the shoulders, and takes the head along.
        self.carry = (_turn(self.torso, (self.pivot - self.waist).expand(pose.shape[0], 1, 3)) + self.waist)

    def place(self, points: Tensor, normals: Tensor | None, follow: Tensor) -> tuple[Tensor, Tensor | None]:
        """Points [B, V, 3] and normals in the viewer's frame; follow as in Mesh."""
        turned = _turn(self.head, points - self.pivot) + self.carry
        along = follow.unsqueeze(-1)
        if bool((follow == 1).all()):
            return turned, None if normals is None else _turn(self.head, normals)
        rest = _turn(self.torso, points - self.waist) + self.waist
        if normals is not None:
            normals = torch.lerp(_turn(self.torso, normals), _turn(self.head, normals), along.expand_as(normals))
        return torch.lerp(rest, turned, along.expand_as(rest)), normals

    def project(self, points: Tensor) -> Tensor:
        """[B, V, 3] in the viewer's frame to [B, V, 2] pixels, continuous (pixel i spans i to i + 1)."""
        x, y, z = points.unbind(2)
        zoom = (UNIT * self.size * self.scale)[:, None] * (_CAMERA / (_CAMERA - z))
        across = self.size * (0.5 + self.x[:, None]) + zoom * x
        down = self.size * (0.5 + self.y[:, None]) - zoom * (y - _MIDDLE)
        return torch.stack([across, down], 2)


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
    at_once = _AT_ONCE if identity.device.type == "cpu" else identity.shape[0]
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
    skin = head_skin(face, plain, stations)
    meshes = [skin, ears(plain, stations), *hair(plain, stations), body(face, plain), glasses(plain, stations)]

    camera = _Camera(pose, size)
    placed = [camera.place(mesh.points, mesh.normals, mesh.follow) for mesh in meshes]
    points = torch.cat([point for point, _ in placed], 1)
    faces, parts = _topology(meshes)
    screen = camera.project(points)
    samples = rasterise(screen, points[..., 2], faces, parts, size, _DEPTH_EDGE)
    attributes = torch.cat([
        torch.cat([mesh.points for mesh in meshes], 1),
        torch.cat([normals for _, normals in placed], 1),
        torch.cat([mesh.albedo for mesh in meshes], 1),
        torch.cat([mesh.shade for mesh in meshes], 1).unsqueeze(2),
        torch.cat([mesh.mark for mesh in meshes], 1),
    ], 2)  # fmt: skip
    colour = _shade(samples, attributes, faces, parts, plain, scene, camera)
    frames, visible = _compose(samples, colour, scene, size)
    landmarks = camera.project(camera.place(*landmark_points(face, skin, camera.head))[0]) - 0.5
    return Rendered(frames, landmarks, mouth_opening(plain), visible)


def _topology(meshes: list[Mesh]) -> tuple[Tensor, Tensor]:
    faces, parts, vertex = [], [], 0
    for mesh in meshes:
        faces.append(mesh.faces.to(mesh.points.device) + vertex)
        parts.append(torch.full((mesh.faces.shape[0],), mesh.part, device=mesh.points.device))
        vertex += mesh.points.shape[1]
    return torch.cat(faces), torch.cat(parts)


def _shade(
    samples: Samples, attributes: Tensor, faces: Tensor, parts: Tensor, plain: Numbers, scene: Scene, camera: _Camera
) -> Tensor:
    """Developed colour [N, 3] in [0, 1] of every sample."""
    corner = faces[samples.face] + (samples.picture * attributes.shape[1]).unsqueeze(1)
    table = attributes.reshape(-1, attributes.shape[2])
    mixed = table.index_select(0, corner[:, 0]) * samples.weights[:, :1]
    for k in (1, 2):
        mixed.addcmul_(table.index_select(0, corner[:, k]), samples.weights[:, k : k + 1])
    point, normal, albedo = mixed[:, :3], mixed[:, 3:6], mixed[:, 6:9].clamp(min=0)
    shade, mark = mixed[:, 9].clamp(0, 1), mixed[:, 10:]
    normal = torch.nn.functional.normalize(normal, dim=1, eps=1e-6)
    part = parts[samples.face]
    gloss = torch.ones_like(shade)
    pixel = 1 / (UNIT * camera.size * camera.scale)

    def of(*which: int) -> Tensor:
        return torch.isin(part, torch.tensor(which, device=part.device)).nonzero().squeeze(1)

    skin = of(SKIN)
    owner = samples.picture[skin]
    on_skin = point[skin]
    bare, shiny = paint_skin(plain, owner, on_skin, albedo[skin], gloss[skin], pixel[owner])
    hairy = (mark[skin, 0] > 0.05).nonzero().squeeze(1)
    bare[hairy], shiny[hairy] = paint_beard(plain.at(owner[hairy]), on_skin[hairy], bare[hairy], shiny[hairy],
                                            mark[skin[hairy], 0])
    albedo[skin], gloss[skin] = bare, shiny
    cloth = of(BODY)
    owner_cloth = samples.picture[cloth]
    albedo[cloth], gloss[cloth] = paint_body(plain.at(owner_cloth), point[cloth], albedo[cloth], gloss[cloth],
                                             pixel[owner_cloth])

    light, tint = scene.light[:, :3], scene.light[:, 3:]
    light = torch.nn.functional.normalize(light, dim=1)
    lit = light_surface(part, normal, albedo, shade, gloss, mark, light[samples.picture], tint[samples.picture])

    # Eyes and mouth show through openings of the skin, each lit in its own way.
    view = camera.head[:, 2, :]
    head_light = (camera.head * light.unsqueeze(2)).sum(1)
    brightness = tint.unsqueeze(1)[:, 0]
    x, y, z = on_skin.unbind(1)
    eyes = ((y.abs() < 0.26) & (z > 0.2) & (x.abs() < 0.62)).nonzero().squeeze(1)
    mouths = ((y < -0.35) & (y > -1.2) & (z > 0.35) & (x.abs() < 0.5)).nonzero().squeeze(1)
    for chosen, paint in ((eyes, "eyes"), (mouths, "mouth")):
        who = owner[chosen]
        where = plain.at(who)
        at, width = on_skin[chosen], pixel[who]
        if paint == "eyes":
            seen, alpha = paint_eyes(where, at, view[who], head_light[who], width)
        else:
            seen, alpha = paint_mouth(where, at, view[who], width)
        target = skin[chosen]
        lit[target] = blend(lit[target], seen * brightness[who] * 1.05, alpha)
    return develop(lit)


def _compose(samples: Samples, colour: Tensor, scene: Scene, size: int) -> tuple[Tensor, Tensor]:
    """Frames [B, 3, S, S] in [-1, 1] and how much of each pixel the person covers, [B, S, S]."""
    back = background_colour(scene, size)  # [B, S, S, 3]
    flat = back.reshape(-1, 3).clone()
    visible = torch.zeros(flat.shape[0], device=flat.device)
    flat[samples.whole] = colour[: samples.whole.numel()]
    visible[samples.whole] = 1.0
    padded = torch.cat([colour, torch.zeros_like(colour[:1])])
    drawn = samples.edge_sample < colour.shape[0]
    quarter = torch.where(drawn.unsqueeze(2), padded[samples.edge_sample], flat[samples.edge].unsqueeze(1))
    flat[samples.edge] = quarter.mean(1)
    visible[samples.edge] = drawn.to(visible.dtype).mean(1)
    batch = back.shape[0]
    frames = flat.reshape(batch, size, size, 3).permute(0, 3, 1, 2) * 2 - 1
    return frames.contiguous(), visible.reshape(batch, size, size)

