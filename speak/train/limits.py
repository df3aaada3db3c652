"""What the settings of a training must keep to: anything else would end in a traceback, perhaps after hours."""

from __future__ import annotations

from speak.config import Config
from speak.errors import SpeakError
from speak.models.syncnet import WINDOW_FRAMES
from speak.train.loop import OPTIMIZERS

LEAST = {
    "train": {"accumulate": 1, "log_every": 1, "check_every": 1, "save_every": 1, "keep": 1, "validation": 1,
              "workers": 0, "warm_up": 0, "clip": 0, "decay": 0, "beta1": 0, "beta2": 0, "ema_decay": 0},
    "rendered": {"identities": 2, "frames": 1, "emotion_frames": 1, "context": 0, "speech_frames": 1,
                 "longest_shift": 2, "uses": 1, "frame_uses": 1, "kept": 1, "chunk": 1},
}  # fmt: skip
SOURCES = ("identity_source", "pose_source", "emotion_source")  # of stages irfd and speak
BELOW_ONE = ("beta1", "beta2", "ema_decay")


def check_settings(
    config: Config,
    stage: str,
    batch: int,  # samples a step, over all processes
    world: int,  # processes
) -> None:
    """Raises SpeakError for a setting that the stage cannot be trained with."""
    for room, least in LEAST.items():
        for name, number in least.items():
            value = getattr(getattr(config, room), name)
            if not value >= number:
                raise SpeakError(f"--set {room}.{name}={value}: must be {number} or more")
    for name in BELOW_ONE:
        value = getattr(config.train, name)
        if not value < 1:
            raise SpeakError(f"--set train.{name}={value}: must be less than 1")
    optimizer = getattr(getattr(config, stage), "optimizer", "adam")
    if optimizer not in OPTIMIZERS:
        raise SpeakError(f"--set {stage}.optimizer={optimizer}: choose {' or '.join(OPTIMIZERS)}")
    for name in SOURCES:
        source = getattr(getattr(config, stage), name, "own")
        if source not in ("own", "other"):
            raise SpeakError(f"--set {stage}.{name}={source}: choose own or other")
    size = config.model.image_size
    if size < 8 or size & (size - 1):
        raise SpeakError(f"--set model.image_size={size}: must be a power of two from 8 on")
    if stage == "syncnet" and config.rendered.frames < WINDOW_FRAMES:
        raise SpeakError(f"--set rendered.frames={config.rendered.frames}: SyncNet's windows have {WINDOW_FRAMES}")
    if batch % world:
        raise SpeakError(f"--batch {batch} does not divide over {world} processes")
    parts = world * config.train.accumulate
    if batch % parts:
        raise SpeakError(f"--batch {batch} over {world} processes does not divide into so many parts: "
                         f"train.accumulate={config.train.accumulate}")  # fmt: skip
    if stage in ("judge", "perceptual") and batch % (2 * parts):  # two frames of each person are compared
        raise SpeakError(f"--batch {batch}: stage {stage} wants a multiple of {2 * parts}, two frames of each person")
