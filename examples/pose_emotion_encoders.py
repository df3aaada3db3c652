"""E_p and E_e by themselves: they learn to read people whom the rest of the weights has never seen.

    python examples/pose_emotion_encoders.py --weights speak/weights/speak.pt --out runs/encoders --data synthetic:1

The encoders of stage `irfd` saw calm pictures of figurines. Here most people have the proportions of adults, in bad
light, blurred, noisy, covered, shaded in places, and pulled out of shape a little. E_p learns what the pose mapper says
of the exact pose and eyes, E_e what the E_e that there was reads from the twin of each picture: the same person as a
figurine, undisturbed. So the codes keep their meaning, and all that reads them goes on as before. RUN/weights.pt has
everything of --weights with the new encoders. Four tenths of a second of two cores a step; interrupted, it begins anew.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speak import checkpoint
from speak.config import Config
from speak.datasets.rendered import RenderedData, fresh, synthetic_seed
from speak.datasets.stage_batches import JudgeBatch
from speak.media.files import make_folder
from speak.models.speak import Speak
from speak.shipped import load_speak

BATCH = 64  # pictures of a step
RATE, WARM_UP = 1e-3, 100
AVERAGE = 0.995  # of the weights that are kept
USES = 8  # of a rendered picture
ADULTS, CONDITIONS = 0.7, 0.5  # share of people with the proportions of adults; strength of the bad conditions
PULL = 0.03  # halves of the side, standard deviation of how far every second picture is pulled at 4 x 4 places
SHADE = 0.3  # standard deviation of the logarithm of the light at 12 x 12 places of every second picture
MEASURED = 256  # pictures


def twins(config: Config, seed: int, split: str, uses: int, lifelike: float, conditions: float) -> list[RenderedData]:
    """The same people twice: as they are to be read, and as the encoders know them. Equal numbers are twins."""
    drawn = fresh(config.rendered, frame_uses=uses, kept=3072 if uses > 1 else 1)
    return [
        RenderedData("judge", seed, split, config.model.image_size,
                     dataclasses.replace(drawn, lifelike=share, augmented_frames=strength))
        for share, strength in ((lifelike, conditions), (0.0, 0.0))
    ]  # fmt: skip


def targets(model: Speak, teacher: nn.Module, shown: JudgeBatch, twin: JudgeBatch) -> dict[str, Tensor]:
    """What E_p and E_e are to read: [B, D_P] from the exact pose, [B, D_E] from the twin."""
    with torch.no_grad():
        return {"pose_encoder": model.pose_mapper(shown.labels.pose, shown.labels.eyes).float(),
                "emotion_encoder": teacher(twin.frames).float()}  # fmt: skip


def pulled(frames: Tensor) -> Tensor:  # [B, 3, H, W]
    """Every second picture, smoothly out of shape."""
    pull = PULL * torch.randn(len(frames), 2, 4, 4) * (torch.rand(len(frames), 1, 1, 1) < 0.5)
    pull = F.interpolate(pull, size=frames.shape[2:], mode="bicubic", align_corners=False)
    grid = F.affine_grid(torch.eye(2, 3).expand(len(frames), -1, -1), list(frames.shape), align_corners=False)
    return F.grid_sample(frames, grid + pull.movedim(1, 3), padding_mode="border", align_corners=False)


def shaded(frames: Tensor) -> Tensor:  # [B, 3, H, W] in [-1, 1]
    """Every second picture with soft lights and shadows in places, as about the size of an eye."""
    light = SHADE * torch.randn(len(frames), 1, 12, 12) * (torch.rand(len(frames), 1, 1, 1) < 0.5)
    light = F.interpolate(light, size=frames.shape[2:], mode="bicubic", align_corners=False)
    return ((frames + 1) * light.exp() - 1).clamp(-1, 1)


@torch.no_grad()
def errors(model: Speak, teacher: nn.Module, shown: JudgeBatch, twin: JudgeBatch) -> dict[str, float]:
    """The mean squared error of each encoder's codes, as a share of their variance."""
    wanted = targets(model, teacher, shown, twin)
    return {name: float((getattr(model, name)(shown.frames) - code).square().mean() / code.var(0).mean())
            for name, code in wanted.items()}  # fmt: skip


def learn(model: Speak, config: Config, seed: int, steps: int) -> None:
    """Trains E_p and E_e of `model` in place, keeping the average of their weights along the way; tells how it goes.

    They stay in evaluation: the running statistics of their `CodeNorm`, and an emotion gain in them, are kept.
    """
    model.eval()
    teacher = copy.deepcopy(model.emotion_encoder)
    held_out = [data.batch(range(MEASURED)) for data in twins(config, seed, "val", 1, 1.0, CONDITIONS)]
    print(f"before: {told(errors(model, teacher, *held_out))}", flush=True)
    hard, calm = twins(config, seed, "train", USES, ADULTS, CONDITIONS)
    students = {name: getattr(model, name).requires_grad_(True) for name in ("pose_encoder", "emotion_encoder")}
    if model.pose_encoder.eyes is not None:  # taught by eye_reader.py
        model.pose_encoder.eyes.requires_grad_(False)
    averages = {name: copy.deepcopy(student) for name, student in students.items()}
    optimizers = {name: torch.optim.Adam([p for p in student.parameters() if p.requires_grad], RATE)
                  for name, student in students.items()}  # fmt: skip
    spread, began = {}, time.monotonic()
    for step in range(steps):
        numbers = range(step * BATCH, (step + 1) * BATCH)
        shown = hard.batch(numbers)
        wanted = targets(model, teacher, shown, calm.batch(numbers))
        frames = shaded(pulled(shown.frames))
        for name, student in students.items():
            spread.setdefault(name, wanted[name].std())
            optimizers[name].param_groups[0]["lr"] = RATE * min(1, (step + 1) / WARM_UP) * (1 - step / steps)
            loss = F.smooth_l1_loss(student(frames) / spread[name], wanted[name] / spread[name], beta=0.3)
            optimizers[name].zero_grad()
            loss.backward()
            optimizers[name].step()
            share = 1 - min(AVERAGE, (step + 1) / (step + 11))
            with torch.no_grad():
                for kept, now in zip(averages[name].parameters(), student.parameters(), strict=True):
                    kept.lerp_(now, share)
        if (step + 1) % 200 == 0 and step + 1 < steps:
            print(f"step {step + 1} of {steps}, {time.monotonic() - began:.0f} s: "
                  f"{told(errors(model, teacher, *held_out))}", flush=True)  # fmt: skip
    for name, average in averages.items():
        students[name].load_state_dict(average.state_dict())
    print(f"after: {told(errors(model, teacher, *held_out))}", flush=True)


def told(found: dict[str, float]) -> str:
    return ", ".join(f"{name} {error:.4f}" for name, error in found.items())


def main(arguments: list[str] | None = None) -> int:
    """Learns, writes RUN/weights.pt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="of stage speak (default: the package's own)")
    parser.add_argument("--out", type=Path, default=Path("runs/encoders"))
    parser.add_argument("--data", default="synthetic", help="synthetic:SEED, people that the weights have not seen")
    parser.add_argument("--steps", type=int, default=1500)
    given = parser.parse_args(arguments)
    seed = synthetic_seed(given.data)
    if seed is None:
        parser.error(f"--data {given.data}: only rendered people will do, synthetic:SEED")
    if given.steps < 1:
        parser.error("give --steps of at least 1")
    torch.manual_seed(0)
    model, config, content = load_speak(given.weights)
    make_folder(given.out)
    learn(model, config, seed, given.steps)
    checkpoint.save(given.out / "weights.pt", content | {"models": {"speak": model.state_dict()}})
    print(given.out / "weights.pt")
    return 0


if __name__ == "__main__":
    sys.exit(main())
