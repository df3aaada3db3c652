"""Stage `syncnet`: SPEAK Eq. 11-12. Do five frames and this speech belong to the same moment?

Eq. 11 alone is first smallest where every distance is the same, and small nets stay there: each window also has to find
its own speech among the batch's (`syncnet.weight_matching`), and the video net begins as one that sees mouths.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from speak import losses
from speak.config import Config, sample_of_frame
from speak.datasets.stage_batches import SyncBatch
from speak.metrics import sync
from speak.models.syncnet import WINDOW_FRAMES, WINDOW_SAMPLES, SyncNet, speech_windows, video_windows
from speak.train.processes import gathered
from speak.train.stage import Inputs, Phase, Stage, parameters_of
from speak.train.warm_start import video_from_perceptual

_SHIFT = 10  # frames that held-out speech is shifted by at most
_SHORTEST = 30  # frames of a clip in which a shift can be looked for


def build(config: Config, inputs: Inputs, device: torch.device) -> Stage:
    """SyncNet."""
    syncnet = SyncNet(config.model.syncnet)
    if config.syncnet.trunk != "new":
        video_from_perceptual(syncnet, config.syncnet.trunk, inputs)
    syncnet.to(device)
    syncnet.video.to(memory_format=torch.channels_last)
    weights = losses.loss_weights(config.syncnet)
    margin = config.syncnet.margin

    def embedded(batch: SyncBatch) -> tuple[Tensor, Tensor]:
        frames, speech = batch.frames[:, :WINDOW_FRAMES], batch.speech[:, :WINDOW_SAMPLES]
        return syncnet.embed_video(frames), syncnet.embed_audio(speech)

    def contrastive(video: Tensor, audio: Tensor, matched: Tensor) -> Tensor:
        """Eq. 11 over the batch's own pairs, and over every other pairing of its windows: all of them do not match."""
        own = losses.contrastive_loss(losses.embedding_distance(video, audio), matched, margin)
        apart = (video[:, None] - audio[None]).square().sum(-1).clamp(min=1e-8).sqrt()
        others = apart[~torch.eye(len(apart), dtype=torch.bool, device=apart.device)]
        return own + losses.contrastive_loss(others, torch.zeros_like(others), margin)

    def compute(batch: SyncBatch, memory: dict[str, Any]) -> dict[str, Tensor]:
        video, audio, matched = (gathered(part) for part in (*embedded(batch), batch.matched))
        return losses.compute({
            "contrastive": lambda: contrastive(video, audio, matched),
            "matching": lambda: losses.matching_loss(video, audio, matched, config.syncnet.temperature),
        }, weights)  # fmt: skip

    def validate(batches: Iterable[SyncBatch]) -> dict[str, float]:
        """On clips of some seconds whose speech was shifted by up to ten frames: is the shift found, and how clearly?

        The loss as in training where clips are too short for that.
        """
        right, confidences, terms = [], [], []
        for batch in batches:
            terms.append(float(contrastive(*embedded(batch), batch.matched)))
            count = batch.frames.shape[1] - 2 * _SHIFT
            if count < _SHORTEST:
                continue
            for frames, speech, number in zip(batch.frames, batch.speech, range(len(right), 10**9), strict=False):
                shift = 7 * number % (2 * _SHIFT + 1) - _SHIFT  # every shift in turn
                heard = speech[sample_of_frame(_SHIFT + shift) :]
                video = syncnet.embed_video(video_windows(frames[None, _SHIFT : _SHIFT + count])[0])
                audio = syncnet.embed_audio(speech_windows(heard[None], count)[0])
                found = sync(video, audio)
                right.append(100.0 * (abs(found.offset - shift) <= 1))
                confidences.append(float(found.confidence))
        figures = {"contrastive": sum(terms) / len(terms)}
        if right:
            figures |= {"within_a_frame_percent": sum(right) / len(right),
                        "confidence": sum(confidences) / len(confidences)}  # fmt: skip
        return figures

    phase = Phase("syncnet", parameters_of(syncnet), config.syncnet.learning_rate, weights, compute)
    return Stage({"syncnet": syncnet}, ("syncnet",), [phase], validate, shaped_by=("image_size", "syncnet"))
