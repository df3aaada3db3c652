"""The photo itself in the frames: bent to what G_g shows, and blended with it. Ours: the paper's frames are G_g's.

A code of a few hundred numbers cannot hold a face, so what G_g makes is somebody like the person. But it shows where
everything is to be, and the photo shows how it looks. A small net compares the two, from coarse to fine as optical flow
is estimated (Sun et al. 2018), and says for each place of the frame where in the photo it is seen, and how far the
photo is right there: not where it is hidden, and not where mouth and eyes do something else. There G_g's picture is
taken, bent as well: a face that it makes of a stranger has its eyes and its mouth a little elsewhere. What it makes of
the photo as it is tells the net how much elsewhere, and what of a frame is motion; where G_g's two pictures differ, the
difference may be added to the photo. From which pose to which the head turns, it reads from f_P as well: that, and the
nose in the photo, say better where the nose is to be than what G_g makes of somebody.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speak.config import PhotoWarpConfig

REACH = 2  # places to each side that features are compared over, at every scale
SHIFTS = (2 * REACH + 1) ** 2


@dataclasses.dataclass(frozen=True)
class Portrait:
    """B people as their photos show them, and as G_g does."""

    photos: Tensor  # [B, 3, H, W] in [-1, 1]
    rebuilt: Tensor  # G_g's picture of the same, with the photo's pose and emotion [B, 3, h, w]
    pose: Tensor  # f_P of the photos [B, D_P]


class PhotoWarp(nn.Module):
    """From G_g's picture and the photo to the frame, at the photo's size.

    The net reads both at `config.image_size`; where the photo is larger, the flow is enlarged, and the photo's detail
    stays. New weights leave G_g's picture nearly as it is.
    """

    def __init__(self, config: PhotoWarpConfig, pose_dim: int) -> None:
        super().__init__()
        self.size = config.image_size
        self.poses = nn.Linear(2 * pose_dim, config.poses) if config.poses else None
        widths = [config.width, 2 * config.width, 2 * config.width]  # at a half, a quarter, an eighth of the size
        self.features = nn.ModuleList(_block(a, b, stride=2) for a, b in zip([3, *widths[:-1]], widths, strict=True))
        coarse = 2 * SHIFTS + 3 * config.poses  # what the finest level has not: there is little left to find
        compared = [3 * width + 4 + (coarse if level else 0) for level, width in enumerate(widths)]
        above = [*widths[1:], 0]
        self.compare = nn.ModuleList(_block(a + b, w) for a, b, w in zip(compared, above, widths, strict=True))
        self.move = nn.ModuleList(_still(width, 4) for width in widths)
        self.finish = _block(9 + 4 + widths[0], 2 * config.width // 3)
        self.last = _still(2 * config.width // 3, 9)
        with torch.no_grad():
            self.last.bias[4:6] = -2.0

    def forward(
        self,
        pictures: Tensor,  # G_g's [B * N, 3, h, w], about [-1, 1]
        pose: Tensor,  # f_P that they were made with [B * N, D_P]
        portrait: Portrait,  # of B people
    ) -> Tensor:
        """Frames [B * N, 3, H, W], about [-1, 1], float32."""
        return self.compose(pictures, pose, portrait)[0]

    def compose(self, pictures: Tensor, pose: Tensor, portrait: Portrait) -> tuple[Tensor, Tensor]:
        """The frames, and the bent photos alone, [B * N, 3, H, W] each."""
        pictures, photos, each = pictures.float(), portrait.photos, len(pictures) // len(portrait.photos)
        flow, share, more, change = self.look(pictures, pose, portrait)
        warped = warp(photos.repeat_interleave(each, 0), _resized(flow[:, :2], photos))
        painted = warp(pictures, _resized(flow[:, 2:], pictures))
        before = warp(portrait.rebuilt.repeat_interleave(each, 0), _resized(flow[:, :2], portrait.rebuilt))
        change = _resized(more, pictures) * (painted - before) + _resized(change, pictures)
        frames = torch.lerp(_resized(painted, photos, "bicubic"), warped, _resized(share, photos))
        return frames + _resized(change, photos, "bicubic"), warped

    def look(self, pictures: Tensor, pose: Tensor, portrait: Portrait) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """At the net's size: flow [B * N, 4, S, S] in halves of the side, x and y from a place of the frame to the one
        in the photo, and to the one in G_g's picture; in [0, 1] [B * N, 1, S, S] the photo's share, and that of what
        differs between G_g's pictures; what else is added, in [-2, 2] [B * N, 3, S, S]."""
        each = len(pictures) // len(portrait.photos)
        pictures, photos, rebuilt = (
            F.interpolate(part, size=[self.size] * 2, mode="area")
            for part in (pictures, portrait.photos, portrait.rebuilt)
        )
        shown = self._pyramid(pictures)
        seen, before = ([part.repeat_interleave(each, 0) for part in self._pyramid(of)] for of in (photos, rebuilt))
        turned = self._turned(pose, portrait.pose.repeat_interleave(each, 0))
        hidden = flow = None
        for level in reversed(range(len(shown))):
            here = shown[level]
            if hidden is None:
                flow, above = here.new_zeros(len(here), 4, *here.shape[2:]), []
            else:
                flow, above = _resized(flow, here), [_resized(hidden, here)]
            here, *there = warp(here, flow[:, 2:]), warp(seen[level], flow[:, :2]), warp(before[level], flow[:, :2])
            alike = [likeness(here, other) for other in there] if level else []
            where = [over_places(turned, *here.shape[2:])] if level and turned is not None else []
            hidden = self.compare[level](torch.cat([here, *there, flow, *alike, *above, *where], 1))
            flow = (flow + 0.1 * self.move[level](hidden).float()).clamp(-1, 1)
        flow = _resized(flow, pictures)
        bent = [warp(part.repeat_interleave(each, 0), flow[:, :2]) for part in (photos, rebuilt)]
        hidden = self.finish(torch.cat([warp(pictures, flow[:, 2:]), *bent, flow, _resized(hidden, pictures)], 1))
        last = self.last(hidden).float()
        return flow + 0.1 * last[:, :4], last[:, 4:5].sigmoid(), last[:, 5:6].sigmoid(), 2 * (last[:, 6:] / 2).tanh()

    def _turned(self, pose: Tensor, pose_in_photo: Tensor) -> Tensor | None:  # [B * N, config.poses]
        return None if self.poses is None else self.poses(torch.cat([pose, pose_in_photo], 1))

    def _pyramid(self, pictures: Tensor) -> list[Tensor]:
        levels = []
        for block in self.features:
            pictures = block(pictures)
            levels.append(pictures)
        return levels


def warp(
    pictures: Tensor,  # [B, C, H, W]
    flow: Tensor,  # [B, 2, H, W], x and y in halves of the side
) -> Tensor:
    """What is seen at each place plus its flow, bilinear, float32; beyond the edge what is at the edge."""
    still = torch.eye(2, 3, device=flow.device).expand(len(flow), -1, -1)
    grid = F.affine_grid(still, [len(flow), 1, *flow.shape[2:]], align_corners=False)
    return F.grid_sample(
        pictures.float(), grid + flow.permute(0, 2, 3, 1), padding_mode="border", align_corners=False
    )


def likeness(here: Tensor, there: Tensor) -> Tensor:  # [B, C, H, W] each -> [B, SHIFTS, H, W]
    """Mean product of the features at a place with those of the other at the places around it."""
    height, width = here.shape[2:]
    there = F.pad(there, (REACH,) * 4)
    return torch.stack([
        (here * there[:, :, y : y + height, x : x + width]).mean(1)
        for y in range(2 * REACH + 1) for x in range(2 * REACH + 1)
    ], 1)  # fmt: skip


def over_places(numbers: Tensor, height: int, width: int) -> Tensor:  # [B, K] -> [B, 3 K, height, width]
    """The numbers at every place, then times x, then times y in halves of the side: a turn moves places differently."""
    still = torch.eye(2, 3, device=numbers.device)[None]
    grid = F.affine_grid(still, [1, 1, height, width], align_corners=False).permute(0, 3, 1, 2).to(numbers.dtype)
    weights = torch.cat([torch.ones_like(grid[:, :1]), grid], 1)  # [1, 3, height, width]
    return (weights[:, :, None] * numbers[:, None, :, None, None]).flatten(1, 2)


def _block(channels_in: int, channels: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, 3, stride, 1), nn.LeakyReLU(0.1),
        nn.Conv2d(channels, channels, 3, 1, 1), nn.LeakyReLU(0.1),
    )  # fmt: skip


def _still(channels_in: int, channels: int) -> nn.Conv2d:
    """A convolution that begins with nearly 0."""
    layer = nn.Conv2d(channels_in, channels, 3, 1, 1)
    with torch.no_grad():
        layer.weight *= 0.1
        layer.bias.zero_()
    return layer


def _resized(pictures: Tensor, like: Tensor, mode: str = "bilinear") -> Tensor:
    if pictures.shape[2:] == like.shape[2:]:
        return pictures
    return F.interpolate(pictures.float(), size=like.shape[2:], mode=mode, align_corners=False)
