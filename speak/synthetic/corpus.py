"""`python -m speak synth`: a corpus of rendered people, prepared or as MEAD lies on disks, with exact truth.

Every clip is a function of the seed, the person's number, the emotion, the level and the take: a corpus that was
interrupted goes on where it stopped, a larger one contains the smaller.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import torch

from speak.config import EMOTIONS, SynthConfig
from speak.errors import SpeakError
from speak.media.files import make_folder
from speak.media.prepared import safe_name
from speak.synthetic.other_voices import fitting_voices
from speak.synthetic.performance import NEUTRAL, Performance, Person, make_person, numpy_generator, perform

LAYOUTS = ("prepared", "mead")
_CORPUS = 3  # keeps the people of corpora apart from those of batches rendered on the fly (datasets/rendered.py)


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

    def person(self, number: int) -> Person:
        return make_person(self.config.seed, _CORPUS, number, lifelike=self.config.lifelike)

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
        fitting = fitting_voices(person.build) if self.config.voices == "installed" else []
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
    parser.add_argument("--lifelike", type=float, default=default.lifelike, metavar="SHARE",
                        help="share of people, 0 to 1, with the proportions of adults; the others are figurines")
    parser.add_argument("--voices", choices=("own", "installed"), default=default.voices,
                        help="own: the same bytes everywhere; installed: half of the people speak with espeak-ng or "
                        "flite, if they are installed")  # fmt: skip
    parser.add_argument("--device", default="cpu", help="where to render: cpu or cuda (default cpu)")
    parser.add_argument("--workers", type=int, help="processes that render (default one a core)")
    parser.add_argument("--preview", action="store_true", help="only a sheet of people and one clip, to look at")


def run(arguments: argparse.Namespace) -> None:
    """Runs `python -m speak synth`."""
    for name, least in (("identities", 1), ("clips", 1), ("seed", 0), ("size", 32), ("seconds", 0.5)):
        if getattr(arguments, name) < least:
            raise SpeakError(f"--{name} {getattr(arguments, name)}: at least {least}")
    if not 0 <= arguments.lifelike <= 1:
        raise SpeakError(f"--lifelike {arguments.lifelike}: a share of people, 0 to 1")
    if arguments.identities > 999 and arguments.layout == "mead":
        raise SpeakError(f"--identities {arguments.identities}: MEAD's names have three digits, at most 999")
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        raise SpeakError(f"--device {arguments.device}: no CUDA device here, use --device cpu")
    from speak.synthetic.corpus_files import usual_workers, write_mead, write_prepared, write_preview

    names = [field.name for field in dataclasses.fields(SynthConfig) if hasattr(arguments, field.name)]
    corpus = Corpus(SynthConfig(**{name: getattr(arguments, name) for name in names}))
    out, device = make_folder(arguments.out), arguments.device
    if arguments.preview:
        for path in write_preview(corpus, out, device):
            print(path)
        return
    write = write_prepared if arguments.layout == "prepared" else write_mead
    new = write(corpus, out, device, arguments.workers or usual_workers(device))
    print(f"{out}: {new} new clips of {arguments.identities * arguments.clips}")
    if arguments.layout == "mead":
        size = arguments.size
        print(f"next: python -m speak prepare {out} --layout mead --box 0,0,{size},{size} --size {size} --out PREPARED")
