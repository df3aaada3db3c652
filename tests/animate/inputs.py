"""Inputs of `animate` made on the spot: rendered people, their speech, and models that were never trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from speak import checkpoint
from speak.config import EMOTIONS, preset, to_dict
from speak.media.audio import write_wav
from speak.media.image import write_image
from speak.media.video import write_video
from speak.models.pose_mapper import NEUTRAL
from speak.models.speak import Speak
from speak.synthetic.performance import Performance, make_person, perform


def performance(emotion: str = "neutral", who: int = 0, seconds: float = 2.0) -> Performance:
    """A rendered person's sentence."""
    return perform(make_person(7, who), EMOTIONS.index(emotion), 2, (1, who), (2, who), seconds)


def pixels(frames: torch.Tensor) -> np.ndarray:
    """Rendered frames as uint8 [N, H, W, 3]."""
    return ((frames.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def untrained(name: str = "tiny", controls: bool = True) -> Speak:
    """A model with random weights whose pictures answer to all that drives them; `controls`: knows labels and angles.

    A fresh model's pictures are nearly grey: these have about the contrast of photographs.
    """
    torch.manual_seed(3)
    config = preset(name)
    model = Speak(config).eval()
    with torch.no_grad():
        for parameter in model.editing.parameters():
            parameter *= 2
        sizes = config.model
        codes = [torch.randn(8, size.code_dim) for size in (sizes.identity, sizes.pose, sizes.emotion)]
        audio = torch.randn(8, 1, sizes.audio.width)
        identity, pose, emotion = codes
        frames = model.generate(identity / identity.norm(dim=1, keepdim=True), pose[:, None], emotion[:, None], audio,
                                model.draw_noise(range(8)))  # fmt: skip
        for layer in model.generator.synthesis.to_rgb:
            layer.weight *= 0.4 / frames.std()
        if controls:
            size = config.model.emotion.code_dim
            labels = torch.arange(len(EMOTIONS)).repeat_interleave(3)
            levels = torch.arange(3).repeat(len(EMOTIONS))
            directions = torch.randn(len(EMOTIONS), size)
            directions[NEUTRAL] = 0
            model.emotion_prototypes.fit(directions[labels] * (levels[:, None] + 1) / 3, labels, levels)
            model.pose_mapper.net[-1].weight *= 10  # a fitted one spreads its codes to about 1
            model.pose_mapper.fitted.fill_(True)
    return model


def save_model(path: Path, model: Speak, name: str = "tiny", **more: object) -> Path:
    """The model as a checkpoint of stage `speak`."""
    content = {"stage": "speak", "config": to_dict(preset(name)), "step": 0, "models": {"speak": model.state_dict()}}
    checkpoint.save(path, {**content, **more})
    return path


def write_inputs(folder: Path, size: int = 64) -> dict[str, Path]:
    """photo, speech (about 2 s), pose (40 frames), emotion (25 frames) of three rendered people."""
    folder.mkdir(exist_ok=True)
    said, moved, felt = performance(), performance(who=1), performance("happy", who=2)
    paths = {"photo": folder / "id.png", "speech": folder / "speech.wav", "pose": folder / "pose.mp4",
             "emotion": folder / "emo.mp4"}  # fmt: skip
    write_image(paths["photo"], pixels(said.render(slice(0, 1), 2 * size).frames)[0])
    write_wav(paths["speech"], said.sound())
    write_video(paths["pose"], pixels(moved.render(slice(0, 40), size).frames), comment="")
    write_video(paths["emotion"], pixels(felt.render(slice(0, 25), size).frames), comment="")
    return paths
