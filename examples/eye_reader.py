"""E_p's reader of eyes by itself: blinks and gaze become part of f_P in weights that were trained without them.

    python examples/eye_reader.py --weights speak/weights/speak.pt --out runs/eyes --data synthetic:1

f_P of a head's pose leaves many of its directions empty. Four of them are given to what eyes do (EYE_NAMES); whatever
reads f_P begins blind to them, so that it sees what it saw before, and the pose mapper learns the same four. The reader
looks at the eyes from nearby (speak/models/eye_reader.py); people of both kinds, near and far, in some bad light, teach
it. RUN/weights.pt has everything of --weights with it; G_g then has to learn what the new directions mean (stage speak,
--init). A sixth of a second of one core a step; interrupted, it begins anew.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from speak import checkpoint
from speak.config import EYE_NAMES, Config, to_dict, with_changes
from speak.datasets.rendered import RenderedData, fresh, synthetic_seed
from speak.datasets.stage_batches import JudgeBatch
from speak.media.files import make_folder
from speak.models.eye_reader import EyeReader
from speak.models.speak import Speak
from speak.shipped import load_speak

WIDTH = 16  # channels of the reader, where the weights have none
BATCH = 64  # pictures of a step
RATE, WARM_UP = 1.5e-3, 50
AVERAGE = 0.998  # of the weights that are kept
USES = 8  # of a rendered picture
PEOPLE = {"lifelike": 0.6, "nearest": 1.55, "blinks": 0.4}  # shares of adults and of closing eyes, zoom
CONDITIONS = 0.4  # strength of the bad conditions
LENGTH = 3.0, 3.0, 5.0, 5.0  # of what a shut eye, and the farthest gaze, add to f_P; poses differ by about 7
MISPLACED = 0.15  # standard deviation of what is added to f_P: where it looks is never quite right
MEASURED = 256  # pictures


def people(config: Config, seed: int, split: str) -> RenderedData:
    """Single frames of stage `judge`, in `val` each rendered for itself under good conditions."""
    if split == "val":
        drawn = fresh(config.rendered, **PEOPLE)
    else:
        drawn = dataclasses.replace(config.rendered, frame_uses=USES, kept=3072, augmented_frames=CONDITIONS, **PEOPLE)
    return RenderedData("judge", seed, split, config.model.image_size, drawn)


def eyes_at(
    landmarks: Tensor,  # [B, 68, 2], pixels
    size: int,  # of the frames' side
) -> Tensor:
    """[B, 4]: what `EyeReader.where` is to say."""
    landmarks = (landmarks.float() + 0.5) / (size / 2) - 1
    return torch.cat([landmarks[:, [36, 39, 42, 45]].mean(1), (landmarks[:, 45] - landmarks[:, 36]) / 2], 1)


@torch.no_grad()
def empty_directions(model: Speak, poses: Tensor) -> Tensor:  # [N, 6] -> [4, D_P]
    """Directions of f_P in which poses differ least, as long as LENGTH."""
    codes = model.pose_mapper(poses).float()
    directions = torch.linalg.svd(codes - codes.mean(0))[2][-len(EYE_NAMES) :]
    return torch.tensor(LENGTH)[:, None] * directions


@torch.no_grad()
def begin_blind(model: Speak, directions: Tensor) -> None:  # [4, D_P]
    """Takes the directions out of all that reads f_P, in place: what they did was chance, and to be unlearnt first."""
    unit = directions / directions.norm(dim=1, keepdim=True)
    width = unit.shape[1]
    away = torch.eye(width) - unit.T @ unit
    before = model.identity_encoder.linear.out_features  # f_I comes first where codes stand side by side
    places = [(model.generator.fuse.layers[0].weight, before)]
    places += [(block.affine.weight, before) for block in model.editing.blocks]
    if model.photo_warp is not None and model.photo_warp.poses is not None:
        places += [(model.photo_warp.poses.weight, start) for start in (0, width)]
    for weight, start in places:
        weight[:, start : start + width] = weight[:, start : start + width] @ away


@torch.no_grad()
def measured(model: Speak, reader: EyeReader, shown: JudgeBatch) -> dict[str, float]:
    """How far it looks beside the eyes, in pixels, and the correlation of each of EYE_NAMES with the truth."""
    pose = head_pose(model, shown.frames)
    beside = (reader.where(pose) - eyes_at(shown.labels.landmarks, shown.frames.shape[-1])).abs().mean()
    read = reader.read(shown.frames, pose)
    found = {"beside": float(beside) * shown.frames.shape[-1] / 2}
    for number, name in enumerate(EYE_NAMES):
        found[name] = float(torch.corrcoef(torch.stack([read[:, number], shown.labels.eyes[:, number]]))[0, 1])
    return found


@torch.no_grad()
def head_pose(model: Speak, frames: Tensor) -> Tensor:
    """f_P without what the eyes add."""
    return model.pose_encoder.norm(model.pose_encoder.raw(frames))


def learn(model: Speak, config: Config, seed: int, steps: int) -> EyeReader:
    """A reader for the E_p of `model`, the average of its weights along the way; tells how it goes."""
    model.eval()
    data, held_out = people(config, seed, "train"), people(config, seed, "val").batch(range(MEASURED))
    reader = EyeReader(WIDTH, config.model.pose.code_dim)
    poses = [data.batch(range(k * BATCH, (k + 1) * BATCH)).labels.pose for k in range(8)]
    with torch.no_grad():
        reader.codes.copy_(empty_directions(model, torch.cat(poses)))
    learning = [parameter for name, parameter in reader.named_parameters() if name != "codes"]
    average = {name: value.clone() for name, value in reader.state_dict().items()}
    optimizer, began = torch.optim.Adam(learning, RATE), time.monotonic()
    for step in range(steps):
        batch = data.batch(range(step * BATCH, (step + 1) * BATCH))
        pose, place = head_pose(model, batch.frames), eyes_at(batch.labels.landmarks, batch.frames.shape[-1])
        light = (0.8 + 0.4 * torch.rand(BATCH, 1, 1, 1)) * batch.frames + 0.1 * torch.randn(BATCH, 1, 1, 1)
        read = reader.read(light, pose + MISPLACED * torch.randn_like(pose))
        loss = F.smooth_l1_loss(3 * read, 3 * batch.labels.eyes)
        loss = loss + F.smooth_l1_loss(10 * reader.where(pose), 10 * place)
        optimizer.param_groups[0]["lr"] = RATE * min(1, (step + 1) / WARM_UP) * (1 - step / steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        share = 1 - min(AVERAGE, (step + 1) / (step + 11))
        for name, value in reader.state_dict().items():
            average[name].lerp_(value, share)
        if (step + 1) % 400 == 0 and step + 1 < steps:
            print(f"step {step + 1} of {steps}, {time.monotonic() - began:.0f} s: "
                  f"{told(measured(model, reader, held_out))}", flush=True)  # fmt: skip
    reader.load_state_dict(average)
    print(f"after: {told(measured(model, reader, held_out))}", flush=True)
    return reader


def told(found: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in found.items())


def main(arguments: list[str] | None = None) -> int:
    """Learns, writes RUN/weights.pt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="of stage speak (default: the package's own)")
    parser.add_argument("--out", type=Path, default=Path("runs/eyes"))
    parser.add_argument("--data", default="synthetic", help="synthetic:SEED, people that the weights have not seen")
    parser.add_argument("--steps", type=int, default=3000)
    given = parser.parse_args(arguments)
    seed = synthetic_seed(given.data)
    if seed is None:
        parser.error(f"--data {given.data}: only rendered people will do, synthetic:SEED")
    if given.steps < 1:
        parser.error("give --steps of at least 1")
    torch.manual_seed(0)
    model, config, content = load_speak(given.weights)
    make_folder(given.out)
    reader = learn(model, config, seed, given.steps)
    begin_blind(model, reader.codes.detach())
    state = {key: value for key, value in model.state_dict().items() if not key.startswith("pose_encoder.eyes.")}
    state |= {f"pose_encoder.eyes.{key}": value for key, value in reader.state_dict().items()}
    state["pose_mapper.eyes"] = reader.codes.detach().clone()
    config = with_changes(config, {"model.pose.eyes": WIDTH})
    checkpoint.save(given.out / "weights.pt",
                    content | {"config": to_dict(config), "models": {"speak": state}})  # fmt: skip
    print(given.out / "weights.pt")
    return 0


if __name__ == "__main__":
    sys.exit(main())
