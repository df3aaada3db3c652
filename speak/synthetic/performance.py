"""People and what they perform: everything about a rendered clip except its pixels and samples, exact and from a seed.

A person is a row of identity numbers and a voice that goes with the face. A performance is one sentence spoken by a
person in an emotion: pose, expression, mouth and eyes of every frame and the speech, all of it repeatable.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from speak.config import EMOTIONS, FRAME_RATE, sample_of_frame
from speak.errors import SpeakError
from speak.synthetic.expression import LEVEL_STRENGTH
from speak.synthetic.head import Rendered, render
from speak.synthetic.identity import IDENTITY_NAMES, RESTING, column, sample_identity
from speak.synthetic.motion import emotion_weights, natural_motion
from speak.synthetic.other_voices import Recording, record
from speak.synthetic.phones import TimedPhones, mouth_curve
from speak.synthetic.scene import Scene, sample_scene
from speak.synthetic.sentences import random_sentence
from speak.synthetic.voice import Utterance, Voice, random_voice, utter

NEUTRAL = EMOTIONS.index("neutral")

# Numbers that keep draws for different things apart: the last word of a seed.
_FACE, _VOICE, _WORDS, _READING, _MOTION, _SCENE, _PROPORTIONS = range(7)


def numpy_generator(*key: int) -> np.random.Generator:
    """A generator of its own for every row of non-negative numbers."""
    return np.random.default_rng(key)


def torch_generator(*key: int) -> torch.Generator:
    """The same for torch, on the CPU."""
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)
    return torch.Generator().manual_seed(seed)


@dataclasses.dataclass(frozen=True)
class Person:
    """Somebody: the numbers that the renderer draws, and a voice that goes with them."""

    identity: Tensor  # [K] in [0, 1], IDENTITY_NAMES
    voice: Voice

    @property
    def build(self) -> float:
        """-1 .. 1, from what is usual in women's faces to what is usual in men's."""
        return _build(self.identity)


@dataclasses.dataclass(frozen=True)
class Performance:
    """A clip of one sentence. All of it is on the CPU."""

    person: Person
    emotion: int  # index into EMOTIONS
    level: int  # 1 to 3
    speech: Utterance | Recording
    pose: Tensor  # [N, 6], POSE_NAMES
    emotion_weights: Tensor  # [N, 8], swelling and ebbing a little about the level's strength
    mouth: Tensor  # [N, 6], MOUTH_NAMES
    eyes: Tensor  # [N, 4], EYE_NAMES
    scene: Scene  # of one row

    @property
    def frames(self) -> int:
        return len(self.pose)

    @property
    def phones(self) -> TimedPhones:
        return self.speech.phones

    def sound(self) -> np.ndarray:  # [sample_of_frame(N)] float32
        """The speech of exactly these frames at 16 kHz."""
        return self.speech.waveform(0, sample_of_frame(self.frames))

    def render(self, frames: slice | Tensor, size: int, device: torch.device | str = "cpu") -> Rendered:
        """Pictures of some frames with their landmarks and the opening of the drawn mouth."""
        pose = self.pose[frames].to(device)
        count = len(pose)
        scene = Scene(self.scene.light.expand(count, -1), self.scene.background.expand(count, -1))
        return render(
            self.person.identity.expand(count, -1).to(device), pose, self.emotion_weights[frames].to(device),
            self.mouth[frames].to(device), self.eyes[frames].to(device), scene.to(device), size,
        )  # fmt: skip


def make_person(*key: int, lifelike: float = 0.0) -> Person:
    """The person of this key; the same key is the same person everywhere.

    lifelike: share of people with about the proportions of adults, 0 to 1; everybody else is a figurine. Which of the
    two a key is changes nothing else about the person. Raises SpeakError for another number.
    """
    if not 0 <= lifelike <= 1:
        raise SpeakError(f"lifelike={lifelike}: a share of people, 0 to 1")
    identity = sample_identity(1, torch_generator(*key, _FACE))[0]
    proportions = numpy_generator(*key, _PROPORTIONS)
    if proportions.random() < lifelike:
        identity[IDENTITY_NAMES.index("lifelike")] = proportions.uniform(0.6, 1.0)
        for name in RESTING:
            identity[IDENTITY_NAMES.index(name)] = proportions.random()
    return Person(identity, random_voice(numpy_generator(*key, _VOICE), _build(identity)))


def _build(identity: Tensor) -> float:
    numbers = [float(column(identity, name)) for name in ("jaw_width", "brow_thickness", "neck_width")]
    return float(np.clip((sum(numbers) / 3 - 0.5) * 5, -1, 1))


def weights_of(emotion: int, strength: float) -> Tensor:  # [8]
    """One emotion at a strength of 0 to 1, the rest neutral."""
    return emotion_weights(EMOTIONS[emotion], torch.tensor([strength]))[0]


def perform(
    person: Person,
    emotion: int,  # index into EMOTIONS
    level: int,  # 1 to 3
    words: tuple[int, ...],  # key of the sentence: others may say the same one
    take: tuple[int, ...],  # key of everything else: reading, motion, blinks, light
    seconds: float,  # about how long at an ordinary tempo
    installed_voice: str = "",  # the name of one of `other_voices.installed_voices`; "": the person's own voice
) -> Performance:
    """One sentence by one person in one emotion."""
    sentence = random_sentence(numpy_generator(*words, _WORDS), seconds)
    strength = LEVEL_STRENGTH[level - 1]
    weights = weights_of(emotion, strength).numpy()
    speech: Utterance | Recording
    if installed_voice:
        speech = record(installed_voice, sentence, person.voice, weights)
    else:
        speech = utter(sentence, person.voice, weights, (*take, _READING))
    frames = int(speech.phones.seconds * FRAME_RATE)
    motion = natural_motion(frames, torch_generator(*take, _MOTION), EMOTIONS[emotion], strength)
    return Performance(
        person, emotion, level, speech, motion.pose, emotion_weights(EMOTIONS[emotion], motion.strength),
        mouth_curve(speech.phones, frames), motion.eyes, sample_scene(1, torch_generator(*take, _SCENE)),
    )  # fmt: skip
