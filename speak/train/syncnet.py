"""Stage `syncnet`: SPEAK Eq. 11-12. Do five frames and this speech belong to the same moment?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from speak import losses
from speak.config import Config
from speak.datasets.stage_batches import SyncBatch
from speak.metrics import sync
from speak.models.syncnet import WINDOW_SAMPLES, SyncNet, speech_windows, video_windows
from speak.train.stage import Inputs, Phase, Stage, parameters_of


def build(config: Config, inputs: Inputs, device: torch.device) -> Stage:
    """SyncNet."""
    syncnet = SyncNet(config.model.syncnet).to(device)
    syncnet.video.to(memory_format=torch.channels_last)
    weights = losses.loss_weights(config.syncnet)
    margin = config.syncnet.margin

    def contrastive(batch: SyncBatch) -> Tensor:
        """Eq. 11 over the batch's own pairs, and over every other pairing of its windows: all of them do not match."""
        video = syncnet.embed_video(batch.frames[:, :5])
        audio = syncnet.embed_audio(batch.speech[:, :WINDOW_SAMPLES])
        own = losses.contrastive_loss(losses.embedding_distance(video, audio), batch.matched, margin)
        apart = (video[:, None] - audio[None]).square().sum(-1).clamp(min=1e-8).sqrt()
        others = apart[~torch.eye(len(apart), dtype=torch.bool, device=apart.device)]
        return own + losses.contrastive_loss(others, torch.zeros_like(others), margin)

    def compute(batch: SyncBatch, memory: dict[str, Any]) -> dict[str, Tensor]:
        return losses.compute({"contrastive": lambda: contrastive(batch)}, weights)

    def validate(batches: Iterable[SyncBatch]) -> dict[str, float]:
        """On clips of some seconds with their own speech: where is the best offset, and how clearly?"""
        offsets, confidences = [], []
        for batch in batches:
            for frames, speech in zip(batch.frames, batch.speech, strict=True):
                video = syncnet.embed_video(video_windows(frames[None])[0])
                audio = syncnet.embed_audio(speech_windows(speech[None], len(frames))[0])
                found = sync(video, audio)
                offsets.append(abs(found.offset))
                confidences.append(found.confidence)
        count = len(offsets)
        return {
            "within_a_frame_percent": 100 * sum(offset <= 1 for offset in offsets) / count,
            "confidence": float(sum(confidences)) / count,
        }

    phase = Phase("syncnet", parameters_of(syncnet), config.syncnet.learning_rate, weights, compute)
    return Stage({"syncnet": syncnet}, ("syncnet",), [phase], validate)
