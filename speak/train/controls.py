"""What is fitted to a trained IRFD's codes: poses in numbers, emotions by name (METHOD, end of stage `irfd`)."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import torch
import torch.nn.functional as F

from speak.datasets.stage_batches import PairBatch
from speak.errors import SpeakError
from speak.models.irfd import IRFD

_BATCHES = 64  # of training pairs
_ROUNDS = 1500  # steps of Adam for the mapper


def fit_controls(irfd: IRFD, batches: Iterable[PairBatch]) -> None:
    """Fits the pose mapper and the emotion prototypes where the data have exact poses and labels; says nothing else.

    A corpus without poses leaves the mapper unfitted, one without neutral faces the prototypes.
    """
    poses, pose_codes, emotions, levels, emotion_codes = [], [], [], [], []
    with torch.no_grad():
        for batch in islice(batches, _BATCHES):
            codes = irfd.encode(torch.cat([batch.source, batch.target]))
            both = (batch.source_labels, batch.target_labels)
            if both[0].pose is not None:
                poses.append(torch.cat([labels.pose for labels in both]))
                pose_codes.append(codes.pose)
            emotions.append(torch.cat([labels.emotion for labels in both]))
            levels.append(torch.cat([labels.level for labels in both]) - 1)
            emotion_codes.append(codes.emotion)
    labels, strengths = torch.cat(emotions), torch.cat(levels)
    try:
        irfd.emotion_prototypes.fit(torch.cat(emotion_codes)[labels >= 0], labels[labels >= 0], strengths[labels >= 0])
    except SpeakError:  # no neutral faces: the weights will refuse emotions by name, and say so
        pass
    if poses:
        known = torch.cat(poses).isfinite().all(1)  # a corpus may know the poses of some clips only
        if known.any():
            _fit_mapper(irfd, torch.cat(poses)[known], torch.cat(pose_codes)[known])


def _fit_mapper(irfd: IRFD, poses: torch.Tensor, codes: torch.Tensor) -> None:
    mapper = irfd.pose_mapper
    with torch.random.fork_rng(devices=[]):  # a fresh start: a second fit must not depend on the first
        torch.manual_seed(0)
        mapper.apply(lambda layer: layer.reset_parameters() if hasattr(layer, "reset_parameters") else None)
    with torch.enable_grad():
        for parameter in mapper.parameters():
            parameter.requires_grad_(True)
        optimizer = torch.optim.Adam(mapper.parameters(), lr=3e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _ROUNDS)
        generator = torch.Generator().manual_seed(0)
        for _ in range(_ROUNDS):
            rows = torch.randint(len(poses), (256,), generator=generator).to(poses.device)
            optimizer.zero_grad()
            F.mse_loss(mapper(poses[rows]), codes[rows].to(poses.device)).backward()
            optimizer.step()
            schedule.step()
    mapper.fitted.fill_(True)
