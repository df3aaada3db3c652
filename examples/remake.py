"""Remakes the example inputs from the renderer, the example video from the shipped weights, and measures it.

    python examples/remake.py [--weights FILE] [--judge FILE] [--out examples] [--sheet sheet.png] [--people people.jpg]

The photo, the speech, the pose video and the emotion video are of three rendered people, so that the truth is known:
the renderer also draws the person of the photo saying these words with those poses and that emotion. The judge reads
the video and this truth; what it misreads of the truth is its own error.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from speak import metrics
from speak.cli import main as command
from speak.clip_generation import in_batches
from speak.config import EMOTIONS, POSE_NAMES
from speak.datasets.rendered import RenderedData, fresh
from speak.errors import SpeakError
from speak.evaluate_clips import resized
from speak.evaluate_instruments import find, read
from speak.media.audio import write_wav
from speak.media.face import find_face
from speak.media.image import write_image
from speak.media.video import VideoReader, write_video
from speak.models.judge import Reading
from speak.shipped import load_speak
from speak.synthetic.head import render
from speak.synthetic.performance import Performance, make_person, perform

EMOTION = "happy"
NAMES = ("id.png", "speech.wav", "pose.mp4", "emo.mp4")


def performances(seed: int, seconds: float) -> tuple[Performance, Performance, Performance]:
    """Who speaks, who moves (a little longer than the speech) and who feels."""
    said = perform(make_person(seed, 1), EMOTIONS.index("neutral"), 1, (seed, 1), (seed, 1), seconds)
    moved = perform(make_person(seed, 2), EMOTIONS.index("neutral"), 1, (seed, 2), (seed, 2), 1.5 * seconds + 1)
    felt = perform(make_person(seed, 3), EMOTIONS.index(EMOTION), 3, (seed, 3), (seed, 3), min(seconds, 2.5))
    return said, moved, felt


def pictures(frames: Tensor) -> np.ndarray:  # [N, 3, H, W] in [-1, 1] -> uint8 [N, H, W, 3]
    return metrics.to_uint8(frames).permute(0, 2, 3, 1).contiguous().numpy()


def drawn(performance: Performance, size: int, frames: int | None = None) -> np.ndarray:
    """The first frames of a performance, all by default, uint8 [N, H, W, 3]."""
    rows = torch.arange(performance.frames if frames is None else frames)
    return pictures(in_batches(lambda part: performance.render(part, size).frames, rows))


def write_inputs(out: Path, seed: int, seconds: float, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """The four inputs; returns the truth of what is to come out: frames uint8 [N, 3, H, W], pose [N, 6], mouth [N]."""
    said, moved, felt = performances(seed, seconds)
    photo = drawn(said, size, 1)[0]
    found = find_face(photo, name="the example's photo")
    if found.how != "whole picture":
        raise SpeakError(f"seed {seed}: the {found.how} would cut {found.box} out of the photo: take another --seed")
    write_image(out / NAMES[0], photo)
    write_wav(out / NAMES[1], said.sound())
    count = min(said.frames, moved.frames)
    write_video(out / NAMES[2], drawn(moved, size, count), quality=20, comment="rendered by speak")
    write_video(out / NAMES[3], drawn(felt, size), quality=20, comment="rendered by speak")
    weights = felt.emotion_weights.mean(0, keepdim=True)
    pose = said.pose[:1] + moved.pose[:count] - moved.pose[:count].mean(0)  # `animate` transfers motion, not places

    def truth(rows: Tensor) -> Tensor:
        several = len(rows)
        scene = type(said.scene)(said.scene.light.expand(several, -1), said.scene.background.expand(several, -1))
        shown = render(said.person.identity.expand(several, -1), pose[rows], weights.expand(several, -1),
                       said.mouth[rows], moved.eyes[rows], scene, size)  # fmt: skip
        openings.append(shown.mouth_opening)
        return metrics.to_uint8(shown.frames)

    openings: list[Tensor] = []
    frames = in_batches(truth, torch.arange(count))
    return frames, pose, torch.cat(openings)


def figures(shown: Reading, pose: Tensor, opening: Tensor) -> dict[str, float]:
    """What the judge reads, against the exact numbers."""
    found = {"mouth opening, correlation": metrics.correlation(shown.mouth_opening, opening),
             "mouth opening, mean error": (shown.mouth_opening - opening).abs().mean().item()}  # fmt: skip
    for index, name in enumerate(POSE_NAMES[:3]):
        found[f"{name}, mean error in degrees"] = (shown.pose[:, index] - pose[:, index]).abs().mean().item()
        found[f"{name}, correlation"] = metrics.correlation(shown.pose[:, index], pose[:, index])
    felt = shown.emotion_logits.argmax(1) == EMOTIONS.index(EMOTION)
    return {**found, f"frames read as {EMOTION}": felt.float().mean().item()}


def measure(video: Path, truth: tuple[Tensor, Tensor, Tensor], judge: Path | None, weights: Path | None) -> np.ndarray:
    """Prints the figures of the video; returns its frames uint8 [N, H, W, 3]."""
    with VideoReader(video) as reader:
        made = np.stack(list(reader))
    frames, pose, opening = truth
    count = min(len(made), len(frames))
    shown = resized(torch.from_numpy(made[:count]).permute(0, 3, 1, 2), frames.shape[-1])
    print(f"{count} frames against what the renderer draws: SSIM {metrics.ssim(shown, frames[:count]).mean():.3f}, "
          f"PSNR {metrics.psnr(shown, frames[:count]).mean():.1f} dB")  # fmt: skip
    instrument = find("judge", judge, weights, torch.device("cpu"))
    if instrument is None:
        print("no judge weights: name them with --judge FILE for mouth, pose and emotion")
        return made
    ours, own = read(instrument.network, shown), read(instrument.network, frames[:count])
    columns = [figures(each, pose[:count], opening[:count]) for each in (ours, own)]
    for column, reading in zip(columns, (ours, own), strict=True):
        likeness = metrics.identity_similarity(reading.identity, own.identity[:1]).mean()
        column["identity, cosine with the truth's first frame"] = float(likeness)
    print(f"{'read by the judge (' + instrument.source + ')':60s} {'video':>8s} {'rendered truth':>15s}")
    for name, value in columns[0].items():
        print(f"{name:60s} {value:8.3f} {columns[1][name]:15.3f}")
    return made


def write_sheet(path: Path, truth: np.ndarray, made: np.ndarray) -> None:
    """Ten moments: the truth above, the video below."""
    side, places = 160, np.linspace(0, min(len(truth), len(made)) - 1, 10).astype(int)
    rows = [np.concatenate([np.asarray(Image.fromarray(frames[k]).resize((side, side))) for k in places], 1)
            for frames in (truth, made)]  # fmt: skip
    write_image(path, np.concatenate(rows, 0))


@torch.no_grad()
def write_people(path: Path, weights: Path | None, side: int = 128) -> None:
    """Ten people that no training has seen, a column each: the photo, a frame of the truth, the same frame as made."""
    model, config, _ = load_speak(weights)
    moments = fresh(config.rendered, frames=3, emotion_frames=4)
    batch = RenderedData("speak", 0, "test", config.model.image_size, moments).batch(range(900, 910))
    around = 3 + 2 * batch.context
    identity = model.read_identity(batch.identity_frame)
    made = model.generate(
        identity, model.encode_pose(batch.frames),
        model.encode_emotion(batch.emotion_frames).mean(1, keepdim=True),
        model.encode_audio(batch.speech, around)[:, batch.context : batch.context + 3],
        model.draw_noise(batch.number.tolist()), model.portrait(identity, batch.identity_frame),
    )  # fmt: skip
    rows = [np.concatenate([np.asarray(Image.fromarray(face).resize((side, side))) for face in pictures(frames)], 1)
            for frames in (batch.identity_frame, batch.frames[:, 1], made[:, 1])]  # fmt: skip
    write_image(path, np.concatenate(rows, 0))


def main(argv: list[str] | None = None) -> int:
    """Writes the examples; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="default: the weights that come with speak")
    parser.add_argument("--judge", type=Path, help="default: beside the weights, or the one that comes with speak")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--sheet", type=Path, help="a picture of ten moments, truth above, video below")
    parser.add_argument("--people", type=Path, help="a picture of ten unseen people: photos, true and made frames")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--size", type=int, default=256, help="pixels of the photo and the videos")
    given = parser.parse_args(argv)
    given.out.mkdir(parents=True, exist_ok=True)
    truth = write_inputs(given.out, given.seed, given.seconds, given.size)
    chosen = ["--weights", str(given.weights)] if given.weights else []
    video = given.out / "out.mp4"
    status = command(["animate", *(str(given.out / name) for name in NAMES), "-o", str(video), *chosen])
    if status:
        return status
    made = measure(video, truth, given.judge, given.weights)
    if given.sheet:
        write_sheet(given.sheet, truth[0].permute(0, 2, 3, 1).numpy(), made)
    if given.people:
        write_people(given.people, given.weights)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
