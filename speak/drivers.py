"""What drives the head and the feeling: videos, pictures, tables of angles, labels, or nothing, as streams of codes.

A driver is a stream of blocks of codes [n, D] at 30 frames/s. Streams of driving videos are played to any length,
smoothed against jitter, and taken piece by piece as frames are generated.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from speak.config import EMOTIONS, FRAME_RATE, POSE_CENTRE, AnimateConfig, PrepareConfig
from speak.errors import SpeakError
from speak.media.face import already_cropped, crop, crop_box, find_face, whole_square
from speak.media.face_detection import LOOK_AT, Box, Face, best_detector
from speak.media.face_track import choose, join
from speak.media.image import SUFFIXES, read_image
from speak.media.video import VideoReader, probe
from speak.models.pose_mapper import NEUTRAL
from speak.models.speak import Speak
from speak.pose_tables import TABLE_SUFFIXES, read_poses
from speak.synthetic.motion import eye_motion, head_motion

ENDS = ("pingpong", "hold", "cut")  # what follows when a driving video is shorter than the speech
POSE_MODES = ("relative", "absolute")  # the video's motion from the photo's pose on, or the video's poses themselves
LARGEST_STRENGTH = 2.0
PIECE = 256  # frames; longer blocks of codes are worked on in pieces
Codes = Iterator[Tensor]  # blocks [n, D]


def as_frames(
    pictures: Iterable[np.ndarray],  # uint8 [H, W, 3]
    device: torch.device | str = "cpu",
) -> Tensor:
    """[N, 3, H, W] in [-1, 1]."""
    stacked = torch.from_numpy(np.stack(list(pictures))).to(device)
    return stacked.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def parse_emotions(text: str) -> dict[str, float]:
    """`LABEL[:STRENGTH][,LABEL:STRENGTH]` as {label: strength}, strengths 0 to 1, default 1.

    Raises SpeakError for an unknown label, one named twice, a strength that is no number or out of range.
    """
    strengths: dict[str, float] = {}
    for part in text.split(","):
        label, _, strength = part.strip().partition(":")
        if label not in EMOTIONS:
            raise SpeakError(f"--emotion {text}: unknown emotion '{label}': choose from {', '.join(EMOTIONS)}")
        if label in strengths:
            raise SpeakError(f"--emotion {text}: '{label}' is there twice")
        try:
            strengths[label] = float(strength) if strength else 1.0
        except ValueError:
            raise SpeakError(f"--emotion {text}: '{strength}' is no number: write it as {label}:0.5") from None
        if not 0 <= strengths[label] <= 1:
            raise SpeakError(f"--emotion {text}: the strength of '{label}' goes from 0 to 1")
    return strengths


def is_label(text: str) -> bool:
    """True for `happy`, `happy:0.5,sad:0.2` and the like; False for what must be a file."""
    return text.split(",")[0].partition(":")[0].strip() in EMOTIONS and not Path(text).exists()


def check_strength(name: str, strength: float) -> None:
    """Raises SpeakError unless 0 <= strength <= 2."""
    if not 0 <= strength <= LARGEST_STRENGTH:
        raise SpeakError(f"{name} {strength:g}: give a number from 0 to {LARGEST_STRENGTH:g}")


class Drivers:
    """Turns what the user gives into codes of one model.

    Args:
        model: encodes driving pictures.
        image_size: pixels of the frames that it reads.
        notes: collects remarks for the user.
        grow: of the crop about a face, as in the model's training.
    """

    def __init__(
        self, model: Speak, image_size: int, config: AnimateConfig, notes: list[str],
        grow: float = PrepareConfig().grow,
    ) -> None:  # fmt: skip
        self.model, self.image_size, self.config, self.notes, self.grow = model, image_size, config, notes, grow
        self.device = next(model.parameters()).device

    def pose(
        self,
        source: str | Path | np.ndarray | Tensor | None,  # video, picture, table, poses [N, 6], or none
        photo: Tensor,  # f_P [D_P] of the photo
        frames: int,
        seed: int,
        strength: float = 1.0,  # 0: the head stays as in the photo; 1: as driven; 2: twice as far from the photo
        mode: str = "relative",  # of a video
    ) -> tuple[Codes, bool]:
        """f_P in blocks, and whether the driver ends (a video or table does, a picture or nothing does not).

        Relative: the head moves about its pose in the photo as the video's moves about its mean, so that it stays where
        it is in the photo, and as large. What a picture or numbers say is always taken as it is.
        """
        check_strength("--pose-strength", strength)
        if mode not in POSE_MODES:
            raise SpeakError(f"--pose-mode {mode}: choose {' or '.join(POSE_MODES)}")
        ends = False
        if source is None:
            codes = self._natural_motion(photo, frames, seed)
        elif isinstance(source, np.ndarray | Tensor):
            codes, ends = self._numbers(torch.as_tensor(np.asarray(source), dtype=torch.float32)), True
        elif Path(source).suffix.lower() in TABLE_SUFFIXES:
            codes, ends = self._numbers(read_poses(source)), True
        elif is_picture(source):
            codes = iter([self._picture(source, self.model.encode_pose)])
        else:
            box = self.driver_box(source, "pose")
            codes, ends = self._video(source, self.model.encode_pose, box), True
            if mode == "relative":
                codes = _moved(codes, photo - self._mean_pose(source, box))
        return _away_from(codes, photo, strength), ends

    def emotion(
        self,
        source: str | Path | dict[str, float] | None,  # video, picture, labels with strengths, or none: neutral
        photo: Tensor,  # f_E [D_E] of the photo, for weights that know no labels
        strength: float = 1.0,  # 0: neutral; 1: as driven; 2: twice as far from neutral
    ) -> tuple[Codes, bool]:
        """f_E in blocks, and whether the driver ends."""
        check_strength("--emotion-strength", strength)
        prototypes = self.model.emotion_prototypes
        neutral = prototypes.codes[NEUTRAL, 0] if prototypes.known[NEUTRAL] else photo
        ends = False
        if isinstance(source, str) and is_label(source):
            source = parse_emotions(source)
        if source is None:
            if neutral is photo:
                self.notes.append("emotion: these weights know no neutral face, the photo's own is kept")
            codes = iter([neutral[None]])
        elif isinstance(source, dict):
            codes = iter([self.model.emotion_from_names(source)[None]])
        elif is_picture(source):
            codes = iter([self._picture(source, self.model.encode_emotion)])
        else:
            box = self.driver_box(source, "emotion")
            codes, ends = self._video(source, self.model.encode_emotion, box), True
        return _away_from(codes, neutral, strength), ends

    def _picture(self, path: str | Path, encode: Callable[[Tensor], Tensor]) -> Tensor:
        picture = read_image(path)
        found = find_face(picture, name=str(path), strict=False, grow=self.grow)
        with torch.no_grad():
            return encode(as_frames([crop(picture, found.box, self.image_size)], self.device))

    def _numbers(self, poses: Tensor) -> Codes:  # [N, 6]
        if poses.ndim != 2 or poses.shape[1] != len(POSE_CENTRE) or not len(poses) or not poses.isfinite().all():
            raise SpeakError(f"pose: give numbers [N, {len(POSE_CENTRE)}], not {list(poses.shape)}")
        with torch.no_grad():
            return iter([self.model.pose_from_numbers(poses.to(self.device))])

    def _natural_motion(self, photo: Tensor, frames: int, seed: int) -> Codes:
        """Gentle motion about the photo's own pose, eyes that look about and blink where the weights know of them.

        A still head where the weights take no poses in numbers.
        """
        if not self.model.pose_mapper.fitted:
            self.notes.append("pose: these weights take no poses in numbers, the head stays as in the photo")
            return iter([photo[None]])
        random = torch.Generator().manual_seed(seed)
        motion, rest = head_motion(frames, random, liveliness=self.config.liveliness), torch.tensor(POSE_CENTRE)
        motion = motion - motion.mean(0) + rest
        eyes = eye_motion(frames, random, pose=motion)
        with torch.no_grad():
            moved = self.model.pose_from_numbers(motion.to(self.device), eyes.to(self.device))
            return iter([photo + moved - self.model.pose_from_numbers(rest.to(self.device))])

    def _mean_pose(self, path: str | Path, box: tuple[int, int, int, int]) -> Tensor:  # [D_P]
        """Of frames spread over the video's beginning."""
        count, rate = self.config.mean_frames, self._rate(path, self.config.mean_frames)
        with VideoReader(path, rate, frames=count, box=box, size=(self.image_size,) * 2) as reader, torch.no_grad():
            return self.model.encode_pose(as_frames(list(reader), self.device)).mean(0)

    def _rate(self, path: str | Path, frames: int) -> Fraction:
        """Frames a second that are `frames` within the video's beginning."""
        seconds = min(probe(path).duration or 1.0, self.config.look_at_seconds)
        return min(Fraction(frames) / Fraction(max(seconds, 0.1)).limit_denominator(1000), Fraction(FRAME_RATE))

    def _video(
        self, path: str | Path, encode: Callable[[Tensor], Tensor], box: tuple[int, int, int, int]
    ) -> Codes:
        def blocks() -> Codes:
            with VideoReader(path, box=box, size=(self.image_size,) * 2) as reader:
                frames = iter(reader)
                while batch := list(itertools.islice(frames, self.config.batch)):
                    with torch.no_grad():  # not around the yield: it would be in force for the caller too
                        codes = encode(as_frames(batch, self.device))
                    yield codes

        stream = blocks()
        first = next(stream)  # a video without a picture is refused before anything is generated
        return itertools.chain([first], stream)

    def driver_box(self, path: str | Path, what: str) -> tuple[int, int, int, int]:
        """One crop for all of a driving video: the median of the largest face's boxes; without any the middle."""
        info = probe(path)
        looks, rate = self.config.look_at_frames, self._rate(path, self.config.look_at_frames)
        factor = max(1.0, max(info.width, info.height) / LOOK_AT)
        size = max(1, round(info.width / factor)), max(1, round(info.height / factor))
        detector, found = best_detector(), []
        with VideoReader(path, rate, frames=looks, size=size) as reader:
            for index, frame in enumerate(reader):
                faces = [Face(face.box.scaled(factor), face.confidence) for face in detector.find(frame)]
                found.append((index / float(rate), faces))
        tracks = join(found)
        track = choose(tracks)
        if track is None or (not detector.tracks and len(track.boxes) < len(found) / 3):
            part = "all of it" if info.width == info.height else "the middle"
            self.notes.append(f"{what} video {path}: no face found by the {detector.name}, {part} is taken")
            return whole_square(info.width, info.height)
        if len([other for other in tracks if other.size() > track.size() / 3]) > 1:
            self.notes.append(f"{what} video {path}: {len(tracks)} faces, the largest is taken")
        middle = np.median([(box.x, box.y, box.w, box.h) for box in track.boxes], axis=0)
        head = Box(*(float(value) for value in middle))
        if already_cropped(crop_box(head, info.width, info.height), info.width, info.height, detector.tracks):
            return whole_square(info.width, info.height)
        return crop_box(head, info.width, info.height, self.grow)


def is_picture(path: str | Path) -> bool:
    """By its suffix; an animated GIF is a video."""
    suffix = Path(path).suffix.lower()
    return suffix in SUFFIXES and suffix != ".gif"


def _moved(codes: Codes, way: Tensor) -> Codes:
    return (block + way for block in codes)


def _away_from(codes: Codes, centre: Tensor, strength: float) -> Codes:
    return codes if strength == 1 else (centre + strength * (block - centre) for block in codes)


def played(codes: Codes, end: str) -> Codes:
    """A driver's codes to any length: forwards and then back and forth (`pingpong`), or the last one held (`hold`).

    The turning frames are shown once, so that one step back follows one step forth. `cut`: nothing follows.
    """
    if end not in ENDS:
        raise SpeakError(f"--driver-end {end}: choose {', '.join(ENDS)}")
    seen, count = torch.zeros(0), 0  # grows by doubling: many small blocks that stay would leave holes in memory
    for block in codes:
        if end == "pingpong":
            if count + len(block) > len(seen):
                grown = block.new_empty(2 * (count + len(block)), block.shape[1])
                if count:
                    grown[:count] = seen[:count]
                seen = grown
            seen[count : count + len(block)] = block
            count += len(block)
        last = block[-1:]
        yield block
    if end == "hold":
        yield from itertools.repeat(last)
    elif end == "pingpong":
        whole = seen[:count].clone()
        if count == 1:
            yield from itertools.repeat(whole)
        del seen
        back, forth = whole[:-1].flip(0), whole[1:]
        while True:
            yield from back.split(PIECE)
            yield from forth.split(PIECE)


def smoothed(codes: Codes, deviation: float) -> Codes:
    """The codes through a Gaussian of `deviation` frames; at the ends over those frames that there are."""
    reach = round(3 * deviation)
    if reach < 1:
        yield from codes
        return
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / deviation) ** 2)
    held: Tensor | None = None  # from `reach` before the next output on
    before = 0  # of them, how many lie before the next output
    pieces = (piece for block in codes for piece in block.split(PIECE))
    for block in itertools.chain(pieces, [None]):
        if block is not None:
            held = block if held is None else torch.cat([held, block])
        if held is None:
            return
        ready = len(held) - before - (reach if block is not None else 0)
        if ready < 1:
            continue
        place = torch.arange(before, before + ready)[:, None] - torch.arange(len(held))
        weights = torch.where(place.abs() <= reach, taps[(place + reach).clamp(0, 2 * reach)], torch.zeros(()))
        yield (weights / weights.sum(1, keepdim=True)).to(held) @ held
        keep = max(0, before + ready - reach)
        before += ready - keep
        held = held[keep:].clone()


class Taken:
    """A stream of codes to be taken in pieces of any length."""

    def __init__(self, codes: Codes) -> None:
        self._codes = codes
        self._held: Tensor | None = None

    def take(self, count: int) -> Tensor:
        """The next codes [count, D]; fewer where the stream has ended."""
        while self._held is None or len(self._held) < count:
            block = next(self._codes, None)
            if block is None:
                break
            self._held = block if self._held is None or not len(self._held) else torch.cat([self._held, block])
        if self._held is None:
            return torch.zeros(0, 0)
        taken, self._held = self._held[:count], self._held[count:].clone()
        return taken
