"""`python -m speak synth`: a corpus of rendered people, prepared or as MEAD lies on disks, with exact truth.

Every clip is a function of the seed, the person's number, the emotion, the level and the take: a corpus that was
interrupted goes on where it stopped, a larger one contains the smaller.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from speak.config import EMOTIONS, SynthConfig
from speak.errors import SpeakError
from speak.media.files import make_folder, whole_file
from speak.media.prepared import ClipRecord, PreparedWriter, safe_name, split_identities
from speak.synthetic.other_voices import installed_voices
from speak.synthetic.performance import NEUTRAL, Performance, Person, make_person, numpy_generator, perform

LAYOUTS = ("prepared", "mead")
_CORPUS = 3  # keeps the people of corpora apart from those of batches rendered on the fly (datasets/rendered.py)
_CHUNK = 16  # frames rendered at once


@dataclasses.dataclass(frozen=True)
class PlannedClip:
    """Which clip: everything else follows from it and the seed."""

    person: int
    identity: str  # as MEAD calls people: M or W and the number
    emotion: int  # index into EMOTIONS
    level: int  # 1 to 3
    take: int  # from 1

    @property
    def name(self) -> str:
        """The clip's name in a prepared corpus, what `prepare` makes of the same clip of the MEAD layout."""
        return safe_name(f"{self.identity}#front#{EMOTIONS[self.emotion]}#level_{self.level}#{self.take:03d}")


class Corpus:
    """The corpus of one seed, to be asked for any of its clips."""

    def __init__(self, config: SynthConfig) -> None:
        if config.voices not in ("own", "installed"):
            raise SpeakError(f"unknown voices '{config.voices}': choose own or installed")
        self.config = config
        self._voices = installed_voices() if config.voices == "installed" else []

    def person(self, number: int) -> Person:
        return make_person(self.config.seed, _CORPUS, number)

    def clips(self) -> Iterator[PlannedClip]:
        """Every clip in order: each person's emotions in turn at changing levels, then further takes."""
        for number in range(self.config.identities):
            identity = f"{'M' if self.person(number).build > 0 else 'W'}{number + 1:03d}"
            for index in range(self.config.clips):
                emotion, level, take = _combination(index)
                yield PlannedClip(number, identity, emotion, level, take)

    def perform(self, clip: PlannedClip) -> Performance:
        """The clip's truth, ready to be rendered. The words go with emotion, level and take, as in MEAD."""
        person = self.person(clip.person)
        what = (clip.emotion, clip.level, clip.take)
        return perform(
            person, clip.emotion, clip.level, (self.config.seed, _CORPUS, *what),
            (self.config.seed, _CORPUS, clip.person, *what), self.config.seconds, self._voice_of(person, clip.person),
        )  # fmt: skip

    def _voice_of(self, person: Person, number: int) -> str:
        """Half of the people keep a voice of their own, the others speak with one that is installed and fits."""
        fitting = [name for name in self._voices if ("+f" in name or "slt" in name) == (person.build < 0)]
        place = int(numpy_generator(self.config.seed, _CORPUS, number, 99).integers(2 * max(1, len(fitting))))
        return fitting[place] if place < len(fitting) else ""


def _combination(index: int) -> tuple[int, int, int]:
    """Emotion, level and take of a person's clip: all emotions before a second level, 22 clips a take."""
    take, place = divmod(index, 3 * len(EMOTIONS) - 2)
    if place < len(EMOTIONS):
        level = 1 if place == NEUTRAL else 1 + (place + 1) % 3
        return place, level, take + 1
    place -= len(EMOTIONS)
    turn, place = divmod(place, len(EMOTIONS) - 1)
    emotion = place + (place >= NEUTRAL)
    return emotion, 1 + (emotion + 2 + turn) % 3, take + 1


def frames_and_labels(
    performance: Performance, size: int, device: str
) -> tuple[Iterator[np.ndarray], dict[str, np.ndarray]]:
    """Frames, uint8 [S, S, 3] one by one, and the labels of the prepared corpus, whole when the frames have run out."""
    phones = performance.phones
    kept = phones.starts < performance.frames / 30
    labels: dict[str, np.ndarray] = {
        "pose": performance.pose.numpy(),
        "phones": np.array(phones.names)[kept],
        "phone_times": np.stack([phones.starts, phones.ends], 1)[kept],
    }

    def frames() -> Iterator[np.ndarray]:
        landmarks, openings = [], []
        for first in range(0, performance.frames, _CHUNK):
            rendered = performance.render(slice(first, first + _CHUNK), size, device)
            landmarks.append(rendered.landmarks.float().cpu().numpy())
            openings.append(rendered.mouth_opening.float().cpu().numpy())
            yield from to_uint8(rendered.frames)
        labels["landmarks"], labels["mouth_opening"] = np.concatenate(landmarks), np.concatenate(openings)

    return frames(), labels


def to_uint8(frames: torch.Tensor) -> np.ndarray:  # [N, 3, H, W] in [-1, 1] -> uint8 [N, H, W, 3]
    """Frames as they lie on disk."""
    return ((frames.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def write_prepared(corpus: Corpus, folder: Path, device: str) -> int:
    """Writes or completes a prepared corpus; returns how many clips are new."""
    from tqdm import tqdm

    config = corpus.config
    writer = PreparedWriter(folder, config.jpeg_quality)
    writer.remove_leftovers()
    clips = list(corpus.clips())
    known = {record.identity: record.split for record in writer.records.values()}
    splits = split_identities([clip.identity for clip in clips], known)
    missing = [clip for clip in clips if not writer.has(clip.name)]
    for clip in tqdm(missing, desc=f"synth {folder}", unit="clip"):
        performance = corpus.perform(clip)
        frames, labels = frames_and_labels(performance, config.size, device)
        record = ClipRecord(
            name=clip.name, identity=clip.identity, frames=performance.frames, emotion=EMOTIONS[clip.emotion],
            level=clip.level, split=splits[clip.identity], box_from="rendered",
        )  # fmt: skip
        writer.write(record, frames, performance.sound(), labels)
    return len(missing)


def write_mead(corpus: Corpus, folder: Path, device: str) -> int:
    """Writes or completes a tree of MEAD's layout; returns how many clips are new.

    M003/video/front/EMOTION/level_L/001.mp4 without sound, M003/audio/EMOTION/level_L/001.m4a at 48 kHz stereo. A clip
    is there when both are; the sound is written last.
    """
    from tqdm import tqdm

    from speak.media.video import VideoWriter

    new = 0
    for clip in tqdm(list(corpus.clips()), desc=f"synth {folder}", unit="clip"):
        place = Path(EMOTIONS[clip.emotion]) / f"level_{clip.level}"
        video = folder / clip.identity / "video" / "front" / place / f"{clip.take:03d}.mp4"
        sound = folder / clip.identity / "audio" / place / f"{clip.take:03d}.m4a"
        if video.exists() and sound.exists():
            continue
        make_folder(video.parent)
        make_folder(sound.parent)
        performance = corpus.perform(clip)
        frames, _ = frames_and_labels(performance, corpus.config.size, device)
        with VideoWriter(video) as writer:
            for frame in frames:
                writer.write(frame)
        _write_m4a(sound, performance.sound())
        new += 1
    return new


def _write_m4a(path: Path, sound: np.ndarray) -> None:
    """AAC at 48 kHz stereo, as MEAD has it; whole or not at all."""
    from speak.media.audio import write_wav
    from speak.media.ffmpeg import Ffmpeg, file_argument

    with whole_file(path) as temporary:
        wav = Path(f"{temporary}.wav")
        try:
            write_wav(wav, sound)
            process = Ffmpeg(
                ["-y", "-i", file_argument(wav), "-ar", "48000", "-ac", "2", "-c:a", "aac", "-b:a", "192k",
                 "-f", "ipod", file_argument(temporary)],
                stdin=False, name=path,
            )  # fmt: skip
            if process.finish() != 0:
                raise SpeakError(f"{path}: not written ({process.complaint()})")
        finally:
            wav.unlink(missing_ok=True)


def write_preview(corpus: Corpus, folder: Path, device: str) -> list[Path]:
    """A sheet of people (rows) in the eight emotions (columns) while they speak, and the first clip with its sound."""
    from tqdm import tqdm

    from speak.media.audio import write_wav
    from speak.media.image import write_image
    from speak.media.video import VideoWriter

    make_folder(folder)
    people = min(corpus.config.identities, 6)
    rows = []
    for number in tqdm(range(people), desc="preview", unit="person"):
        row = []
        for emotion in range(len(EMOTIONS)):
            performance = corpus.perform(PlannedClip(number, "", emotion, 1 if emotion == NEUTRAL else 3, 1))
            middle = torch.tensor([int(0.55 * performance.frames)])
            row.append(to_uint8(performance.render(middle, corpus.config.size, device).frames)[0])
        rows.append(np.concatenate(row, 1))
    sheet, video = folder / "preview.png", folder / "preview.mp4"
    write_image(sheet, np.concatenate(rows, 0))
    performance = corpus.perform(next(corpus.clips()))
    wav = folder / ".preview.wav"
    try:
        write_wav(wav, performance.sound())
        with VideoWriter(video, audio=wav) as writer:
            for frame in frames_and_labels(performance, corpus.config.size, device)[0]:
                writer.write(frame)
    finally:
        wav.unlink(missing_ok=True)
    return [sheet, video]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `python -m speak synth`."""
    default = SynthConfig()
    parser.add_argument("--out", type=Path, required=True, help="folder of the corpus; an interrupted one goes on")
    parser.add_argument("--identities", type=int, default=default.identities, help="people (default %(default)s)")
    parser.add_argument("--clips", type=int, default=default.clips, help="clips a person (default %(default)s)")
    parser.add_argument("--layout", choices=LAYOUTS, default="prepared", help="prepared, or raw as MEAD is (mp4, m4a)")
    parser.add_argument("--seed", type=int, default=default.seed, help="other people and sentences (default 0)")
    parser.add_argument("--size", type=int, default=default.size, help="pixels of a frame's side (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=default.seconds, help="about how long a clip is")
    parser.add_argument("--voices", choices=("own", "installed"), default=default.voices,
                        help="own: the same bytes everywhere; installed: half of the people speak with espeak-ng or "
                        "flite, if they are installed")  # fmt: skip
    parser.add_argument("--device", default="cpu", help="where to render: cpu or cuda (default cpu)")
    parser.add_argument("--preview", action="store_true", help="only a sheet of people and one clip, to look at")


def run(arguments: argparse.Namespace) -> None:
    """Runs `python -m speak synth`."""
    for name, least in (("identities", 1), ("clips", 1), ("seed", 0), ("size", 32), ("seconds", 0.5)):
        if getattr(arguments, name) < least:
            raise SpeakError(f"--{name} {getattr(arguments, name)}: at least {least}")
    if arguments.identities > 999 and arguments.layout == "mead":
        raise SpeakError(f"--identities {arguments.identities}: MEAD's names have three digits, at most 999")
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        raise SpeakError(f"--device {arguments.device}: no CUDA device here, use --device cpu")
    names = [field.name for field in dataclasses.fields(SynthConfig) if hasattr(arguments, field.name)]
    corpus = Corpus(SynthConfig(**{name: getattr(arguments, name) for name in names}))
    make_folder(arguments.out)
    if arguments.preview:
        for path in write_preview(corpus, arguments.out, arguments.device):
            print(path)
        return
    write = write_prepared if arguments.layout == "prepared" else write_mead
    new = write(corpus, arguments.out, arguments.device)
    print(f"{arguments.out}: {new} new clips of {arguments.identities * arguments.clips}")
