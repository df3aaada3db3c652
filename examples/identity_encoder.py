"""E_i by itself: it learns to read from one picture the f_I with which a trained G_g makes the person best.

    python examples/identity_encoder.py --weights speak/weights/speak.pt --out runs/identity --data synthetic:1
    ... --set model.identity.width=32 --set model.identity.grid=4       begun anew, in another shape

In stage `speak` E_i learns through G_g and four losses, sixteen pictures a step. Here f_I is fitted to frames of each
person once (speak.models.inversion), and E_i learns to read those codes: 150 pictures a second on two cores, of which
each is seen six times. What an error of a code weighs is what it changes in the picture. RUN/codes has the pictures and
codes, RUN/weights.pt everything of --weights with the new E_i; `train --stage speak --init` goes on from there.
Interrupted, the same command goes on with the codes that it has.
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
from torch import Tensor

from speak import checkpoint
from speak.config import Config, parse_settings, with_changes
from speak.datasets.rendered import RenderedData, fresh, synthetic_seed
from speak.datasets.stage_batches import WindowBatch
from speak.media.files import whole_file
from speak.metrics import to_uint8
from speak.models.inversion import fit_identity_to_frames
from speak.models.irfd import Encoder
from speak.models.speak import Speak
from speak.shipped import load_speak

FITTING_STEPS = 10
AT_ONCE = 16  # windows rendered and fitted together, and kept in one file
BATCH = 64  # pictures of a step
RATE, WARM_UP, WEIGHT_DECAY = 1.5e-3, 100, 0.02
AVERAGE = 0.995  # of the weights that are kept
SHIFT = 2  # pixels that pictures are moved by at most while learning
HELD_OUT = 8  # every so many windows are only measured on


def half_precision() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


def in_range(pictures: Tensor) -> Tensor:  # uint8 -> [-1, 1]
    return pictures.float() / 127.5 - 1


def fitted_window(model: Speak, window: WindowBatch) -> dict[str, Tensor]:
    """Pictures of each person, uint8 [B, K, 3, H, W], and the f_I [B, D_I] that suits the window's frames best.

    The pictures are the window's frames and two others, one of them in another emotion. Fitting begins with the mean
    of what E_i reads from all of them.
    """
    pictures = torch.cat([torch.stack([window.identity_frame, window.identity_frame_other], 1), window.frames], 1)
    count = window.frames.shape[1]
    with torch.no_grad(), half_precision():
        read = F.normalize(model.encode_identity(pictures).float().mean(1), dim=-1)
        pose, emotion = model.encode_pose(window.pose_frames), model.encode_emotion(window.emotion_frames)
        audio = model.encode_audio(window.speech, count + 2 * window.context).float()
    with half_precision():
        codes = fit_identity_to_frames(
            model, window.frames, read, pose, emotion.mean(1, keepdim=True),
            audio[:, window.context : window.context + count], FITTING_STEPS, model.inversion,
        )  # fmt: skip
    return {"pictures": to_uint8(pictures.flatten(0, 1)).unflatten(0, pictures.shape[:2]), "codes": codes}


def collected(
    model: Speak,
    config: Config,
    folder: Path,
    seed: int,  # of the people
    windows: int,
) -> tuple[Tensor, Tensor]:
    """`fitted_window` of so many windows: pictures [W, K, 3, H, W] and codes [W, D_I]. Files that exist are read."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{seed}-{number:05d}.pt" for number in range(-(-windows // AT_ONCE))]
    first = next((number for number, file in enumerate(files) if not file.is_file()), len(files))
    drawn = fresh(config.rendered, frames=2, emotion_frames=3)
    data = RenderedData("speak", seed, "train", config.model.image_size, drawn)
    if first < len(files):
        batches = data.batches(AT_ONCE, first, workers=1)
        for file in files[first:]:
            with whole_file(file) as temporary:
                torch.save(fitted_window(model, next(batches)), temporary)
            print(f"\r{(files.index(file) + 1) * AT_ONCE} of {windows} windows", end="", flush=True, file=sys.stderr)
        print(file=sys.stderr)
    found = [torch.load(file) for file in files]
    return torch.cat([one["pictures"] for one in found]), torch.cat([one["codes"] for one in found])


def response(
    model: Speak,
    pictures: Tensor,  # [W, K, 3, H, W] uint8
    codes: Tensor,  # [W, D_I]
    rounds: int = 40,
) -> Tensor:
    """L [D_I, D_I]: |(a - b) L|^2 is about the mean squared difference of the frames that G_g makes of f_I a and b.

    L L^T is the mean of J^T J, J the frame's derivative by f_I, from random directions in the frame; poses and emotions
    are those of other people's pictures. A thousandth of its diagonal is added, so that nothing weighs nothing.
    """
    size = codes.shape[1]
    total = torch.zeros(size, size, dtype=torch.float64)
    for _ in range(rounds):
        who, how = torch.randint(len(codes), (2, BATCH))
        shown = in_range(pictures[how, -1])
        with torch.no_grad():
            pose, emotion = model.encode_pose(shown)[:, None], model.encode_emotion(shown)[:, None]
            audio = model.encode_silence().expand(BATCH, 1, -1)
        identity = codes[who].requires_grad_()
        frames = model.generate(identity, pose, emotion, audio, model.draw_noise([0] * BATCH)).float()
        (way,) = torch.autograd.grad((frames * torch.randn_like(frames)).sum(), identity)
        total += way.double().T @ way.double() / frames[0].numel()
    mean = total / (rounds * BATCH)
    return torch.linalg.cholesky(mean + 1e-3 * mean.diagonal().mean() * torch.eye(size)).float()


def weighed_error(read: Tensor, codes: Tensor, weighing: Tensor) -> Tensor:  # [B, D_I] twice, L -> []
    return ((read - codes) @ weighing).square().sum(-1).mean()


def moved_a_little(pictures: Tensor) -> Tensor:  # [B, 3, H, W]
    """All by the same number of pixels each way; what comes in is the border repeated."""
    height, width = pictures.shape[-2:]
    down, right = torch.randint(2 * SHIFT + 1, (2,)).tolist()
    return F.pad(pictures, [SHIFT] * 4, mode="replicate")[..., down : down + height, right : right + width]


@torch.no_grad()
def measured(encoder: Encoder, pictures: Tensor, codes: Tensor, weighing: Tensor) -> float:
    """The weighed error of what `encoder` reads from each person's first picture."""
    was_training = encoder.training
    encoder.eval()
    with half_precision():
        read = torch.cat([encoder(in_range(part)).float() for part in pictures[:, 0].split(BATCH)])
    encoder.train(was_training)
    return float(weighed_error(read, codes, weighing))


def learn(
    encoder: Encoder,
    pictures: Tensor,  # [W, K, 3, H, W] uint8
    codes: Tensor,  # [W, D_I]
    weighing: Tensor,  # L of `response`
    steps: int,
) -> Encoder:
    """The average of `encoder`'s weights along a training that reads codes from pictures; tells how it goes."""
    held_out = torch.arange(len(codes)) % HELD_OUT == 0
    unseen, learnt = torch.nonzero(held_out)[:, 0], torch.nonzero(~held_out)[:, 0]
    encoder.to(memory_format=torch.channels_last).train()
    average = copy.deepcopy(encoder)
    optimizer = torch.optim.AdamW(encoder.parameters(), RATE, weight_decay=WEIGHT_DECAY, betas=(0.9, 0.98))
    began = time.monotonic()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = RATE * min(1, (step + 1) / WARM_UP) * (1 - step / steps)
        chosen = learnt[torch.randint(len(learnt), (BATCH,))]
        shown = pictures[chosen, torch.randint(pictures.shape[1], (BATCH,))]
        shown = moved_a_little(in_range(shown)).contiguous(memory_format=torch.channels_last)
        with half_precision():
            read = encoder(shown)
        error = weighed_error(read.float(), codes[chosen], weighing)
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        share = 1 - min(AVERAGE, (step + 1) / (step + 11))
        with torch.no_grad():
            for kept, now in zip(average.parameters(), encoder.parameters(), strict=True):
                kept.lerp_(now, share)
        if (step + 1) % 200 == 0 or step + 1 == steps:
            new = measured(average, pictures[unseen], codes[unseen], weighing)
            print(f"step {step + 1} of {steps}, {time.monotonic() - began:.0f} s: error of new people {new:.5f}, "
                  f"of the last batch {error.item():.5f}", flush=True)  # fmt: skip
    return average.eval()


def main(arguments: list[str] | None = None) -> int:
    """Fits, learns, writes RUN/weights.pt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="of stage speak (default: the package's own)")
    parser.add_argument("--out", type=Path, default=Path("runs/identity"))
    parser.add_argument("--data", default="synthetic", help="synthetic:SEED, people that the weights have not seen")
    parser.add_argument("--windows", type=int, default=4000, help="of different people; five a second on two cores")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="model.identity.KEY=VALUE")
    given = parser.parse_args(arguments)
    seed = synthetic_seed(given.data)
    if seed is None:
        parser.error(f"--data {given.data}: only rendered people will do, synthetic:SEED")
    if given.windows < 2 * HELD_OUT or given.steps < 1:
        parser.error(f"give --windows of at least {2 * HELD_OUT} and --steps of at least 1")
    torch.manual_seed(0)
    model, before, content = load_speak(given.weights)
    config = with_changes(before, parse_settings(given.settings))
    if dataclasses.replace(config.model, identity=before.model.identity) != before.model:
        parser.error("--set: only the shape of E_i can change, model.identity.KEY=VALUE")
    pictures, codes = collected(model, before, given.out / "codes", seed, given.windows)
    weighing = response(model, pictures, codes)
    old = measured(model.identity_encoder, pictures[::HELD_OUT], codes[::HELD_OUT], weighing)
    print(f"error of the E_i that there was: {old:.5f}", flush=True)
    encoder = Encoder(config.model.identity, True)
    if config.model.identity == before.model.identity:  # the shape that it has: it goes on
        encoder.load_state_dict(model.identity_encoder.state_dict())
    encoder = learn(encoder, pictures, codes, weighing, given.steps)
    after = Speak(config)
    model.identity_encoder = encoder
    after.load_state_dict(model.state_dict())
    content["config"]["model"]["identity"] = dataclasses.asdict(config.model.identity)
    checkpoint.save(given.out / "weights.pt", content | {"models": {"speak": after.state_dict()}})
    print(given.out / "weights.pt")
    return 0


if __name__ == "__main__":
    sys.exit(main())
