"""What eyes do, read from a look at them from nearby: E_p's ResNet sees too little of a few pixels. Ours.

The paper's pose video moves the head. People who never blink look dead, and where eyes look and when they shut nothing
else says: so they go with the pose. Where the eyes are, E_p's own code tells.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speak.config import EYE_NAMES
from speak.models.codes import at_least_float32

HEIGHT, WIDTH = 24, 48  # of what is looked at
MARGIN = 1.25  # times the distance from the middle to an outer corner of the eyes


class EyeReader(nn.Module):
    """From a frame and its f_P to EYE_NAMES, and what they add to f_P.

    New weights add nothing: `codes` is 0.
    """

    def __init__(self, width: int, code_dim: int) -> None:
        super().__init__()
        self.place = nn.Sequential(nn.Linear(code_dim, 64), nn.SiLU(), nn.Linear(64, 4))
        self.net = nn.Sequential(
            nn.Conv2d(3, width, 3, 1, 1), nn.LeakyReLU(0.1),
            nn.Conv2d(width, 2 * width, 3, 2, 1), nn.LeakyReLU(0.1),
            nn.Conv2d(2 * width, 2 * width, 3, 2, 1), nn.LeakyReLU(0.1), nn.Flatten(),
            nn.Linear(2 * width * (HEIGHT // 4) * (WIDTH // 4), 64), nn.LeakyReLU(0.1), nn.Linear(64, len(EYE_NAMES)),
        )  # fmt: skip
        self.codes = nn.Parameter(torch.zeros(len(EYE_NAMES), code_dim))
        with torch.no_grad():  # about the middle of the picture, a little above it
            self.place[-1].weight *= 0.1
            self.place[-1].bias.copy_(torch.tensor([0.0, -0.1, 0.25, 0.0]))

    def forward(
        self,
        frames: Tensor,  # [B, 3, H, W] in [-1, 1]
        pose: Tensor,  # f_P of the head [B, D_P]
    ) -> Tensor:
        """What is added to f_P [B, D_P], float32."""
        return self.read(frames, pose) @ at_least_float32(self.codes)

    def read(self, frames: Tensor, pose: Tensor) -> Tensor:
        """[B, 4], EYE_NAMES: blinks about [0, 1], gaze about [-1, 1]; float32. No gradient goes where it looks."""
        with torch.no_grad():
            middle, right = self.where(pose).split(2, 1)  # [B, 2] each
            down = torch.stack([-right[:, 1], right[:, 0]], 1)
            turned = MARGIN * torch.stack([right, down * HEIGHT / WIDTH], 2)  # [B, 2, 2]
            theta = torch.cat([turned, middle[:, :, None]], 2).float()
            grid = F.affine_grid(theta, [len(frames), 3, HEIGHT, WIDTH], align_corners=False)
        near = F.grid_sample(frames.float(), grid, padding_mode="border", align_corners=False)
        return at_least_float32(self.net(near.to(frames.dtype)))

    def where(self, pose: Tensor) -> Tensor:
        """[B, 4] in halves of the side: x, y between the eyes; from there x, y to the right one's outer corner."""
        with torch.autocast(pose.device.type, enabled=False):
            return self.place(pose.to(self.place[0].weight.dtype))

