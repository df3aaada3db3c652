"""Whole clips from a `Speak` in memory: what drives a clip is encoded once, then frames are generated in batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from speak.models.speak import ClipNoise, Speak

BATCH = 16  # frames that pass through a network at once


@dataclasses.dataclass(frozen=True)
class Drivers:
    """The codes of one clip of N frames; replace one to drive the clip with another's."""

    identity: Tensor  # f_I [D_I]
    pose: Tensor  # f_P [N, D_P]
    emotion: Tensor  # f_E [1, D_E], the mean over the frames that show the emotion
    audio: Tensor  # f_a [N, D]
    photo: Tensor | None = None  # I [3, H, W], that the frames may be bent from


@contextmanager
def measuring(*networks: nn.Module | None) -> Iterator[None]:
    """Evaluation mode without gradients or autocast; afterwards every part is in the mode that it was in."""
    modes = [(part, part.training) for network in networks if network is not None for part in network.modules()]
    try:
        for part, _ in modes:
            part.training = False
        with torch.no_grad(), torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            yield
    finally:
        for part, mode in modes:
            part.training = mode


def in_batches(network: Callable[[Tensor], Tensor], rows: Tensor, batch: int = BATCH) -> Tensor:
    """`network` over the rows of [N, ...], a few at a time."""
    return torch.cat([network(part) for part in rows.split(batch)])


def encode_clip(
    model: Speak,
    identity_frame: Tensor,  # I [3, H, W] in [-1, 1]
    pose_frames: Tensor,  # [N, 3, H, W]
    emotion_frames: Tensor,  # [M, 3, H, W]
    speech: Tensor,  # [S] at 16 kHz, from `context` frames before the clip to `context` frames after it
    context: int = 0,
) -> Drivers:
    """The codes of what drives a clip. Call it inside `measuring`."""
    count = len(pose_frames)
    audio = model.encode_audio(speech[None], count + 2 * context)[0, context : context + count]
    emotion = in_batches(model.encode_emotion, emotion_frames).mean(0, keepdim=True)
    return Drivers(
        model.read_identity(identity_frame[None])[0], in_batches(model.encode_pose, pose_frames), emotion, audio,
        identity_frame,
    )  # fmt: skip


def generate_clip(
    model: Speak,
    drivers: Drivers,
    seed: int = 0,  # of the clip's noise
) -> Tensor:
    """The clip [N, 3, H, W] in [-1, 1], SPEAK Eq. 9. Call it inside `measuring`."""
    noise: ClipNoise = model.draw_noise([seed])
    portrait = None if drivers.photo is None else model.portrait(drivers.identity[None], drivers.photo[None])
    frames = [
        model.generate(drivers.identity[None], pose[None], drivers.emotion[None], audio[None], noise, portrait)[0]
        for pose, audio in zip(drivers.pose.split(BATCH), drivers.audio.split(BATCH), strict=True)
    ]
    return torch.cat(frames).float().clamp(-1, 1)
