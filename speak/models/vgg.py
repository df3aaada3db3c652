"""Features of a pretrained net for the perceptual loss L_vgg, SPEAK Eq. 13: VGG-16, VGG-19 or a rendered-face trunk.

`VGG` holds torchvision's `vgg16` / `vgg19` keys `features.*` and no classifier. None of its weights are shipped: the
user brings them, or takes the net of stage `perceptual` (`network="rendered"`): a judge of another seed, trained on
other rendered people (never the judge that measures, because what measures trains nothing).
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from speak.config import JudgeConfig, ModelConfig
from speak.errors import SpeakError
from speak.models.judge import Judge, Reading
from speak.models.resnet import STAGES, resize_for_reading

# Convolutions in each of the five blocks; a 2x2 max pooling ends each block.
CONVOLUTIONS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
CHANNELS = (64, 128, 256, 512, 512)
# What torchvision's published weights expect of an RGB picture in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class VGG(nn.Module):
    """VGG-16 or VGG-19 up to its last pooling (Simonyan & Zisserman 2015), torchvision's key layout."""

    def __init__(self, name: str) -> None:
        super().__init__()
        if name not in CONVOLUTIONS:
            raise SpeakError(f"unknown VGG '{name}': choose {' or '.join(CONVOLUTIONS)}")
        self.layer_names: list[str] = []  # of each module of `features`: conv1_1, relu1_1, ..., pool5
        layers: list[nn.Module] = []
        channels = 3
        for block, (count, width) in enumerate(zip(CONVOLUTIONS[name], CHANNELS, strict=True), start=1):
            for index in range(1, count + 1):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                self.layer_names += [f"conv{block}_{index}", f"relu{block}_{index}"]
                channels = width
            layers.append(nn.MaxPool2d(2, 2))
            self.layer_names.append(f"pool{block}")
        self.features = nn.Sequential(*layers)

    def forward(
        self,
        pictures: Tensor,  # [B, 3, H, W], normalised with IMAGENET_MEAN and IMAGENET_STD
        layers: tuple[str, ...],  # such as ("relu1_2", "relu3_3")
    ) -> list[Tensor]:
        """The features of `layers`, in the net's order; nothing after the last of them is computed."""
        wanted = set(layers)
        found = []
        for name, module in zip(self.layer_names, self.features, strict=True):
            pictures = module(pictures)
            if name in wanted:
                found.append(pictures)
            if len(found) == len(wanted):
                break
        return found


def perceptual_net(config: JudgeConfig) -> Judge:
    """The net of stage `perceptual`: a judge that looks once, which is what its features and readings need."""
    return Judge(dataclasses.replace(config, second_look=0))


class PerceptualFeatures(nn.Module):
    """Several layers' features of frames, for `losses.perceptual_loss`; frozen, and always in evaluation mode."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        self.config = config = model.perceptual
        self.net: Judge | VGG
        if config.network == "rendered":
            self.net = perceptual_net(model.judge)
            known: tuple[str, ...] | list[str] = STAGES
        else:
            self.net = VGG(config.network)
            known = self.net.layer_names
        unknown = [layer for layer in config.layers if layer not in known]
        if unknown:
            raise SpeakError(
                f"model.perceptual.layers: {config.network} has no {', '.join(unknown)}; it has {', '.join(known)}"
            )
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> PerceptualFeatures:
        return super().train(False)

    def forward(
        self,
        frames: Tensor,  # [B, 3, H, W] in [-1, 1]
    ) -> list[Tensor]:
        """Features [B, C, h, w] of the configured layers. Gradients reach the frames, never the weights."""
        if isinstance(self.net, Judge):
            return self.perceive(frames)[0]
        seen = self._sized(frames) / 2 + 0.5
        return self.net((seen - self.mean) / self.std, self.config.layers)

    def perceive(
        self,
        frames: Tensor,  # [B, 3, H, W] in [-1, 1]
    ) -> tuple[list[Tensor], Reading]:
        """The features and what the net reads from the same frames, in one pass. Raises SpeakError for a VGG."""
        if not isinstance(self.net, Judge):
            raise SpeakError(f"{self.config.network} reads no faces: set weight_reading=0 for its stage, or "
                             "model.perceptual.network=rendered")  # fmt: skip
        found = self.net.trunk.stages(self._sized(frames))
        return ([found[layer] for layer in STAGES if layer in self.config.layers],
                self.net.read(found, frames.shape[-1]))  # fmt: skip

    def _sized(self, frames: Tensor) -> Tensor:
        return resize_for_reading(frames, self.config.image_size) if self.config.image_size else frames
