"""The judge: one net that reads landmarks, pose, mouth opening, emotion and identity from a frame.

Ours (METHOD, "What shows that it works"): the instrument that measures disentanglement. It is trained on rendered
frames and used in no loss.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speak.config import EMOTIONS, LANDMARKS, POSE_CENTRE, POSE_NAMES, POSE_SPREAD, JudgeConfig
from speak.models.codes import at_least_float32
from speak.models.resnet import ResNet, resize_for_reading

NECK = 64  # channels a place keeps on its way to the head: where a landmark lies is a matter of places
NECK_PLACES = 4  # the head sees the face as 4 x 4 places


@dataclasses.dataclass(frozen=True)
class Reading:
    """What the judge reads from B frames, in float32."""

    landmarks: Tensor  # [B, 68, 2], x and y in pixels of the frames given; pixel centres are whole numbers
    pose: Tensor  # [B, 6]: yaw, pitch, roll in degrees, x, y, scale in image widths
    mouth_opening: Tensor  # [B], in the unit of the labels it was trained on
    emotion_logits: Tensor  # [B, 8]
    identity: Tensor  # [B, embedding_dim], unit length


class Judge(nn.Module):
    """ResNet trunk, a 4x4 neck that keeps places apart, and one linear head a reading."""

    def __init__(self, config: JudgeConfig) -> None:
        super().__init__()
        self.image_size = config.image_size
        self.trunk = ResNet(config.depth, config.width, config.norm)
        self.neck = nn.Conv2d(self.trunk.channels, NECK, 1)
        places = NECK * NECK_PLACES**2
        self.heads = nn.ModuleDict(
            {
                "landmarks": nn.Linear(places, 2 * LANDMARKS),
                "pose": nn.Linear(places, len(POSE_NAMES)),
                "mouth_opening": nn.Linear(places, 1),
                "emotion": nn.Linear(places, len(EMOTIONS)),
                "identity": nn.Linear(self.trunk.channels, config.embedding_dim),
            }
        )
        self.register_buffer("pose_centre", torch.tensor(POSE_CENTRE), persistent=False)
        self.register_buffer("pose_spread", torch.tensor(POSE_SPREAD), persistent=False)

    def forward(
        self,
        frames: Tensor,  # [B, 3, H, W] in [-1, 1], square
    ) -> Reading:
        return self.read(self.trunk(resize_for_reading(frames, self.image_size)), frames.shape[-1])

    def read(
        self,
        features: Tensor,  # of the trunk's last stage [B, C, h, w]
        size: int,  # pixels of a side of the frames that landmarks are counted in
    ) -> Reading:
        """What the heads make of the trunk's features."""
        places = F.adaptive_avg_pool2d(F.relu(self.neck(features)), NECK_PLACES).flatten(1)
        read = {name: at_least_float32(self.heads[name](places)) for name in self.heads if name != "identity"}
        identity = at_least_float32(self.heads["identity"](features.mean((2, 3))))
        # A head of 0 puts every landmark at the middle of the picture; 1 is half a picture away.
        landmarks = (read["landmarks"].unflatten(1, (LANDMARKS, 2)) + 1) * (size / 2) - 0.5
        return Reading(
            landmarks=landmarks,
            pose=self.pose_centre + self.pose_spread * read["pose"],
            mouth_opening=read["mouth_opening"][:, 0],
            emotion_logits=read["emotion"],
            identity=F.normalize(identity, dim=-1),
        )
