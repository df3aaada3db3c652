"""The phones that rendered people speak: how each sounds, how long it lasts and what the mouth does, and the mouth
curve of a timed row of phones with coarticulation.

The inventory is English-like (ARPAbet names). Formants are those of a grown man (Peterson and Barney 1952 for vowels,
usual loci for consonants); `voice.py` scales them to each speaker. Mouths follow the visemes that lip readers tell
apart; blending follows the dominance functions of Cohen and Massaro (1993).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from speak.config import FRAME_RATE

# What the mouth can do, each 0 to 1: jaw open, corners stretched, lips rounded and protruded, lips pressed together,
# lower lip under the upper teeth, tongue between the teeth.
MOUTH_NAMES = ("open", "wide", "round", "press", "tuck", "tongue")


@dataclasses.dataclass(frozen=True)
class Phone:
    """One phone: its mouth, its sound, its length.

    kind: vowel, glide (w y r l), nasal, stop, affricate, fricative, breath (h) or silence.
    mouth: a value 0..1 for each of MOUTH_NAMES; hold: how much it insists on each when blended with its neighbours.
    formants: Hz of a grown man, F1 F2 F3. noise: name of the noise in `voice.py`, or "" for none.
    duration: typical seconds; closure: the first part of it in which the mouth is shut (stops, affricates).
    then: the phone whose mouth and formants it ends with (diphthongs).
    """

    kind: str
    mouth: tuple[float, float, float, float, float, float]
    hold: tuple[float, float, float, float, float, float]
    formants: tuple[float, float, float]
    voiced: bool
    noise: str
    duration: float
    closure: float = 0.0
    then: str = ""


_VOWEL = (1.0, 1.0, 1.0, 0.6, 0.6, 0.6)
_WEAK = (0.5, 0.1, 0.1, 0.5, 0.5, 0.5)  # made inside the mouth: the lips are free for the neighbours
_LIPS = (0.8, 0.12, 0.12, 0.8, 0.8, 0.8)
_TEETH = (0.8, 0.3, 0.3, 0.8, 0.8, 0.8)
_TONGUE = (0.8, 0.3, 0.3, 0.8, 0.8, 0.8)
_HISS = (1.3, 0.7, 0.5, 0.6, 0.6, 0.6)
_ROUND = (1.2, 1.0, 1.6, 0.6, 0.6, 0.6)
_LOOSE = (0.15, 0.05, 0.05, 0.2, 0.2, 0.2)
_REST = (0.8, 0.6, 0.6, 0.6, 0.6, 0.6)

PHONES: dict[str, Phone] = {
    "sil": Phone("silence", (0, 0, 0, 0, 0, 0), _REST, (500, 1500, 2500), False, "", 0.25),
    # vowels
    "iy": Phone("vowel", (0.28, 0.85, 0, 0, 0, 0), _VOWEL, (270, 2290, 3010), True, "", 0.120),
    "ih": Phone("vowel", (0.34, 0.60, 0, 0, 0, 0), _VOWEL, (390, 1990, 2550), True, "", 0.085),
    "eh": Phone("vowel", (0.52, 0.55, 0, 0, 0, 0), _VOWEL, (530, 1840, 2480), True, "", 0.100),
    "ae": Phone("vowel", (0.74, 0.60, 0, 0, 0, 0), _VOWEL, (660, 1720, 2410), True, "", 0.140),
    "aa": Phone("vowel", (0.98, 0.15, 0, 0, 0, 0), _VOWEL, (730, 1090, 2440), True, "", 0.145),
    "ao": Phone("vowel", (0.72, 0, 0.55, 0, 0, 0), _VOWEL, (570, 840, 2410), True, "", 0.140),
    "uh": Phone("vowel", (0.36, 0, 0.50, 0, 0, 0), _VOWEL, (440, 1020, 2240), True, "", 0.085),
    "uw": Phone("vowel", (0.24, 0, 0.95, 0, 0, 0), _VOWEL, (300, 870, 2240), True, "", 0.120),
    "ah": Phone("vowel", (0.62, 0.20, 0, 0, 0, 0), _VOWEL, (640, 1190, 2390), True, "", 0.095),
    "er": Phone("vowel", (0.36, 0, 0.40, 0, 0, 0), _VOWEL, (490, 1350, 1690), True, "", 0.125),
    "ax": Phone("vowel", (0.38, 0.20, 0, 0, 0, 0), (0.7, 0.6, 0.5, 0.6, 0.6, 0.6), (500, 1400, 2450), True, "", 0.060),
    "ey": Phone("vowel", (0.52, 0.60, 0, 0, 0, 0), _VOWEL, (500, 1880, 2500), True, "", 0.140, then="iy"),
    "ay": Phone("vowel", (0.95, 0.25, 0, 0, 0, 0), _VOWEL, (720, 1180, 2450), True, "", 0.165, then="iy"),
    "oy": Phone("vowel", (0.65, 0, 0.65, 0, 0, 0), _VOWEL, (540, 860, 2400), True, "", 0.175, then="iy"),
    "aw": Phone("vowel", (0.95, 0.20, 0, 0, 0, 0), _VOWEL, (720, 1200, 2430), True, "", 0.165, then="uw"),
    "ow": Phone("vowel", (0.58, 0, 0.65, 0, 0, 0), _VOWEL, (520, 920, 2350), True, "", 0.140, then="uw"),
    # glides
    "w": Phone("glide", (0.14, 0, 1.00, 0, 0, 0), _ROUND, (300, 680, 2200), True, "", 0.065),
    "y": Phone("glide", (0.22, 0.75, 0, 0, 0, 0), (0.9, 1, 0.8, 0.6, 0.6, 0.6), (270, 2250, 3000), True, "", 0.060),
    "r": Phone("glide", (0.26, 0, 0.50, 0, 0, 0), (0.9, 0.5, 1.0, 0.6, 0.6, 0.6), (350, 1150, 1600), True, "", 0.070),
    "l": Phone("glide", (0.34, 0.25, 0, 0, 0, 0.3), (0.7, 0.3, 0.3, 0.6, 0.6, 1.5), (360, 1050, 2750), True, "", 0.065),
    # nasals
    "m": Phone("nasal", (0, 0, 0, 1, 0, 0), _LIPS, (260, 1050, 2150), True, "", 0.075, closure=1.0),
    "n": Phone("nasal", (0.22, 0.30, 0, 0, 0, 0), _WEAK, (260, 1550, 2550), True, "", 0.065, closure=1.0),
    "ng": Phone("nasal", (0.32, 0.20, 0, 0, 0, 0), _WEAK, (260, 2000, 2500), True, "", 0.080, closure=1.0),
    # stops
    "p": Phone("stop", (0, 0, 0, 1, 0, 0), _LIPS, (300, 850, 2150), False, "p", 0.105, closure=0.65),
    "b": Phone("stop", (0, 0, 0, 1, 0, 0), _LIPS, (250, 850, 2150), True, "p", 0.075, closure=0.85),
    "t": Phone("stop", (0.20, 0.35, 0, 0, 0, 0), _WEAK, (300, 1750, 2700), False, "t", 0.095, closure=0.60),
    "d": Phone("stop", (0.20, 0.35, 0, 0, 0, 0), _WEAK, (250, 1750, 2700), True, "t", 0.065, closure=0.80),
    "k": Phone("stop", (0.32, 0.20, 0, 0, 0, 0), _WEAK, (300, 1900, 2350), False, "k", 0.105, closure=0.58),
    "g": Phone("stop", (0.32, 0.20, 0, 0, 0, 0), _WEAK, (250, 1900, 2350), True, "k", 0.070, closure=0.78),
    # affricates
    "ch": Phone("affricate", (0.20, 0, 0.65, 0, 0, 0), _ROUND, (300, 1850, 2650), False, "sh", 0.125, closure=0.40),
    "jh": Phone("affricate", (0.20, 0, 0.65, 0, 0, 0), _ROUND, (260, 1850, 2650), True, "sh", 0.100, closure=0.45),
    # fricatives
    "f": Phone("fricative", (0.12, 0.15, 0, 0, 1, 0), _TEETH, (320, 1100, 2200), False, "f", 0.100),
    "v": Phone("fricative", (0.12, 0.15, 0, 0, 1, 0), _TEETH, (280, 1100, 2200), True, "f", 0.065),
    "th": Phone("fricative", (0.24, 0.25, 0, 0, 0, 1), _TONGUE, (330, 1350, 2550), False, "th", 0.095),
    "dh": Phone("fricative", (0.24, 0.25, 0, 0, 0, 1), _TONGUE, (290, 1350, 2550), True, "th", 0.060),
    "s": Phone("fricative", (0.13, 0.60, 0, 0, 0, 0), _HISS, (320, 1650, 2600), False, "s", 0.110),
    "z": Phone("fricative", (0.13, 0.60, 0, 0, 0, 0), _HISS, (270, 1650, 2600), True, "s", 0.080),
    "sh": Phone("fricative", (0.20, 0, 0.70, 0, 0, 0), _ROUND, (320, 1850, 2650), False, "sh", 0.115),
    "zh": Phone("fricative", (0.20, 0, 0.70, 0, 0, 0), _ROUND, (270, 1850, 2650), True, "sh", 0.080),
    "h": Phone("breath", (0.45, 0.15, 0, 0, 0, 0), _LOOSE, (500, 1500, 2500), False, "h", 0.070),
}
PHONE_NAMES = tuple(PHONES)  # a phone's label is its index here; 0 is silence
SILENCE = 0

_PRESS, _TUCK, _TONGUE_INDEX = (MOUTH_NAMES.index(name) for name in ("press", "tuck", "tongue"))
_SPREAD = 0.032  # seconds in which a phone's say over the mouth falls to 1/e outside its core
_RAMP = 0.055  # seconds in which the lips close for a bilabial and open after it


@dataclasses.dataclass(frozen=True)
class TimedPhones:
    """A row of phones with their times: they follow each other without gaps, silence included."""

    labels: np.ndarray  # [P] int64, indices into PHONE_NAMES
    starts: np.ndarray  # [P] seconds, float64
    ends: np.ndarray  # [P] seconds, float64

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(PHONE_NAMES[label] for label in self.labels)

    @property
    def seconds(self) -> float:
        """The end of the last phone."""
        return float(self.ends[-1]) if len(self.ends) else 0.0

    @classmethod
    def from_durations(cls, names: list[str], seconds: list[float] | np.ndarray) -> TimedPhones:
        """Phones one after the other from time 0, e.g. (["sil", "m", "aa", "sil"], [.2, .08, .3, .2])."""
        ends = np.cumsum(np.asarray(seconds, np.float64))
        starts = np.concatenate([[0.0], ends[:-1]])
        return cls(np.array([PHONE_NAMES.index(name) for name in names], np.int64), starts, ends)

    def label_at(self, times: np.ndarray) -> np.ndarray:
        """The phone's label at each of `times` (any shape, seconds); silence before the first and after the last."""
        if not len(self.labels):
            return np.full(np.shape(times), SILENCE, np.int64)
        index = np.searchsorted(self.ends, times, side="right")
        inside = (index < len(self.ends)) & (np.asarray(times) >= self.starts[0])
        return np.where(inside, self.labels[np.minimum(index, len(self.ends) - 1)], SILENCE)


def frame_times(first: int, frames: int) -> np.ndarray:
    """The instant that each video frame shows: its middle, (t + 1/2) / 30 seconds, for frames first..first+frames-1."""
    return (np.arange(first, first + frames, dtype=np.float64) + 0.5) / FRAME_RATE


def mouth_curve(
    phones: TimedPhones,
    frames: int,  # N, at 30 frames a second from time 0
) -> Tensor:
    """What the mouth does in each frame: float32 [N, 6], the channels of MOUTH_NAMES, each 0..1.

    Neighbouring phones blend (coarticulation), but p, b and m always close the lips in at least one frame, f and v
    always tuck the lower lip, th and dh always show the tongue.
    """
    return mouth_at(phones, frame_times(0, frames))


def mouth_at(
    phones: TimedPhones,
    times: np.ndarray,  # [N] seconds
) -> Tensor:
    """`mouth_curve` at any instants: float32 [N, 6]."""
    times = np.asarray(times, np.float64)
    if not len(phones.labels):
        return torch.zeros(len(times), len(MOUTH_NAMES))
    starts, ends, mouths, holds = _targets(phones)
    # Only phones near the asked instants have a say; a training window asks for a few frames of a long sentence.
    near = (ends >= times.min() - 0.6) & (starts <= times.max() + 0.6)
    near[[0, -1]] |= not near.any()
    starts, ends, mouths, holds = starts[near], ends[near], mouths[near], holds[near]
    core = 0.25 * np.minimum(ends - starts, 0.12)  # long phones reach to their ends, short ones peak in the middle
    outside = np.maximum(np.maximum(starts + core - times[:, None], times[:, None] - (ends - core)), 0.0)  # [N, P]
    outside -= outside.min(axis=1, keepdims=True)  # the nearest phone has weight 1 whatever the distance
    weights = np.exp(-outside / _SPREAD)[:, :, None] * holds  # [N, P, 6]
    curve = (weights * mouths).sum(1) / weights.sum(1)
    return torch.from_numpy(_seal(phones, times, curve).clip(0.0, 1.0).astype(np.float32))


def mouth_opening(
    mouth: Tensor,  # [..., 6]
) -> Tensor:  # [...]
    """How far the lips are apart, 0..1, as the phones ask for it (a rendered face's own opening is measured on it)."""
    return mouth[..., 0] * (1 - mouth[..., _PRESS]) * (1 - 0.7 * mouth[..., _TUCK])


def _targets(phones: TimedPhones) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Starts, ends [P'], mouths and holds [P', 6], each diphthong as two targets."""
    rows = []
    for label, start, end in zip(phones.labels.tolist(), phones.starts.tolist(), phones.ends.tolist(), strict=True):
        phone = PHONES[PHONE_NAMES[label]]
        if phone.then:
            middle = start + 0.5 * (end - start)
            rows.append((start, middle, phone.mouth, phone.hold))
            rows.append((middle, end, PHONES[phone.then].mouth, phone.hold))
        else:
            rows.append((start, end, phone.mouth, phone.hold))
    starts, ends, mouths, holds = (np.array(column, np.float64) for column in zip(*rows, strict=True))
    return starts, ends, mouths, holds


def closures(phones: TimedPhones) -> list[tuple[str, float, float]]:
    """(name, start, end) of each stretch of a phone in which the mouth is shut, lips or tongue: stops, nasals."""
    found = []
    for name, start, end in zip(phones.names, phones.starts.tolist(), phones.ends.tolist(), strict=True):
        if PHONES[name].closure:
            found.append((name, start, start + PHONES[name].closure * (end - start)))
    return found


def _seal(phones: TimedPhones, times: np.ndarray, curve: np.ndarray) -> np.ndarray:
    """`curve` with lip closures, tucked lips and shown tongues reached fully, however short the phone."""
    shut = 0.5 / FRAME_RATE + 1e-6  # at least a frame wide, so that a frame always falls into it
    total, weights = curve, np.ones((len(times), 1))
    for name, start, end in zip(phones.names, phones.starts.tolist(), phones.ends.tolist(), strict=True):
        phone = PHONES[name]
        strong = max(phone.mouth[_PRESS], phone.mouth[_TUCK], phone.mouth[_TONGUE_INDEX])
        if strong < 1 or end < times[0] - 0.2 or start > times[-1] + 0.2:
            continue
        end = start + (phone.closure or 1.0) * (end - start)
        middle, half = 0.5 * (start + end), max(0.5 * (end - start) - 0.01, shut)
        away = np.clip((np.abs(times - middle) - half) / _RAMP, 0.0, 1.0)
        share = 0.5 + 0.5 * np.cos(np.pi * away)[:, None]  # [N, 1]: 1 inside, 0 beyond the ramp
        weight = share / (1 - share + 1e-6)  # grows without bound inside: no neighbour's ramp keeps the lips apart
        target = curve.copy()
        for channel in (0, _PRESS, _TUCK, _TONGUE_INDEX):
            target[:, channel] = phone.mouth[channel]
        total, weights = total + weight * target, weights + weight
    return total / weights
