"""Stages `judge` and `perceptual`: one net that reads a frame, trained on rendered people under hard conditions.

The judge measures and is used in no loss; the perceptual net, of another seed and other people, gives L_vgg its
features where the user has no VGG.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from speak import losses
from speak.config import Config, JudgeStageConfig
from speak.datasets.stage_batches import JudgeBatch
from speak.metrics import correlation
from speak.models.judge import Judge
from speak.models.vgg import perceptual_net
from speak.train.processes import gathered
from speak.train.stage import Inputs, Phase, Stage, parameters_of


def build(config: Config, inputs: Inputs, device: torch.device) -> Stage:
    """The judge."""
    return _build(Judge(config.model.judge), config, config.judge, device)


def build_perceptual(config: Config, inputs: Inputs, device: torch.device) -> Stage:
    """The perceptual net."""
    return _build(perceptual_net(config.model.judge), config, config.perceptual, device)


def _build(judge: Judge, config: Config, settings: JudgeStageConfig, device: torch.device) -> Stage:
    judge = judge.to(device, memory_format=torch.channels_last)
    weights = losses.loss_weights(settings)

    def compute(batch: JudgeBatch, memory: dict[str, Any]) -> dict[str, Tensor]:
        reading, labels, size = judge(batch.frames), batch.labels, batch.frames.shape[-1]
        pose = (labels.pose - judge.pose_centre) / judge.pose_spread
        read = (reading.pose - judge.pose_centre) / judge.pose_spread
        return losses.compute({
            "landmarks": lambda: F.l1_loss(reading.landmarks, labels.landmarks) * (20 / size),
            "pose": lambda: F.l1_loss(read, pose),
            "mouth_opening": lambda: F.l1_loss(reading.mouth_opening, labels.mouth_opening),
            "emotion": lambda: losses.classification_loss(reading.emotion_logits, labels.emotion),
            "likeness": lambda: likeness_loss(gathered(reading.identity), settings.temperature),
        }, weights)  # fmt: skip

    def validate(batches: Iterable[JudgeBatch]) -> dict[str, float]:
        return judged(judge, batches)

    phase = Phase("judge", parameters_of(judge), settings.learning_rate, weights, compute)
    return Stage({"judge": judge}, ("judge",), [phase], validate, shaped_by=("image_size", "judge"))


def likeness_loss(
    embeddings: Tensor,  # [B, D] unit length; rows 2k and 2k + 1 show one person
    temperature: float,
) -> Tensor:
    """Each picture has to find the other one of its person among all of the batch (InfoNCE)."""
    likeness = embeddings @ embeddings.T / temperature
    likeness = likeness.masked_fill(torch.eye(len(embeddings), dtype=torch.bool, device=likeness.device), -1e4)
    return F.cross_entropy(likeness, torch.arange(len(embeddings), device=likeness.device) ^ 1)


def judged(judge: Judge, batches: Iterable[JudgeBatch]) -> dict[str, float]:
    """The judge's own errors on true frames: the figures that stand beside everything it measures.

    landmarks: mean distance in percent of that between the jaw's two ends. pose: mean absolute error of yaw, pitch and
    roll, degrees. same person: the nearest of the other pictures shows the same person.
    """
    columns: dict[str, list[Tensor]] = {"landmarks": [], "pose": [], "emotion": [], "read": [], "true": [], "same": []}
    for batch in batches:
        reading, labels = judge(batch.frames), batch.labels
        width = (labels.landmarks[:, 16] - labels.landmarks[:, 0]).norm(dim=1)
        columns["landmarks"].append((reading.landmarks - labels.landmarks).norm(dim=2).mean(1) / width * 100)
        columns["pose"].append((reading.pose - labels.pose)[:, :3].abs().mean(1))
        columns["emotion"].append((reading.emotion_logits.argmax(1) == labels.emotion).float() * 100)
        columns["read"].append(reading.mouth_opening)
        columns["true"].append(labels.mouth_opening)
        nearest = (reading.identity @ reading.identity.T).fill_diagonal_(-2).argmax(1)
        columns["same"].append((labels.identity[nearest] == labels.identity).float() * 100)
    found = {name: torch.cat(parts).float() for name, parts in columns.items()}
    return {
        "landmarks_percent": float(found["landmarks"].mean()),
        "pose_degrees": float(found["pose"].mean()),
        "emotion_percent": float(found["emotion"].mean()),
        "mouth_correlation": float(correlation(found["read"], found["true"])),
        "same_person_percent": float(found["same"].mean()),
    }
