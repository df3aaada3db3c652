"""The two judges of sync: our SyncNet at 30 frames/s, and the published one at 25 as syncnet_python runs it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from speak import metrics
from speak.clip_generation import in_batches, measuring
from speak.config import FRAME_RATE
from speak.models.speech_features import mfcc
from speak.models.syncnet import WINDOW_FRAMES, PublishedSyncNet, SyncNet, speech_windows, video_windows

PUBLISHED_RATE = 25  # frames/s
PUBLISHED_SIZE = 224  # pixels
_CROP_SCALE, _MEDIAN, _PAD_VALUE = 0.40, 13, 110
_AUDIO_STEP, _AUDIO_WIDTH = 4, 20  # MFCC vectors a frame, and in a window
_SAMPLES_PER_FRAME = 640


class SyncJudge(Protocol):
    """Sync of a clip."""

    name: str
    rate: int  # frames/s that it wants

    def __call__(self, frames: Tensor, speech: Tensor, landmarks: Tensor | None) -> metrics.Sync:
        """frames uint8 [N, 3, H, W] at `rate`; speech [S] at 16 kHz from the first frame on; landmarks [N, 68, 2]."""
        ...


class OurSync:
    """Our SyncNet, on frames as they are cropped; distances of embeddings of unit length lie in [0, 2]."""

    rate = FRAME_RATE

    def __init__(self, network: SyncNet, name: str) -> None:
        self.network, self.name = network, name
        self._device = next(network.parameters()).device

    def __call__(self, frames: Tensor, speech: Tensor, landmarks: Tensor | None = None) -> metrics.Sync:
        with measuring(self.network):
            shown = frames.to(self._device).float() / 127.5 - 1
            windows = video_windows(shown[None])[0]
            heard = speech_windows(speech[None].to(self._device), len(frames))[0]
            video = in_batches(self.network.embed_video, windows, 32) if len(windows) else shown.new_zeros(0, 1)
            audio = in_batches(self.network.embed_audio, heard, 128) if len(heard) else video
        return metrics.sync(video.cpu(), audio.cpu())


class PublishedSync:
    """`syncnet_v2` as syncnet_python's pipeline runs it: 25 frames/s, face crops of 224, BGR, MFCC of 16-bit samples.

    The pipeline's face detector (S3FD) is replaced by a box around the landmarks, from a third of their height above
    the brows to the chin; without landmarks the frames are taken as cropped.
    """

    rate = PUBLISHED_RATE

    def __init__(self, network: PublishedSyncNet, name: str) -> None:
        self.network, self.name = network, name
        self._device = next(network.parameters()).device

    def __call__(self, frames: Tensor, speech: Tensor, landmarks: Tensor | None = None) -> metrics.Sync:
        count = min(len(frames), len(speech) // _SAMPLES_PER_FRAME) - WINDOW_FRAMES
        boxes = None if landmarks is None or landmarks.isnan().all() else smooth_boxes(landmarks)
        faces = published_crops(frames[: max(count, 0) + WINDOW_FRAMES], boxes)
        coefficients = mfcc(speech[None].cpu())[0]
        video, audio = [], []
        with measuring(self.network):
            for t in range(max(count, 0)):
                window = faces[t : t + WINDOW_FRAMES].transpose(0, 1)[None]
                heard = coefficients[None, None, :, _AUDIO_STEP * t : _AUDIO_STEP * t + _AUDIO_WIDTH]
                video.append(self.network.embed_video(window.to(self._device)).cpu())
                audio.append(self.network.embed_audio(heard.to(self._device)).cpu())
        nothing = torch.zeros(0, 1)
        return metrics.sync(torch.cat(video) if video else nothing, torch.cat(audio) if audio else nothing)


def at_rate(
    rows: Tensor,  # [N, ...] at 30 frames/s
    rate: int,
) -> Tensor:
    """The rows on screen at `rate`, by time: row n of the result is that nearest to n / rate."""
    if rate == FRAME_RATE:
        return rows
    count = len(rows) * rate // FRAME_RATE
    return rows[[min(round(n * FRAME_RATE / rate), len(rows) - 1) for n in range(count)]]


def smooth_boxes(
    landmarks: Tensor,  # [N, 68, 2] pixels; frames without a face are NaN and take their neighbours' box
) -> np.ndarray:
    """float64 [N, 3]: centre x, y and half of the longer side of each frame's face box, median filtered over 13."""
    from scipy.signal import medfilt

    points = landmarks.double().numpy()
    low, high = points.min(1), points.max(1)
    low[:, 1] -= (high[:, 1] - low[:, 1]) / 3
    sizes = (high - low).max(1) / 2
    rows = np.concatenate([(low + high) / 2, sizes[:, None]], 1)
    known = np.isfinite(rows).all(1)
    place = np.arange(len(rows))
    rows = np.stack([np.interp(place, place[known], column[known]) for column in rows.T], 1)
    width = min(_MEDIAN, len(rows) - 1 | 1)  # odd, and no wider than the clip: outside the filter sees zeros
    return np.stack([medfilt(column, width) for column in rows.T], 1)


def published_crops(
    frames: Tensor,  # uint8 [N, 3, H, W] RGB
    boxes: np.ndarray | None,  # [N, 3] of `smooth_boxes`; None: all of each frame
) -> Tensor:
    """float [N, 3, 224, 224] BGR 0-255, cropped as syncnet_python's run_pipeline does."""
    crops = []
    for n, frame in enumerate(frames.flip(1).float()):
        if boxes is not None:
            x, y, s = (float(value) for value in boxes[n])
            pad = int(s * (1 + 2 * _CROP_SCALE))
            frame = F.pad(frame, (pad,) * 4, value=_PAD_VALUE)
            x, y = x + pad, y + pad
            frame = frame[:, max(int(y - s), 0) : int(y + s * (1 + 2 * _CROP_SCALE)),
                          max(int(x - s * (1 + _CROP_SCALE)), 0) : int(x + s * (1 + _CROP_SCALE))]  # fmt: skip
        size = (PUBLISHED_SIZE, PUBLISHED_SIZE)
        crops.append(F.interpolate(frame[None], size, mode="bilinear", align_corners=False)[0].round())
    return torch.stack(crops) if crops else torch.zeros(0, 3, PUBLISHED_SIZE, PUBLISHED_SIZE)
