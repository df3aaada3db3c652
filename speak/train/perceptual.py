"""The perceptual net as training takes it: features of L_vgg, what it reads from a frame, and a trunk to begin with."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from speak import losses
from speak.checkpoint import load_into
from speak.config import Config, JudgeStageConfig
from speak.models.judge import Judge
from speak.models.vgg import PerceptualFeatures
from speak.train.stage import Inputs


def perceptual_features(config: Config, inputs: Inputs, device: torch.device) -> PerceptualFeatures:
    """Frozen features with weights. Raises SpeakError where there are none to be found."""
    features = PerceptualFeatures(config.model)
    if isinstance(features.net, Judge):
        load_into(features.net, inputs.weights("perceptual")["models"]["judge"], "the weights of stage perceptual")
    else:
        inputs.vgg(features.net, config.model.perceptual.network)
    return features.to(device, memory_format=torch.channels_last)


def perceptual_terms(
    features: PerceptualFeatures | None,
    made: Tensor,  # [B, 3, H, W]
    true: Tensor,  # [B, 3, H, W]
    weights: Mapping[str, float],  # of the stage's losses
    reading: JudgeStageConfig,  # how much each reading counts
    weight: Tensor | None = None,  # [B, 1, H, W], how much a place counts in L_vgg; None: all alike
) -> dict[str, Callable[[], Tensor]]:
    """The terms "perceptual" and "reading" for `losses.compute`; the frames are looked at once for both."""
    if features is None:
        return {}
    if not weights["reading"]:
        def compare() -> Tensor:
            with torch.no_grad():
                wanted = features(true)
            return losses.perceptual_loss(features(made), wanted, weight)

        return {"perceptual": compare}
    with torch.no_grad():
        wanted, truth = features.perceive(true)
    found, read = features.perceive(made)
    spread, amounts = features.net.pose_spread, losses.loss_weights(reading)
    return {
        "perceptual": lambda: losses.perceptual_loss(found, wanted, weight),
        "reading": lambda: losses.reading_loss(read, truth, made.shape[-1], spread, amounts),
    }


def perceptual_trunk(inputs: Inputs) -> dict[str, Tensor] | None:
    """The trunk's state for encoders to begin with, where stage `perceptual` has been trained."""
    found = inputs.weights("perceptual", needed=False)
    if found is None:
        return None
    state = found["models"]["judge"]
    return {key.removeprefix("trunk."): value for key, value in state.items() if key.startswith("trunk.")}
