"""What the eight emotions do to a voice, so that they can be heard."""

from __future__ import annotations

import dataclasses

import numpy as np

from speak.config import EMOTIONS


@dataclasses.dataclass(frozen=True)
class Manner:
    """What an emotion at full strength changes in a voice; neutral is all zeros. Strengths scale it, emotions add.

    Directions after the acoustic profiles of Scherer (2003) and Banse and Scherer (1996), larger than life.
    """

    pitch: float = 0.0  # semitones on the median
    melody: float = 0.0  # log2 of the factor on pitch movements
    final: float = 0.0  # semitones at the end of each phrase, on top of the ordinary fall
    loudness: float = 0.0  # dB
    accent: float = 0.0  # dB more on stressed syllables
    tempo: float = 0.0  # log2 of the factor on speed
    pauses: float = 0.0  # log2 of the factor on the length of pauses
    open_quotient: float = 0.0
    return_time: float = 0.0  # log2 of the factor: below 0 brighter, above 0 duller
    breath: float = 0.0
    jitter: float = 0.0
    tremor: float = 0.0  # semitones, at 7 Hz
    nasal: float = 0.0
    tract: float = 0.0  # log2 of the factor: a smile shortens the tract


MANNERS: dict[str, Manner] = {
    "angry": Manner(
        pitch=3.0, melody=0.6, final=-3.0, loudness=6.0, accent=3.0, tempo=0.22, pauses=-0.7, open_quotient=-0.12,
        return_time=-1.2, breath=-0.01, jitter=0.010,
    ),
    "contempt": Manner(
        pitch=-2.0, melody=-0.35, final=-3.5, loudness=-1.0, accent=1.5, tempo=-0.22, pauses=0.3, open_quotient=-0.05,
        nasal=0.45, tract=0.02,
    ),
    "disgusted": Manner(
        pitch=-3.5, melody=0.25, final=-2.0, loudness=1.0, accent=3.0, tempo=-0.42, pauses=0.4, open_quotient=-0.10,
        return_time=-0.3, jitter=0.030, tract=0.07,
    ),
    "fear": Manner(
        pitch=6.5, melody=-0.25, final=2.0, loudness=-2.0, tempo=0.38, pauses=0.3, open_quotient=0.08,
        return_time=0.2, breath=0.07, jitter=0.012, tremor=0.9, tract=-0.02,
    ),
    "happy": Manner(
        pitch=4.0, melody=0.9, final=2.0, loudness=3.5, accent=1.0, tempo=0.12, pauses=-0.3, return_time=-0.5,
        tract=-0.10,
    ),
    "neutral": Manner(),
    "sad": Manner(
        pitch=-2.0, melody=-1.2, final=-1.0, loudness=-7.0, accent=-1.5, tempo=-0.40, pauses=0.8, open_quotient=0.12,
        return_time=1.1, breath=0.06, tract=0.03,
    ),
    "surprised": Manner(
        pitch=6.0, melody=1.1, final=7.0, loudness=3.0, accent=2.0, tempo=-0.08, pauses=0.2, open_quotient=0.05,
        return_time=-0.2, breath=0.02,
    ),
}
assert tuple(MANNERS) == EMOTIONS


def manner_of(
    weights: np.ndarray,  # [8] 0..1, strengths in the order of EMOTIONS
) -> Manner:
    """The sum of the emotions' manners, each times its strength."""
    fields = [field.name for field in dataclasses.fields(Manner)]
    return Manner(
        **{
            name: float(sum(w * getattr(MANNERS[e], name) for e, w in zip(EMOTIONS, weights, strict=True) if w))
            for name in fields
        }
    )
