"""Stage `audio` (ours): E_a learns phones and mouths of rendered speech, where no pretrained wav2vec 2.0 is given."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speak import losses
from speak.config import Config
from speak.datasets.stage_batches import SpeechBatch
from speak.metrics import correlation
from speak.models.wav2vec2 import Wav2Vec2
from speak.synthetic.phones import MOUTH_NAMES, PHONE_NAMES, mouth_opening
from speak.train.stage import Inputs, Phase, Stage, parameters_of


def build(config: Config, inputs: Inputs, device: torch.device) -> Stage:
    """The audio encoder with a linear head for the phone and one for the mouth of every video frame."""
    encoder = Wav2Vec2(config.model.audio).to(device)
    width = config.model.audio.width
    heads = nn.ModuleDict({"phones": nn.Linear(width, len(PHONE_NAMES)), "mouth": nn.Linear(width, len(MOUTH_NAMES))})
    heads = heads.to(device)
    weights = losses.loss_weights(config.audio)

    def read(batch: SpeechBatch) -> tuple[Tensor, Tensor]:
        vectors = encoder(batch.speech, frames=batch.phones.shape[1])
        return heads["phones"](vectors).float(), heads["mouth"](vectors).float()

    def compute(batch: SpeechBatch, memory: dict[str, Any]) -> dict[str, Tensor]:
        phones, mouth = read(batch)
        return losses.compute({
            "phones": lambda: F.cross_entropy(phones.flatten(0, 1), batch.phones.flatten()),
            "mouth": lambda: F.l1_loss(mouth, batch.mouth),
        }, weights)  # fmt: skip

    def validate(batches: Iterable[SpeechBatch]) -> dict[str, float]:
        right, opened, true = [], [], []
        for batch in batches:
            phones, mouth = read(batch)
            right.append((phones.argmax(-1) == batch.phones).float().flatten())
            opened.append(mouth_opening(mouth).flatten())
            true.append(batch.mouth_opening.flatten())
        return {
            "phones_percent": float(torch.cat(right).mean()) * 100,
            "mouth_correlation": float(correlation(torch.cat(opened), torch.cat(true))),
        }

    settings = config.audio
    phase = Phase("audio", parameters_of(encoder, heads), settings.learning_rate, weights, compute,
                  optimizer=settings.optimizer)  # fmt: skip
    return Stage({"audio_encoder": encoder, "heads": heads}, ("audio_encoder", "heads"), [phase], validate,
                 shaped_by=("audio",), half_on_cpu=False)  # fmt: skip
