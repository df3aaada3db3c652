"""The features of L_vgg as training takes them: the user's VGG, or the trunk of stage `perceptual`."""

from __future__ import annotations

import torch

from speak.checkpoint import load_into
from speak.config import Config
from speak.models.vgg import PerceptualFeatures
from speak.train.stage import Inputs


def perceptual_features(config: Config, inputs: Inputs, device: torch.device) -> PerceptualFeatures:
    """Frozen features with weights. Raises SpeakError where there are none to be found."""
    features = PerceptualFeatures(config.model)
    if config.model.perceptual.network == "rendered":
        state = inputs.weights("perceptual")["models"]["judge"]
        trunk = {key.removeprefix("trunk."): value for key, value in state.items() if key.startswith("trunk.")}
        load_into(features.trunk, trunk, "the weights of stage perceptual")
    else:
        inputs.vgg(features.trunk, config.model.perceptual.network)
    return features.to(device, memory_format=torch.channels_last)
