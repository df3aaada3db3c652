"""How rendered people move: the head's drift and nods, blinks, saccades, an emotion that comes and fades.

All at 30 frames/s, all from a generator on the CPU: the same seed is the same motion everywhere.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from speak.config import EMOTIONS, FRAME_RATE

# How an emotion holds the head: degrees of yaw, pitch (down) and roll, and how lively it moves and blinks.
_MANNER: dict[str, tuple[float, float, float, float, float]] = {
    "angry": (0.0, 5.0, 0.0, 1.25, 0.7),
    "contempt": (7.0, -6.0, -4.0, 0.8, 0.8),
    "disgusted": (-6.0, -3.0, 3.0, 0.9, 1.2),
    "fear": (0.0, -2.0, 2.0, 1.2, 1.5),
    "happy": (0.0, -2.0, 3.0, 1.3, 1.0),
    "neutral": (0.0, 0.0, 0.0, 1.0, 1.0),
    "sad": (0.0, 9.0, 4.0, 0.6, 0.8),
    "surprised": (0.0, -5.0, 0.0, 1.1, 0.6),
}


@dataclasses.dataclass
class Motion:
    """pose: [T, 6], POSE_NAMES. eyes: [T, 4], EYE_NAMES. strength: [T] of the emotion, 0 to its level's strength."""

    pose: Tensor
    eyes: Tensor
    strength: Tensor


def smooth_noise(frames: int, seconds: float, generator: torch.Generator, channels: int = 1) -> Tensor:
    """[frames, channels] of about unit deviation that changes in about `seconds`: a cubic B-spline of random knots."""
    step = max(seconds * FRAME_RATE, 1.0)
    knots = torch.randn(int(frames / step) + 6, channels, generator=generator)
    place = torch.arange(frames, dtype=torch.float32) / step + torch.rand((), generator=generator)
    first = place.floor().long()
    u = (place - first).unsqueeze(1)
    v = 1 - u
    value = v**3 * knots[first] + (3 * u**3 - 6 * u * u + 4) * knots[first + 1]
    value = value + (3 * v**3 - 6 * v * v + 4) * knots[first + 2] + u**3 * knots[first + 3]
    return value / 6 * 1.45


def head_motion(frames: int, generator: torch.Generator, emotion: str = "neutral", strength: Tensor | float = 1.0,
                liveliness: float = 1.0) -> Tensor:  # strength: number or [T]
    """Pose [T, 6]: a posture kept for the clip, slow drift, livelier nods, the emotion's way to hold the head.

    Within about 40 degrees of yaw and 30 of pitch.
    """
    yaw, pitch, roll, lively, _ = _MANNER[emotion]
    share = torch.as_tensor(strength, dtype=torch.float32).expand(frames)
    lively = liveliness * (1 + (lively - 1) * share)
    drift = smooth_noise(frames, 1.6, generator, 6)
    quick = smooth_noise(frames, 0.42, generator, 6)
    posture = torch.randn(6, generator=generator)
    pose = torch.zeros(frames, 6)
    pose[:, 0] = 8 * posture[0] + lively * (7.0 * drift[:, 0] + 1.6 * quick[:, 0]) + yaw * share
    pose[:, 1] = 3 * posture[1] + lively * (3.2 * drift[:, 1] + 1.8 * quick[:, 1]) + pitch * share
    pose[:, 2] = 2 * posture[2] + lively * (2.4 * drift[:, 2] + 0.7 * quick[:, 2]) + roll * share
    pose[:, 3] = 0.020 * posture[3] + lively * 0.010 * drift[:, 3] + 0.0008 * pose[:, 0]
    pose[:, 4] = 0.012 * posture[4] + lively * 0.006 * drift[:, 4] + 0.0006 * pose[:, 1]
    pose[:, 5] = 1 + 0.03 * posture[5].clamp(-2, 2) + lively * 0.012 * drift[:, 5]
    limit = torch.tensor([40.0, 30.0, 20.0, 0.12, 0.10])
    pose[:, :5] = limit * torch.tanh(pose[:, :5] / limit)
    pose[:, 5] = pose[:, 5].clamp(0.8, 1.2)
    return pose


def blinks(frames: int, generator: torch.Generator, per_second: float = 0.33) -> Tensor:
    """[T] in [0, 1], 1 shut: a blink takes about a third of a second, shuts faster than it opens, comes at random."""
    time = torch.arange(frames, dtype=torch.float32)
    shut = torch.zeros(frames)
    at = torch.rand((), generator=generator).item() * FRAME_RATE / per_second
    while at < frames:
        closing = 2.2 + 1.2 * torch.rand((), generator=generator).item()
        opening = 1.8 * closing
        depth = 1.0 if torch.rand((), generator=generator).item() < 0.9 else 0.7
        before = ((time - at + closing) / closing).clamp(0, 1)
        after = ((at + 1.0 + opening - time) / opening).clamp(0, 1)
        lid = torch.minimum(before, after)
        shut = torch.maximum(shut, depth * lid * lid * (3 - 2 * lid))
        wait = 0.35 - torch.log(1 - torch.rand((), generator=generator) * 0.98).item()
        at += (0.3 + wait / per_second * 0.75) * FRAME_RATE
    return shut


def saccades(frames: int, generator: torch.Generator) -> Tensor:
    """Gaze [T, 2] (right, up) in [-1, 1]: rests of half a second to two near the viewer, jumps of 2 to 5 frames."""
    gaze = torch.zeros(frames, 2)
    at, here = 0.0, torch.zeros(2)
    time = torch.arange(frames, dtype=torch.float32).unsqueeze(1)
    while at < frames:
        away = torch.rand((), generator=generator) < 0.35
        spread = torch.tensor([0.55, 0.30]) if away else torch.tensor([0.10, 0.06])
        there = (torch.randn(2, generator=generator) * spread).clamp(-1, 1)
        travel = 2.0 + 3.0 * (there - here).norm().item()
        part = ((time - at) / travel).clamp(0, 1)
        gaze = torch.where(time >= at, here + (there - here) * part * part * (3 - 2 * part), gaze)
        rest = 0.45 + 1.6 * torch.rand((), generator=generator).item() ** 2
        here = there
        at += travel + rest * FRAME_RATE
    return gaze


def eye_motion(frames: int, generator: torch.Generator, emotion: str = "neutral", pose: Tensor | None = None) -> Tensor:
    """Eyes [T, 4], EYE_NAMES. Where `pose` [T, 6] is given, gaze holds the viewer against half of the head's turn."""
    rate = 0.33 * _MANNER[emotion][4]
    shut = blinks(frames, generator, rate)
    gaze = saccades(frames, generator)
    if pose is not None:
        gaze = gaze + torch.stack([-pose[:, 0] / 60, pose[:, 1] / 70], 1)
    lag = torch.cat([shut[:1], shut[:-1]]) * 0.15 + shut * 0.85  # the two lids are not quite one
    return torch.cat([torch.stack([shut, lag], 1), gaze.clamp(-1, 1)], 1)


def emotion_strength(frames: int, generator: torch.Generator, level: float = 1.0, held: bool = True) -> Tensor:
    """Strength [T] of an emotion: comes in about half a second, swells and ebbs a little, fades unless `held`.

    level: the greatest strength, 0 to 1 (one of LEVEL_STRENGTH for MEAD's levels). A held emotion is there from the
    first frame, as in a corpus clip that has one label throughout.
    """
    time = torch.arange(frames, dtype=torch.float32) / FRAME_RATE
    swell = 1 - 0.14 * (0.5 + 0.5 * torch.tanh(smooth_noise(frames, 0.9, generator)[:, 0]))
    if held:
        return level * swell
    length = frames / FRAME_RATE
    start = (0.05 + 0.20 * torch.rand((), generator=generator)) * length
    onset = 0.25 + 0.35 * torch.rand((), generator=generator)
    end = length - (0.02 + 0.15 * torch.rand((), generator=generator)) * length
    decay = 0.5 + 0.6 * torch.rand((), generator=generator)
    rise, fall = ((time - start) / onset).clamp(0, 1), ((end - time) / decay).clamp(0, 1)
    curve = torch.minimum(rise * rise * (3 - 2 * rise), fall * fall * (3 - 2 * fall))
    return level * swell * curve


def natural_motion(frames: int, generator: torch.Generator, emotion: str = "neutral", level: float = 1.0,
                   held: bool = True) -> Motion:
    """A clip's motion: how strong the emotion is, how the head moves with it, what the eyes do meanwhile."""
    strength = emotion_strength(frames, generator, level, held)
    pose = head_motion(frames, generator, emotion, strength)
    return Motion(pose, eye_motion(frames, generator, emotion, pose), strength)


def emotion_weights(emotion: str, strength: Tensor) -> Tensor:  # [T] -> [T, 8]
    """Weights for the renderer: `strength` of the emotion, the rest neutral."""
    weights = torch.zeros(strength.shape[0], len(EMOTIONS), device=strength.device)
    weights[:, EMOTIONS.index("neutral")] = 1 - strength
    weights[:, EMOTIONS.index(emotion)] += strength
    return weights
