"""Writes the acceptance sheets of the rendered people, to be looked at after every change of the renderer.

    python examples/sheets.py [--out examples/people] [--seed 0] [--size 256]

`strangers.jpg` is for somebody who has not seen the others: which emotion is which? `strangers.txt` has the answers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from tqdm import tqdm

from speak.config import EMOTIONS, SynthConfig
from speak.synthetic.augment import augment
from speak.synthetic.corpus import Corpus
from speak.synthetic.corpus_files import write_clip
from speak.synthetic.expression import LEVEL_STRENGTH
from speak.synthetic.head import Rendered, render
from speak.synthetic.identity import HAIR_STYLES, IDENTITY_NAMES, RESTING, sample_identity
from speak.synthetic.motion import emotion_weights, natural_motion
from speak.synthetic.scene import sample_scene

MOUTHS = {
    "rest": (0, 0, 0, 0, 0, 0), "m": (0, 0, 0, 1, 0, 0), "a": (0.98, 0.15, 0, 0, 0, 0), "e": (0.52, 0.55, 0, 0, 0, 0),
    "i": (0.28, 0.85, 0, 0, 0, 0), "o": (0.65, 0, 0.6, 0, 0, 0), "u": (0.24, 0, 0.95, 0, 0, 0),
    "f": (0.12, 0.15, 0, 0, 1, 0), "th": (0.24, 0.25, 0, 0, 0, 1), "s": (0.13, 0.6, 0, 0, 0, 0),
    "sh": (0.20, 0, 0.7, 0, 0, 0), "l": (0.34, 0.25, 0, 0, 0, 0.3),
}  # fmt: skip


class Cast:
    """People and scenes of a seed, rendered in any pose, emotion and mouth."""

    def __init__(self, count: int, seed: int, size: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.identity, self.scene = sample_identity(count, generator), sample_scene(count, generator)
        self.seed, self.size = seed, size

    def render(self, who: Tensor, zoom: float = 1.0, pose: Tensor | None = None, weights: Tensor | None = None,
               mouth: Tensor | None = None, eyes: Tensor | None = None) -> Rendered:
        count = who.numel()
        full = torch.zeros(count, 6)
        full[:, 5] = 1
        full = full if pose is None else pose.clone()
        full[:, 5] *= zoom
        weights = emotion_weights("neutral", torch.ones(count)) if weights is None else weights
        mouth = torch.zeros(count, 6) if mouth is None else mouth
        eyes = torch.zeros(count, 4) if eyes is None else eyes
        return render(self.identity[who], full, weights, mouth, eyes, self.scene[who], self.size)


def to_images(frames: Tensor) -> list[Image.Image]:  # [B, 3, H, W] in [-1, 1]
    pixels = ((frames.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(picture) for picture in pixels]


def write_sheet(images: list[Image.Image], columns: int, path: Path, labels: list[str] | None = None) -> None:
    """Images in rows of `columns`, each with its label in the corner."""
    width, height = images[0].size
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height))
    for index, picture in enumerate(images):
        if labels:
            picture = picture.copy()
            ImageDraw.Draw(picture).text((5, 3), labels[index], fill="white", stroke_width=1, stroke_fill="black")
        sheet.paste(picture, (index % columns * width, index // columns * height))
    sheet.save(path, quality=80)


def people(cast: Cast, out: Path) -> None:
    write_sheet(to_images(cast.render(torch.arange(25)).frames), 5, out / "people.jpg")


def adults(cast: Cast, out: Path) -> None:
    """The people of `people` with the proportions of adults: ten ahead, then five turned, five in an emotion each."""
    other = Cast(10, cast.seed, cast.size)
    other.identity[:, IDENTITY_NAMES.index("lifelike")] = 1.0
    resting = [IDENTITY_NAMES.index(name) for name in RESTING]
    other.identity[:, resting] = torch.rand(10, len(resting), generator=torch.Generator().manual_seed(cast.seed))
    pose = torch.tensor([0, 0, 0, 0, 0, 1.0]).repeat(5, 1)
    pose[:, 0], pose[:, 1] = torch.linspace(-36, 36, 5), torch.tensor([15, -15, 0, -15, 15.0])
    moods = [name for name in EMOTIONS if name not in ("neutral", "contempt", "fear")]
    weights = torch.cat([emotion_weights(name, torch.ones(1)) for name in moods])
    some = torch.arange(5)
    shown = [other.render(torch.arange(10)), other.render(some, pose=pose), other.render(some + 5, weights=weights)]
    write_sheet([image for rendered in shown for image in to_images(rendered.frames)], 5, out / "adults.jpg")


def hair(cast: Cast, out: Path) -> None:
    other = Cast(len(HAIR_STYLES), 7, cast.size)
    place = IDENTITY_NAMES.index("hair_style")
    other.identity[:, place] = (torch.arange(len(HAIR_STYLES)) + 0.5) / len(HAIR_STYLES)
    write_sheet(to_images(other.render(torch.arange(len(HAIR_STYLES))).frames), 7, out / "hair.jpg", list(HAIR_STYLES))


def turns(cast: Cast, out: Path) -> None:
    angles = torch.linspace(-40, 40, 9)
    for axis, name in enumerate(("yaw", "pitch")):
        images, labels = [], []
        for person in range(4):
            pose = torch.zeros(9, 6)
            pose[:, 5] = 1
            pose[:, axis] = angles
            images += to_images(cast.render(torch.full((9,), person), pose=pose).frames)
            labels += [f"{name} {angle:.0f}" for angle in angles.tolist()]
        write_sheet(images, 9, out / f"{name}.jpg", labels)


def emotions(cast: Cast, out: Path) -> None:
    for number, person in enumerate((2, 9, 11)):
        images, labels = [], []
        for level, strength in enumerate(LEVEL_STRENGTH):
            weights = torch.cat([emotion_weights(name, torch.tensor([strength])) for name in EMOTIONS])
            images += to_images(cast.render(torch.full((8,), person), zoom=1.2, weights=weights).frames)
            labels += [f"{name} {level + 1}" for name in EMOTIONS]
        write_sheet(images, 8, out / f"emotions_{number}.jpg", labels)


def strangers(cast: Cast, out: Path) -> None:
    """A row a level, strongest first, of somebody new in every picture, their emotions in any order."""
    generator = torch.Generator().manual_seed(cast.seed)
    other = Cast(24, cast.seed + 1000, cast.size)
    images, labels, answers = [], [], []
    for row, level in enumerate((3, 2, 1)):
        order = torch.randperm(8, generator=generator)
        weights = torch.cat([emotion_weights(EMOTIONS[e], torch.tensor([LEVEL_STRENGTH[level - 1]])) for e in order])
        images += to_images(other.render(torch.arange(8 * row, 8 * row + 8), zoom=1.2, weights=weights).frames)
        labels += [f"{8 * row + column + 1}" for column in range(8)]
        answers.append(f"level {level}: " + " ".join(EMOTIONS[e] for e in order))
    write_sheet(images, 8, out / "strangers.jpg", labels)
    (out / "strangers.txt").write_text("\n".join(answers) + "\n")


def mouths(cast: Cast, out: Path) -> None:
    shapes = torch.tensor(list(MOUTHS.values()), dtype=torch.float32)
    images, labels = [], []
    for person, emotion in ((9, "neutral"), (1, "happy"), (2, "sad"), (3, "angry")):
        weights = emotion_weights(emotion, torch.full((len(MOUTHS),), 0.8))
        pose = torch.tensor([0, 0, 0, 0, -0.17, 1.0]).repeat(len(MOUTHS), 1)
        shown = to_images(cast.render(torch.full((len(MOUTHS),), person), 1.7, pose, weights, shapes).frames)
        edge = cast.size // 8
        images += [picture.crop((edge, 2 * edge, cast.size - edge, cast.size)) for picture in shown]
        labels += [f"{name} ({emotion})" for name in MOUTHS]
    write_sheet(images, len(MOUTHS), out / "mouths.jpg", labels)


def landmarks(cast: Cast, out: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    pose = (torch.rand(16, 6, generator=generator) * 2 - 1) * torch.tensor([40, 30, 15, 0.03, 0.03, 0.1])
    pose[:, 5] += 1.1
    weights = torch.eye(8).repeat(2, 1)
    mouth = torch.rand(16, 6, generator=generator) * torch.tensor([1, 1, 0.5, 0, 0, 0])
    rendered = cast.render(torch.arange(16), pose=pose, weights=weights, mouth=mouth)
    images = []
    for picture, points in zip(to_images(rendered.frames), rendered.landmarks, strict=True):
        picture = picture.resize((3 * cast.size // 2, 3 * cast.size // 2), Image.Resampling.LANCZOS)
        draw = ImageDraw.Draw(picture)
        for x, y in ((points + 0.5) * 1.5).tolist():
            draw.ellipse((x - 1.5, y - 1.5, x + 1.5, y + 1.5), fill=(0, 255, 0))
        images.append(picture)
    write_sheet(images, 4, out / "landmarks.jpg")


def motion(cast: Cast, out: Path) -> None:
    images = []
    for person, emotion in ((0, "happy"), (1, "sad"), (2, "surprised"), (3, "angry")):
        generator = torch.Generator().manual_seed(person)
        moved = natural_motion(90, generator, emotion, held=False)
        some = torch.arange(0, 90, 9)
        images += to_images(cast.render(torch.full((10,), person), pose=moved.pose[some], eyes=moved.eyes[some],
                                        weights=emotion_weights(emotion, moved.strength[some])).frames)
    write_sheet(images, 10, out / "motion.jpg")


def augmented(cast: Cast, out: Path) -> None:
    rendered = cast.render(torch.arange(24))
    write_sheet(to_images(augment(rendered.frames, torch.arange(24), rendered.visible)), 6, out / "augmented.jpg")


def clip(cast: Cast, out: Path) -> None:
    """Somebody happy who says a sentence."""
    corpus = Corpus(SynthConfig(seed=cast.seed, size=cast.size, seconds=3.0))
    happy = next(clip for clip in corpus.clips() if EMOTIONS[clip.emotion] == "happy")
    write_clip(corpus, happy, out / "clip.mp4")


def write_sheets(out: Path, seed: int = 0, size: int = 256) -> None:
    """All acceptance sheets as JPEG files, and a clip with sound, into the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    cast = Cast(25, seed, size)
    sheets = (people, adults, hair, turns, emotions, strangers, mouths, landmarks, motion, augmented, clip)
    for sheet in tqdm(sheets, desc="sheets"):
        sheet(cast, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).parent / "people"
    parser.add_argument("--out", type=Path, default=here, help="folder for the pictures (default examples/people)")
    parser.add_argument("--seed", type=int, default=0, help="whose faces (default 0)")
    parser.add_argument("--size", type=int, default=256, help="pixels a side (default 256)")
    arguments = parser.parse_args()
    write_sheets(arguments.out, arguments.seed, arguments.size)
    print(f"sheets written to {arguments.out}")

