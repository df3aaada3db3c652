"""What is done to finished encoders (METHOD, end of stage `irfd`): poses in numbers and emotions by name are fitted.

Before that, in stage `irfd`, the pose's linear trace is taken out of f_I and f_E (`erasure.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speak.config import EYE_NAMES
from speak.datasets.stage_batches import FrameLabels, PairBatch, WindowBatch
from speak.errors import SpeakError
from speak.models.irfd import IRFD
from speak.models.speak import Speak
from speak.train.erasure import erase

_BATCHES = 64  # of training
_FRAMES_EACH = 30  # for each number of the widest code: what the pose's trace is looked for in
_ROUNDS = 1500  # steps of Adam for the mapper


@torch.no_grad()
def erase_pose(irfd: IRFD, batches: Iterable[PairBatch]) -> None:
    """Takes what is linear in the pose out of f_I and f_E, where the data have exact poses.

    Not in stage `speak`: its G_g has to learn with the erased codes (a finished one loses half a decibel).
    """
    encoders = (irfd.identity_encoder, irfd.emotion_encoder)
    poses: list[Tensor] = []
    codes: list[list[Tensor]] = [[], []]
    wanted = _FRAMES_EACH * max(encoder.linear.out_features for encoder in encoders)
    for frames, labels in (row for batch in batches for row in _labelled(batch)):
        if labels.pose is None:
            return
        poses.append(labels.pose)
        for encoder, found in zip(encoders, codes, strict=True):
            found.append(encoder.raw(frames))
        if sum(map(len, poses)) >= wanted:
            break
    pose = torch.cat(poses)
    known = pose.isfinite().all(1)  # a corpus may know the poses of some clips only
    if known.sum() < wanted / 4:
        return
    scaled = (pose[known] - irfd.pose_mapper.centre) / irfd.pose_mapper.spread
    for encoder, found in zip(encoders, codes, strict=True):
        erase(encoder, torch.cat(found)[known], scaled)


def fit_controls(model: IRFD | Speak, batches: Iterable[PairBatch] | Iterable[WindowBatch]) -> None:
    """Fits the pose mapper and the emotion prototypes where the data have exact poses and labels; says nothing else.

    A corpus without poses leaves the mapper unfitted, one without neutral faces the prototypes.
    """
    poses, eyes, pose_codes, emotions, levels, emotion_codes = [], [], [], [], [], []
    with torch.no_grad():
        for frames, labels in (row for batch in islice(batches, _BATCHES) for row in _labelled(batch)):
            if labels.pose is not None:
                poses.append(labels.pose)
                pose_codes.append(model.pose_encoder(frames))
                eyes.append(torch.zeros(len(frames), len(EYE_NAMES)).to(frames) if labels.eyes is None else labels.eyes)
            emotions.append(labels.emotion)
            levels.append(labels.level - 1)
            emotion_codes.append(model.emotion_encoder(frames))
    labels, strengths = torch.cat(emotions), torch.cat(levels)
    try:
        model.emotion_prototypes.fit(torch.cat(emotion_codes)[labels >= 0], labels[labels >= 0], strengths[labels >= 0])
    except SpeakError:  # no neutral faces: the weights will refuse emotions by name, and say so
        pass
    if poses:
        known = torch.cat(poses).isfinite().all(1)  # a corpus may know the poses of some clips only
        if known.any():
            _fit_mapper(model, *(torch.cat(part)[known] for part in (poses, eyes, pose_codes)))


def _labelled(batch: PairBatch | WindowBatch) -> Iterator[tuple[Tensor, FrameLabels]]:
    """Frames [B, 3, H, W] of a batch with what is known about them."""
    if isinstance(batch, PairBatch):
        yield batch.source, batch.source_labels
        yield batch.target, batch.target_labels
        return
    known = {field.name: getattr(batch.labels, field.name) for field in dataclasses.fields(FrameLabels)}
    for frame in range(batch.frames.shape[1]):
        yield batch.frames[:, frame], FrameLabels(**{k: None if v is None else v[:, frame] for k, v in known.items()})


def _fit_mapper(
    model: IRFD | Speak,
    poses: Tensor,  # [N, 6]
    eyes: Tensor,  # [N, 4], 0 where nobody knows
    codes: Tensor,  # [N, D_P]
) -> None:
    mapper = model.pose_mapper
    with torch.random.fork_rng(devices=[]):  # a fresh start: a second fit must not depend on the first
        torch.manual_seed(0)
        mapper.apply(lambda layer: layer.reset_parameters() if hasattr(layer, "reset_parameters") else None)
        nn.init.zeros_(mapper.eyes)
    with torch.enable_grad():
        for parameter in mapper.parameters():
            parameter.requires_grad_(True)
        optimizer = torch.optim.Adam(mapper.parameters(), lr=3e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _ROUNDS)
        generator = torch.Generator().manual_seed(0)
        for _ in range(_ROUNDS):
            rows = torch.randint(len(poses), (256,), generator=generator).to(poses.device)
            optimizer.zero_grad()
            F.mse_loss(mapper(poses[rows], eyes[rows]), codes[rows].to(poses.device)).backward()
            optimizer.step()
            schedule.step()
    mapper.fitted.fill_(True)
