"""What rendered batches are drawn from: units (some pictures of somebody, with their speech) and their uses.

A unit is rendered once and used several times, each time another way: an exchange of another factor, another shift of
the speech, another augmentation. Unit u depends on seed, split, stage and u; use k on those and k. No pictures here.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import torch
from torch import Tensor

from speak.config import EMOTIONS, FRAME_RATE, RenderedConfig, sample_of_frame
from speak.datasets.rendered_pictures import Look, Mood, Pictures, in_mood, picture_of, pictures_of
from speak.errors import SpeakError
from speak.models.codes import FACTORS
from speak.synthetic.expression import LEVEL_STRENGTH
from speak.synthetic.other_voices import Recording, fitting_voices, record
from speak.synthetic.performance import (
    NEUTRAL,
    Performance,
    Person,
    make_person,
    numpy_generator,
    perform,
    torch_generator,
    weights_of,
)
from speak.synthetic.phones import MOUTH_NAMES, PHONE_NAMES, PHONES, frame_times, mouth_at
from speak.synthetic.scene import sample_scene
from speak.synthetic.sentences import random_sentence
from speak.synthetic.speech_conditions import disturbed
from speak.synthetic.voice import Utterance, random_voice, utter

_FACE_CENTRE = np.array([0.0, 0.1])  # image widths from the middle: between eyes and mouth
CUBE = {"identity": 4, "emotion": 2, "pose": 1}  # stage irfd: what a picture's place in its unit of eight has of each
_FRESH = 256  # units that the first uses are drawn from, if so many are kept
_PEOPLE, _UNITS, _USES = 0, 1, 2  # the third word of a seed
_NEARNESS = 7  # the last word of a seed: of how near a clip is
_STAGE_NUMBER = {"irfd": 0, "judge": 1, "audio": 2, "syncnet": 3, "speak": 4}
_VISEMES = torch.tensor([phone.mouth for name, phone in PHONES.items() if name != "sil"])


@dataclasses.dataclass
class Sample:
    """One unit of a stage: its pictures in the order that the stage knows, and its other tensors."""

    pictures: Pictures | None
    tensors: dict[str, Tensor]


class Draws:
    """The units of one stage and their uses. `key`: seed and split; `kept`: how many units are at hand at a time."""

    def __init__(self, stage: str, key: tuple[int, int], config: RenderedConfig, kept: int) -> None:
        if config.nearest < 1:
            raise SpeakError(f"rendered.nearest {config.nearest}: 1 or more, what faces are zoomed by at most")
        self.stage, self.key, self.config, self.kept = stage, key, config, kept

    def unit(self, number: int) -> Sample:
        """Unit number `number`, whoever asks."""
        key = (*self.key, _UNITS, _STAGE_NUMBER[self.stage], number)
        return getattr(self, f"_{self.stage}")(numpy_generator(*key), key)

    def use(self, index: int) -> tuple[int, dict[str, Tensor]]:
        """Sample number `index`: which unit it uses, and how (see the stages' `_use_*`).

        Units come into use one after the other, one every `rendered.uses` samples (stage `judge`:
        `frame_uses`), and go out `kept` units later.
        """
        key = (*self.key, _USES, _STAGE_NUMBER[self.stage])
        shared = index // 2 if self.stage == "judge" else index  # the judge sees two frames of each person
        uses = self.config.frame_uses if self.stage == "judge" else self.config.uses
        newest = shared // uses + min(self.kept, _FRESH)
        unit = int(numpy_generator(*key, shared, 0).integers(max(newest - self.kept, 0), newest))
        how = getattr(self, f"_use_{self.stage}", None)
        return unit, how(numpy_generator(*key, index, 1), index) if how else {}

    def person(self, number: int) -> Person:
        """Person number `number` of this seed and split."""
        return _person(self.config.lifelike, *self.key, _PEOPLE, number)

    def _irfd(self, generator: np.random.Generator, key: tuple[int, ...]) -> Sample:
        """Two people, two moods, two poses: the eight pictures of every combination, in the order of CUBE."""
        first, second = self._two_people(generator)
        looks = self._look(generator, first, (*key, 0)), self._look(generator, second, (*key, 1))
        mood = self._mood(generator)
        moods = mood, self._mood(generator, unlike=mood.emotion)
        poses = [(self._pose(generator, (*key, place)), look.eyes) for place, look in enumerate(looks)]
        rows = [picture_of(look, mood, *pose) for look in looks for mood in moods for pose in poses]
        return Sample(Pictures.joined(rows), {})

    def _use_irfd(self, generator: np.random.Generator, index: int) -> dict[str, Tensor]:
        """Which of the eight pictures is S (T is the one that differs in everything), and the factor to exchange."""
        return {"source": torch.tensor(int(generator.integers(8))),
                "factor": torch.tensor(int(generator.integers(len(FACTORS))))}  # fmt: skip

    def _judge(self, generator: np.random.Generator, key: tuple[int, ...]) -> Sample:
        """Two frames of one person, so that identity can be learnt by comparison."""
        number = int(generator.integers(self.config.identities))
        keys = (*key, 0), (*key, 1)
        rows = []
        for own in keys:
            look = self._look(generator, number, own)
            rows.append(picture_of(look, self._mood(generator), self._pose(generator, own), look.eyes))
        return Sample(Pictures.joined(rows), {})

    def _use_judge(self, generator: np.random.Generator, index: int) -> dict[str, Tensor]:
        """Which of the two frames, and the seed of what happens to it."""
        return {"place": torch.tensor(index % 2), "conditions": torch.tensor(int(generator.integers(2**60)))}

    def _audio(self, generator: np.random.Generator, key: tuple[int, ...]) -> Sample:
        """Speech of anybody, also of voices that no face goes with, with what the mouth does."""
        count = self.config.speech_frames
        voice = random_voice(generator)
        shifts = 2 ** generator.uniform(-0.25, 0.25, 2)
        voice = dataclasses.replace(
            voice, pitch=float(np.clip(voice.pitch * shifts[0], 60, 400)),
            tract=float(np.clip(voice.tract * shifts[1] ** 0.5, 0.62, 1.15)),
        )  # fmt: skip
        mood = self._mood(generator)
        sentence = random_sentence(generator, count / FRAME_RATE + 1.0)
        weights, installed = mood.weights[0].numpy(), self._installed_voice(generator, float(generator.uniform(-1, 1)))
        utterance = record(installed, sentence, voice, weights) if installed else utter(sentence, voice, weights, key)
        frames = int(utterance.phones.seconds * FRAME_RATE)
        first = int(generator.integers(-9, max(3, frames - count) + 1))
        times = frame_times(first, count)
        return Sample(None, {
            "speech": self._speech(
                utterance, first, count, generator if generator.random() < self.config.augmented_speech else None
            ),
            "phones": torch.from_numpy(utterance.phones.label_at(times)),
            "mouth": mouth_at(utterance.phones, times),
        })  # fmt: skip

    def _syncnet(self, generator: np.random.Generator, key: tuple[int, ...]) -> Sample:
        """A window, the speech about it, and as much speech of another sentence by the same voice."""
        number, mood = int(generator.integers(self.config.identities)), self._mood(generator)
        performance, foreign = self._perform(number, mood, key), self._perform(number, mood, (*key, 2))
        count, reach = self.config.frames, self.config.longest_shift
        first = self._busy_window(performance, generator)
        conditions = generator if generator.random() < self.config.augmented_speech else None
        speech, other = (self._speech(one.speech, first - reach, count + 2 * reach, conditions)
                         for one in (performance, foreign))  # fmt: skip
        window = torch.arange(first, first + count).clamp(max=performance.frames - 1)
        return Sample(pictures_of(performance, number, window), {"speech": speech, "foreign": other})

    def _use_syncnet(self, generator: np.random.Generator, index: int) -> dict[str, Tensor]:
        """With its own speech, speech of another moment, or another sentence."""
        matched, foreign, shift = bool(generator.random() < self.config.matched), False, 0
        if not matched:
            foreign = bool(generator.random() < 0.25)
        if not matched and not foreign:
            shift = int(generator.integers(2, self.config.longest_shift + 1)) * int(generator.choice((-1, 1)))
        return {"matched": torch.tensor(float(matched)), "foreign": torch.tensor(foreign), "shift": torch.tensor(shift)}

    def _speak(self, generator: np.random.Generator, key: tuple[int, ...]) -> Sample:
        """Identity frame, window, its poses and eyes on somebody else, emotion frames from elsewhere; speech around.

        Then the person in another emotion, and the emotion on somebody else.
        """
        config, count = self.config, self.config.frames
        number, other = self._two_people(generator)
        mood = self._mood(generator)
        performance = self._perform(number, mood, key)
        first = int(generator.integers(0, max(0, performance.frames - count) + 1))
        window = torch.arange(first, first + count).clamp(max=performance.frames - 1)
        elsewhere = torch.tensor([t for t in range(performance.frames) if not first <= t < first + count] or [0])
        picks = torch.from_numpy(generator.integers(0, len(elsewhere), 1 + config.emotion_frames))
        shown = pictures_of(performance, number, torch.cat([elsewhere[picks[:1]], window, elsewhere[picks[1:]]]))
        driver = self._perform(other, self._mood(generator, unlike=mood.emotion), (*key, 3))
        begin = int(generator.integers(0, max(1, driver.frames - count)))
        driving = pictures_of(driver, other, torch.arange(begin, begin + count).clamp(max=driver.frames - 1))
        driving = dataclasses.replace(driving, pose=performance.pose[window], eyes=performance.eyes[window])
        otherwise, places = self._mood(generator, unlike=mood.emotion), generator.integers(0, len(elsewhere), 1)
        in_another_mood = in_mood(
            pictures_of(performance, number, elsewhere[torch.from_numpy(places)]), otherwise, otherwise.weights
        )
        places = torch.from_numpy(generator.integers(0, driver.frames, config.emotion_frames))
        strengths = performance.emotion_weights[elsewhere[picks[1:]]]
        on_another = in_mood(pictures_of(driver, other, places), mood, strengths)
        pictures = Pictures.joined([shown[: 1 + count], driving, shown[1 + count :], in_another_mood, on_another])
        around = count + 2 * config.context
        speech = performance.speech.waveform(*_samples(first - config.context, around))
        return Sample(pictures, {
            "speech": torch.from_numpy(speech),
            "phones": torch.from_numpy(performance.phones.label_at(frame_times(first, count))),
        })  # fmt: skip

    def _two_people(self, generator: np.random.Generator) -> tuple[int, int]:
        first = int(generator.integers(self.config.identities))
        return first, (first + int(generator.integers(1, self.config.identities))) % self.config.identities

    def _mood(self, generator: np.random.Generator, unlike: int | None = None) -> Mood:
        """An emotion (another than `unlike`) at about one of MEAD's levels."""
        emotion = int(generator.integers(len(EMOTIONS) - (unlike is not None)))
        if unlike is not None and emotion >= unlike:
            emotion += 1
        level = 1 if emotion == NEUTRAL else int(generator.integers(1, 4))
        strength = float(np.clip(LEVEL_STRENGTH[level - 1] + generator.uniform(-0.1, 0.1), 0.0, 1.0))
        return Mood(emotion, level, weights_of(emotion, strength)[None])

    def _pose(self, generator: np.random.Generator, key: tuple[int, ...]) -> Tensor:  # [1, 6]
        config = self.config
        spread = np.array([config.yaw, config.pitch, config.roll, config.shift, config.shift, config.scale])
        cut = np.array([40.0, 30.0, 20.0, 0.1, 0.1, 0.15])
        pose = np.clip(generator.standard_normal(6) * spread, -cut, cut)
        pose[5] += 1
        return self._nearer(torch.from_numpy(pose).float()[None], key)

    def _nearer(self, pose: Tensor, key: tuple[int, ...]) -> Tensor:  # both [N, 6]
        """The same motion seen from as near as this clip is, and a little to one side.

        Real crops differ in how much of them a face fills; rendered ones do where `rendered.nearest` is above 1.
        """
        if self.config.nearest <= 1:
            return pose
        generator = numpy_generator(*key, _NEARNESS)
        zoom = self.config.nearest ** generator.random()
        x, y = generator.uniform(-0.15, 0.15, 2) * (zoom - 1) + _FACE_CENTRE * (1 - zoom)
        return pose * pose.new_tensor([1, 1, 1, zoom, zoom, zoom]) + pose.new_tensor([0, 0, 0, x, y, 0])

    def _look(self, generator: np.random.Generator, number: int, key: tuple[int, ...]) -> Look:
        scene = sample_scene(1, torch_generator(*key))
        first, second = (_VISEMES[int(place)] for place in generator.integers(0, len(_VISEMES), 2))
        amount = float(generator.beta(0.5, 0.5))  # mostly one phone or the other, sometimes between two
        mouth = (torch.lerp(first, second, amount) * float(generator.uniform(0.8, 1.0)))[None]
        if generator.random() < self.config.resting_mouths:
            mouth = torch.zeros(1, len(MOUTH_NAMES))
        gaze = np.clip(generator.standard_normal(2) * 0.35, -1, 1)
        blink = float(generator.random()) if generator.random() < self.config.blinks else 0.0
        eyes = torch.tensor([[blink, blink, *gaze]], dtype=torch.float32)
        return Look(number, self.person(number).identity, mouth, eyes, scene)

    def _perform(self, number: int, mood: Mood, key: tuple[int, ...]) -> Performance:
        person = self.person(number)
        installed = self._installed_voice(numpy_generator(*key, 4), person.build)
        performance = perform(person, mood.emotion, mood.level, key, key, self.config.sentence_seconds, installed)
        return dataclasses.replace(performance, pose=self._nearer(performance.pose, key))

    def _installed_voice(self, generator: np.random.Generator, build: float) -> str:
        """The name of an installed synthesiser's voice for a share of the sentences, else ""."""
        if generator.random() >= self.config.installed_voices:
            return ""
        fitting = fitting_voices(build)
        if not fitting:
            raise SpeakError(f"rendered.installed_voices {self.config.installed_voices}: espeak-ng or flite is missing")
        return fitting[int(generator.integers(len(fitting)))]

    def _busy_window(self, performance: Performance, generator: np.random.Generator) -> int:
        """First frame of a window in which somebody speaks: silence tells nothing about time."""
        count = self.config.frames
        starts = generator.integers(0, max(0, performance.frames - count) + 1, 8)
        for first in starts.tolist():
            if (performance.phones.label_at(frame_times(first, count)) != PHONE_NAMES.index("sil")).mean() > 0.7:
                break
        return first

    def _speech(
        self, utterance: Utterance | Recording, first: int, count: int, conditions: np.random.Generator | None
    ) -> Tensor:
        """The sound of frames, under bad conditions where given. Speech before the window makes the room's echo."""
        before = 9
        start, end = _samples(first - before, count + before)
        sound = utterance.waveform(start, end)
        if conditions is not None:
            sound = disturbed(sound, conditions)
        return torch.from_numpy(sound[-sample_of_frame(count) :].copy())


@functools.lru_cache(maxsize=4096)
def _person(lifelike: float, *key: int) -> Person:
    return make_person(*key, lifelike=lifelike)


def _samples(first: int, count: int) -> tuple[int, int]:
    """The stretch of `count` frames that starts with frame `first`: sample_of_frame(count) samples whatever `first`."""
    start = sample_of_frame(first)
    return start, start + sample_of_frame(count)
