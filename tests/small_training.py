"""The smallest training there is: 16x16 pictures, nets of a few thousand weights, a stock of a few units."""

from __future__ import annotations

from speak.config import Config, preset, with_changes

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
