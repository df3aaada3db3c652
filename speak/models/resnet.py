"""ResNet trunks (He et al. 2016) for the encoders E_i, E_e, E_p, the judge and SyncNet, SPEAK Sec. 3.1.

The state dict of `ResNet(50)` is torchvision's `resnet50` without `fc.*` (likewise 18), so that published weights load
by dropping two keys. With group norm the keys keep their names and lose the running statistics.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from speak.errors import SpeakError

BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
GROUP = 8  # channels of a group of the group norm: the narrow nets keep several groups, the wide ones many
STAGES = ("layer1", "layer2", "layer3", "layer4")


def normalisation(kind: str, channels: int) -> nn.Module:
    """Batch norm, or group norm with groups of 8 channels, which is the same alone, in a batch and on many machines."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "group":
        return nn.GroupNorm(max(1, channels // GROUP), channels)
    raise SpeakError(f"unknown norm '{kind}': choose group or batch")


def resize_for_reading(
    frames: Tensor,  # [B, C, H, W]
    size: int,  # pixels of the square wanted
) -> Tensor:
    """Frames [B, C, size, size] for a net that reads small pictures: area averages when shrinking, else bilinear."""
    height, width = frames.shape[-2:]
    if (height, width) == (size, size):
        return frames
    if (height, width) == (2 * size, 2 * size):  # the usual case, four times faster than the pooling, and the same
        pairs = frames[..., ::2, :] + frames[..., 1::2, :]
        return (pairs[..., ::2] + pairs[..., 1::2]) / 4
    if height >= size and width >= size:
        return F.adaptive_avg_pool2d(frames, size)
    return F.interpolate(frames, size=(size, size), mode="bilinear", align_corners=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; the block of ResNet-18."""

    expansion = 1

    def __init__(self, channels_in: int, channels: int, stride: int, norm: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = normalisation(norm, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = normalisation(norm, channels)
        self.downsample = _shortcut(channels_in, channels, stride, norm)

    def forward(self, features: Tensor) -> Tensor:
        shortcut = features if self.downsample is None else self.downsample(features)
        features = F.relu(self.bn1(self.conv1(features)))
        return F.relu(self.bn2(self.conv2(features)) + shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3 (which takes the stride) and 1x1 convolutions and a shortcut; the block of ResNet-50."""

    expansion = 4

    def __init__(self, channels_in: int, channels: int, stride: int, norm: str) -> None:
        super().__init__()
        channels_out = self.expansion * channels
        self.conv1 = nn.Conv2d(channels_in, channels, 1, bias=False)
        self.bn1 = normalisation(norm, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn2 = normalisation(norm, channels)
        self.conv3 = nn.Conv2d(channels, channels_out, 1, bias=False)
        self.bn3 = normalisation(norm, channels_out)
        self.downsample = _shortcut(channels_in, channels_out, stride, norm)

    def forward(self, features: Tensor) -> Tensor:
        shortcut = features if self.downsample is None else self.downsample(features)
        features = F.relu(self.bn1(self.conv1(features)))
        features = F.relu(self.bn2(self.conv2(features)))
        return F.relu(self.bn3(self.conv3(features)) + shortcut)


def _shortcut(channels_in: int, channels_out: int, stride: int, norm: str) -> nn.Module | None:
    if stride == 1 and channels_in == channels_out:
        return None
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), normalisation(norm, channels_out))


class ResNet(nn.Module):
    """ResNet trunk without its classifier.

    depth: 18 or 50. width: channels of the first stage (64 is the published net). norm: "batch" or "group".
    channels_in: 3 for a frame, more for several frames stacked. `channels`: width of what `forward` returns;
    `stage_channels`: of each of `stages`.
    """

    def __init__(self, depth: int, width: int = 64, norm: str = "batch", channels_in: int = 3) -> None:
        super().__init__()
        if depth not in BLOCKS:
            raise SpeakError(f"no ResNet-{depth} here: choose {' or '.join(str(known) for known in BLOCKS)}")
        block = BasicBlock if depth == 18 else Bottleneck
        self.conv1 = nn.Conv2d(channels_in, width, 7, 2, 3, bias=False)
        self.bn1 = normalisation(norm, width)
        channels, self.stage_channels = width, []
        for stage, (name, blocks) in enumerate(zip(STAGES, BLOCKS[depth], strict=True)):
            layers = []
            for index in range(blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                layers.append(block(channels, width << stage, stride, norm))
                channels = (width << stage) * block.expansion
            setattr(self, name, nn.Sequential(*layers))
            self.stage_channels.append(channels)
        self.channels = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stages(
        self,
        frames: Tensor,  # [B, channels_in, H, W]
    ) -> dict[str, Tensor]:
        """Features after each of layer1 ... layer4: [B, C, H / 4, W / 4] ... [B, channels, H / 32, W / 32]."""
        features = F.max_pool2d(F.relu(self.bn1(self.conv1(frames))), 3, 2, 1)
        found = {}
        for name in STAGES:
            features = getattr(self, name)(features)
            found[name] = features
        return found

    def forward(
        self,
        frames: Tensor,  # [B, channels_in, H, W]
    ) -> Tensor:
        """Features of the last stage [B, channels, H / 32, W / 32]."""
        return self.stages(frames)[STAGES[-1]]
