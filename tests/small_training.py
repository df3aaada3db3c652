"""The smallest training there is: 16x16 pictures, nets of a few thousand weights, a stock of a few units."""

from __future__ import annotations

from pathlib import Path

import torch

from speak.config import Config, preset, with_changes
from speak.datasets.rendered import RenderedData
from speak.train.command import STAGES, _Inputs
from speak.train.stage import Stage

CHANGES = {
    "model.image_size": 16,
    **{f"model.{name}.{key}": value for name in ("identity", "pose", "emotion")
       for key, value in (("image_size", 16), ("width", 8), ("code_dim", 8))},
    "model.generator.style_dim": 16, "model.generator.channel_base": 128, "model.generator.channel_max": 8,
    "model.editing.width": 8, "model.discriminator.layers": 2, "model.discriminator.width": 8,
    "model.discriminator.scales": 1, "model.syncnet.image_size": 16, "model.syncnet.width": 8,
    "model.syncnet.embedding_dim": 8, "model.judge.width": 8, "model.judge.image_size": 16,
    "model.judge.embedding_dim": 8, "model.audio.conv_channels": (8,) * 7, "model.audio.width": 8,
    "model.audio.feed_forward": 8, "model.audio.layers": 1,
    "rendered.chunk": 8, "rendered.kept": 8, "rendered.uses": 32, "rendered.frame_uses": 32, "rendered.context": 4,
    "rendered.speech_frames": 8, "rendered.sentence_seconds": 1.0, "rendered.identities": 40,
    "irfd.code_losses_from": 0.0,
    "irfd.perceptual_from": 0.0,
    "train.workers": 0, "train.validation": 4, "train.dtype": "float32", "train.log_every": 1, "train.save_every": 2,
    "train.check_every": 1000, "train.warm_up": 3,
}  # fmt: skip


def small(**more: object) -> Config:
    """The configuration, changed by keys whose dots are written as two underscores."""
    return with_changes(preset("tiny"), CHANGES | {key.replace("__", "."): value for key, value in more.items()})


def settings(**more: object) -> list[str]:
    """The same as --set flags."""
    flags = []
    for key, value in (CHANGES | {key.replace("__", "."): value for key, value in more.items()}).items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        flags += ["--set", f"{key}={text}"]
    return flags


def build(name: str, out: Path, **changes: object) -> Stage:
    """A stage as it begins, with what the stages before it have left in the run folder."""
    config = small(**changes)
    torch.manual_seed(0)
    return STAGES[name][0](config, _Inputs(out, {}, None), torch.device("cpu"))


def batch(name: str, count: int = 4, **changes: object) -> object:
    """Samples of rendered people for a stage."""
    config = small(**changes)
    return RenderedData(name, 3, "train", config.model.image_size, config.rendered).batch(range(count))
