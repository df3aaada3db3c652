"""The judge: one net that reads landmarks, pose, mouth opening, emotion and identity from a frame.

Ours (METHOD, "What shows that it works"): the instrument that measures disentanglement. It is trained on rendered
frames and used in no loss. Its second look is a step of cascaded shape regression (Xiong and De la Torre, "Supervised
Descent Method", CVPR 2013) with a hidden layer: features at the landmarks first read correct all readings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speak.config import EMOTIONS, LANDMARKS, POSE_CENTRE, POSE_NAMES, POSE_SPREAD, JudgeConfig
from speak.models.codes import at_least_float32
from speak.models.resnet import STAGES, ResNet, resize_for_reading

NECK = 64  # channels a place keeps on its way to the head: where a landmark lies is a matter of places
NECK_PLACES = 4  # the head sees the face as 4 x 4 places
NEAR = 8  # channels of the first stage that the second look sees at each landmark


@dataclasses.dataclass(frozen=True)
class Reading:
    """What the judge reads from B frames, in float32."""

    landmarks: Tensor  # [B, 68, 2], x and y in pixels of the frames given; pixel centres are whole numbers
    pose: Tensor  # [B, 6]: yaw, pitch, roll in degrees, x, y, scale in image widths
    mouth_opening: Tensor  # [B], in the unit of the labels it was trained on
    emotion_logits: Tensor  # [B, 8]
    identity: Tensor  # [B, embedding_dim], unit length


class Judge(nn.Module):
    """ResNet trunk, a 4x4 neck that keeps places apart, one linear head a reading, and a second look at details."""

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
        self.second_look: nn.Sequential | None = None
        if config.second_look:
            self.corrected = {name: self.heads[name].out_features for name in self.heads if name != "identity"}
            self.near = nn.Conv2d(self.trunk.stage_channels[0], NEAR, 3, padding=1)
            self.second_look = nn.Sequential(
                nn.Linear(LANDMARKS * (2 + NEAR), config.second_look), nn.ReLU(),
                nn.Linear(config.second_look, sum(self.corrected.values())),
            )  # fmt: skip
            with torch.no_grad():  # corrections begin small
                self.second_look[-1].weight *= 0.1
                self.second_look[-1].bias *= 0.1
        self.register_buffer("pose_centre", torch.tensor(POSE_CENTRE), persistent=False)
        self.register_buffer("pose_spread", torch.tensor(POSE_SPREAD), persistent=False)

    def forward(
        self,
        frames: Tensor,  # [B, 3, H, W] in [-1, 1], square
    ) -> Reading:
        return self.read(self.trunk.stages(resize_for_reading(frames, self.image_size)), frames.shape[-1])

    def read(
        self,
        stages: Mapping[str, Tensor],  # the trunk's features, by name of the stage
        size: int,  # pixels of a side of the frames that landmarks are counted in
    ) -> Reading:
        """What the heads make of the trunk's features."""
        features = stages[STAGES[-1]]
        places = F.adaptive_avg_pool2d(F.relu(self.neck(features)), NECK_PLACES).flatten(1)
        read = {name: at_least_float32(self.heads[name](places)) for name in self.heads if name != "identity"}
        identity = at_least_float32(self.heads["identity"](features.mean((2, 3))))
        if self.second_look is not None:
            corrections = self._look_again(stages[STAGES[0]], read["landmarks"])
            read = {name: read[name] + corrections[name] for name in read}
        # A head of 0 puts every landmark at the middle of the picture; 1 is half a picture away.
        landmarks = (read["landmarks"].unflatten(1, (LANDMARKS, 2)) + 1) * (size / 2) - 0.5
        return Reading(
            landmarks=landmarks,
            pose=self.pose_centre + self.pose_spread * read["pose"],
            mouth_opening=read["mouth_opening"][:, 0],
            emotion_logits=read["emotion"],
            identity=F.normalize(identity, dim=-1),
        )

    def _look_again(
        self,
        fine: Tensor,  # of the trunk's first stage [B, C, h, w]
        landmarks: Tensor,  # [B, 136] as first read: 0 is the middle of the picture, 1 half a picture away
    ) -> dict[str, Tensor]:
        """What to add to each reading; where it looks takes no gradient."""
        where = landmarks.detach().unflatten(1, (LANDMARKS, 1, 2))
        near = F.grid_sample(at_least_float32(self.near(fine)), where, align_corners=False)
        found = at_least_float32(self.second_look(torch.cat([where.flatten(1), near.flatten(1)], 1)))
        return dict(zip(self.corrected, found.split(list(self.corrected.values()), 1), strict=True))
