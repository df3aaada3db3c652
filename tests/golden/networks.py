"""Golden values of every network of preset tiny: a few numbers each, from fixed seeds, in float64.

They show that a change of the code changes what the networks compute, for which no other test asks. Renew them, after
a change that is meant to: python -m tests.golden.networks
"""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from speak import ops
from speak.config import preset
from speak.models.codes import FACTORS
from speak.models.discriminator import Discriminator
from speak.models.irfd import IRFD
from speak.models.judge import Judge
from speak.models.speak import Speak
from speak.models.syncnet import WINDOW_SAMPLES, SyncNet
from speak.models.vgg import PerceptualFeatures

FILE = Path(__file__).with_suffix(".json")
NUMBERS = 4  # kept of each tensor, evenly spaced


def outputs() -> dict[str, Tensor]:
    """A tensor of each network, by name."""
    config = preset("tiny")
    model = config.model

    def made(build: Callable[[], nn.Module]) -> nn.Module:
        torch.manual_seed(0)  # each anew: a change of one network leaves the others' values alone
        return build().double()

    irfd, whole = made(lambda: IRFD(config)), made(lambda: Speak(config))
    discriminator, sync = made(lambda: Discriminator(model.discriminator)), made(lambda: SyncNet(model.syncnet))
    judge, perceptual = made(lambda: Judge(model.judge)), made(lambda: PerceptualFeatures(model))
    torch.manual_seed(1)
    frames = torch.rand(2, 3, 64, 64, dtype=torch.float64) * 2 - 1
    audio = torch.randn(1, 2, model.audio.width, dtype=torch.float64)
    speech = torch.randn(1, WINDOW_SAMPLES) * 0.1
    with torch.no_grad(), ops.backend("reference"):
        found = irfd(frames, frames.flip(0), torch.tensor([0, 1]), noise="none")
        values = {f"{factor} code": getattr(found.source, factor) for factor in FACTORS}
        values |= {f"{factor} code again": getattr(found.again_a, factor) for factor in FACTORS}
        values["emotion logits"], values["G_d self"] = found.emotion_logits, found.self_source
        values["G_d exchanged"] = found.picture_a
        codes = [getattr(found.source, factor) for factor in FACTORS]
        values["G_g"] = whole.generate(codes[0][:1], codes[1][None], codes[2][None], audio, whole.draw_noise([0]))
        values["D"] = discriminator(frames, frames.flip(0))[-1][0]
        values["SyncNet video"] = sync.embed_video(frames[:1, None].expand(-1, 5, -1, -1, -1))
        values["SyncNet audio"] = sync.embed_audio(speech)
        reading = judge(frames)
        values["judge landmarks"], values["judge pose"] = reading.landmarks, reading.pose
        values["perceptual"] = perceptual(frames)[-1]
    return values


def summary(values: Tensor) -> list[float]:
    """Mean, standard deviation and a few numbers of a tensor."""
    flat = values.double().flatten()
    picked = flat[:: max(1, flat.numel() // NUMBERS)][:NUMBERS]
    return [round(number, 9) for number in (flat.mean().item(), flat.std().item(), *picked.tolist())]


if __name__ == "__main__":
    lines = ",\n".join(f"{json.dumps(name)}: {summary(values)}" for name, values in outputs().items())
    FILE.write_text("{\n" + lines + "\n}\n")
    print(f"wrote {FILE}")
