"""Rendered people's voices: any sentence, spoken by any speaker in any emotion, with the times of its phones.

`Voice` is who speaks (pitch, length of the vocal tract, timbre), `manners.py` what an emotion does to speech; `utter`
times the phones of a sentence and draws its melody, `formants.py` turns that into sound. The mouth curve of `phones.py`
follows the same times, so sound and mouth agree to the sample.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from speak.config import SAMPLE_RATE
from speak.synthetic.formants import HOP, NOISE_NAMES, Tracks, synthesise
from speak.synthetic.manners import Manner, manner_of
from speak.synthetic.phones import PHONES, TimedPhones
from speak.synthetic.sentences import Sentence


@dataclasses.dataclass(frozen=True)
class Voice:
    """A speaker's voice."""

    pitch: float  # Hz, median when neutral: 75 (deep) .. 330 (child)
    tract: float  # length of the vocal tract against a grown man's: 0.68 (child) .. 1.08
    open_quotient: float  # 0.45 .. 0.7
    return_time: float  # seconds, 0.00012 (bright) .. 0.0005 (dull)
    breath: float  # 0.01 .. 0.08
    jitter: float  # of a period, 0.003 .. 0.012
    shimmer: float  # of the amplitude, 0.02 .. 0.08
    tempo: float  # 1 is typical
    melody: float  # width of the pitch movements, 1 is typical
    nasal: float  # 0 .. 0.25, in vowels
    vowel_shift: tuple[float, float, float]  # factors on F1, F2, F3: an accent


# Loudness of the voice in each kind of phone against a vowel, dB; voiced stops murmur through the closed mouth.
_VOICING = {"vowel": 0.0, "glide": -2.5, "nasal": -4.0, "fricative": -9.0, "stop": -26.0, "affricate": -26.0}
# Loudness of each noise against the voice's pulses.
_NOISE = {"s": 0.26, "sh": 0.22, "f": 0.060, "th": 0.050, "p": 0.20, "t": 0.30, "k": 0.30, "h": 0.11}
_OPEN_VOWELS = {"aa": 1.0, "ae": 1.0, "ao": 1.0, "ay": 1.0, "aw": 1.0, "ax": -2.0, "ih": -1.0, "uh": -1.0}  # dB
_NASAL_ZERO = {"m": 1000.0, "n": 1650.0, "ng": 3000.0}  # Hz
# How firmly each kind of phone holds its formants against its neighbours.
_FIRM = {"vowel": 1.0, "glide": 1.2, "nasal": 0.8, "fricative": 0.6, "stop": 0.6, "affricate": 0.6, "breath": 0.05}
_GAIN = 0.10  # full scale of a vowel's pulse


@dataclasses.dataclass(frozen=True)
class Utterance:
    """A sentence in somebody's mouth: when each phone sounds, and all that the synthesiser wants."""

    phones: TimedPhones
    tracks: Tracks

    @property
    def samples(self) -> int:
        return self.tracks.samples

    def waveform(self, start: int = 0, end: int | None = None) -> np.ndarray:
        """Samples `start` to `end` at 16 kHz: float32 in (-1, 1); silence beyond the ends of the sentence."""
        return synthesise(self.tracks, start, end)


def random_voice(
    generator: np.random.Generator,
    build: float | None = None,  # -1 (woman's or child's) .. 1 (man's); default: drawn
) -> Voice:
    """A speaker, child to deep. Pitch and vocal tract go together but not exactly, as in people."""
    build = float(generator.uniform(-1.0, 1.0)) if build is None else build
    child = build < 0 and generator.random() < 0.18
    if child:
        pitch, tract = generator.normal(275.0, 25.0), generator.normal(0.74, 0.03)
    elif build < 0:
        pitch, tract = 205.0 * 2 ** generator.normal(0.0, 0.17), generator.normal(0.86, 0.025)
    else:
        pitch, tract = 118.0 * 2 ** generator.normal(0.0, 0.22), generator.normal(1.0, 0.03)
    shift = 2 ** generator.normal(0.0, (0.04, 0.04, 0.03))
    return Voice(
        pitch=float(np.clip(pitch, 75.0, 330.0)),
        tract=float(np.clip(tract, 0.68, 1.08)),
        open_quotient=float(generator.uniform(0.48, 0.66)),
        return_time=float(np.exp(generator.uniform(np.log(0.00012), np.log(0.00045)))),
        breath=float(generator.uniform(0.01, 0.06)),
        jitter=float(generator.uniform(0.003, 0.010)),
        shimmer=float(generator.uniform(0.02, 0.07)),
        tempo=float(2 ** generator.normal(0.0, 0.15)),
        melody=float(2 ** generator.normal(0.0, 0.2)),
        nasal=float(generator.uniform(0.0, 0.2)),
        vowel_shift=tuple(float(factor) for factor in shift),
    )


def utter(
    sentence: Sentence,
    voice: Voice,
    emotion_weights: np.ndarray,  # [8] 0..1
    seed: tuple[int, ...],  # of what differs between two readings of one sentence, and of the noise
) -> Utterance:
    """Times the phones of `sentence` for this speaker and mood and draws pitch, formants and loudness."""
    generator = np.random.default_rng((*seed, 1))
    manner = manner_of(np.asarray(emotion_weights, np.float64))
    phones = TimedPhones.from_durations(list(sentence.phones), _durations(sentence, voice, manner, generator))
    samples = int(np.ceil(phones.seconds * SAMPLE_RATE))
    times = np.arange(samples // HOP + 2) * (HOP / SAMPLE_RATE)
    formants, nasal, zero = _formants(phones, voice, manner, times)
    voicing, aspiration, frication, mix = _amplitudes(sentence, phones, manner, times, generator)
    quotient = float(np.clip(voice.open_quotient + manner.open_quotient, 0.35, 0.8))
    tracks = Tracks(
        samples=samples,
        pitch=_pitch(sentence, phones, voice, manner, times, generator),
        formants=formants,
        nasal=nasal,
        nasal_zero=zero,
        noise_mix=mix,
        voicing=voicing,
        aspiration=aspiration,
        frication=frication,
        tract=voice.tract * 2**manner.tract,
        open_quotient=quotient,
        return_time=float(np.clip(voice.return_time * 2**manner.return_time, 0.00006, 0.0012)),
        breath=max(0.0, voice.breath + manner.breath),
        jitter=voice.jitter + manner.jitter,
        shimmer=voice.shimmer + manner.jitter,
        gain=_GAIN * 10 ** (manner.loudness / 20),
        seed=(*seed, 2),
    )
    return Utterance(phones, tracks)


def _durations(
    sentence: Sentence, voice: Voice, manner: Manner, generator: np.random.Generator
) -> np.ndarray:  # [P] seconds
    speed = voice.tempo * 2**manner.tempo
    spread = np.exp(0.10 * generator.standard_normal(len(sentence.phones)))
    seconds = []
    for index, name in enumerate(sentence.phones):
        phone = PHONES[name]
        if phone.kind == "silence":
            seconds.append(phone.duration * sentence.lengthen[index] * 2**manner.pauses)
        else:
            vowel = phone.kind == "vowel"
            stress = (1.15 if sentence.stress[index] else 0.85) if vowel else 1.0
            # Vowels take most of a change in tempo; a closure cannot be hurried as much.
            elastic = speed**-1.1 if vowel else speed**-0.7
            length = phone.duration * stress * sentence.lengthen[index] ** (1.0 if vowel else 0.4) * elastic
            seconds.append(max(0.045, length))
    return np.array(seconds) * spread


def _pitch(
    sentence: Sentence,
    phones: TimedPhones,
    voice: Voice,
    manner: Manner,
    times: np.ndarray,  # [K] seconds
    generator: np.random.Generator,
) -> np.ndarray:  # [K] Hz
    """Declination in each phrase, a bump on each stressed vowel, a fall or rise at the end, slow wander, tremor."""
    semitones = np.zeros(len(times))
    width = voice.melody * 2**manner.melody
    phrase_of, syllable_of = np.array(sentence.phrase), np.array(sentence.syllable)
    middles = 0.5 * (phones.starts + phones.ends)
    for phrase in range(phrase_of[-1] + 1):
        spoken = np.nonzero((phrase_of == phrase) & (syllable_of >= 0))[0]
        start, end = phones.starts[spoken[0]], phones.ends[spoken[-1]]
        place = np.clip((times - start) / (end - start), 0.0, 1.0)
        last = phrase == phrase_of[-1]
        within = (times >= start - 0.1) & (times <= end + 0.1)
        line = width * (1.3 - 2.6 * place)
        # The last quarter of a second of each phrase turns down, or up.
        turn = (5.0 if sentence.question else -3.0) * width if last else float(generator.uniform(-1.0, 2.0)) * width
        line += (turn + manner.final) * np.clip(1 - (end - times) / 0.3, 0.0, 1.0) ** 1.5
        semitones = np.where(within, line, semitones)
    heights = generator.uniform(1.5, 3.5, len(sentence.phones))
    for index in range(len(sentence.phones)):
        if sentence.stress[index] and PHONES[sentence.phones[index]].kind == "vowel":
            reach = 0.5 * (phones.ends[index] - phones.starts[index]) + 0.04
            semitones += width * heights[index] * np.exp(-0.5 * ((times - middles[index]) / reach) ** 2)
    knots = np.arange(0.0, times[-1] + 0.4, 0.35)
    semitones += 0.35 * width * np.interp(times, knots, generator.standard_normal(len(knots)))
    if manner.tremor:
        semitones += manner.tremor * np.sin(2 * np.pi * 7.0 * times + generator.uniform(0, 2 * np.pi))
    semitones = 14.0 * np.tanh((semitones - 0.5 * width) / 14.0)  # nobody leaves the voice's reach
    return np.clip(voice.pitch * 2 ** ((semitones + manner.pitch) / 12), 55.0, 700.0)


def _formants(
    phones: TimedPhones,
    voice: Voice,
    manner: Manner,
    times: np.ndarray,  # [K]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # [K, 3] Hz, [K] nasality, [K] Hz
    rows = []
    for name, start, end in zip(phones.names, phones.starts.tolist(), phones.ends.tolist(), strict=True):
        phone = PHONES[name]
        firm = _FIRM.get(phone.kind, 1e-3)  # silence takes on whatever is beside it
        nasal = 1.0 if phone.kind == "nasal" else voice.nasal + manner.nasal if phone.kind == "vowel" else 0.0
        zero = _NASAL_ZERO.get(name, 1300.0)
        if phone.then:
            bend = start + 0.55 * (end - start)
            rows.append((start, bend, firm, *phone.formants, nasal, zero))
            rows.append((bend, end, firm, *PHONES[phone.then].formants, nasal, zero))
        else:
            rows.append((start, end, firm, *phone.formants, nasal, zero))
    table = np.array(rows)
    starts, ends, firm, targets = table[:, 0], table[:, 1], table[:, 2], table[:, 3:]
    core = 0.3 * np.minimum(ends - starts, 0.15)
    outside = np.maximum(np.maximum(starts + core - times[:, None], times[:, None] - (ends - core)), 0.0)
    outside -= outside.min(axis=1, keepdims=True)
    weights = np.exp(-outside / 0.017) * firm
    blended = np.einsum("tr,rv->tv", weights, targets) / weights.sum(1, keepdims=True)
    formants = blended[:, :3] * np.array(voice.vowel_shift) / (voice.tract * 2**manner.tract)
    return formants, np.clip(blended[:, 3], 0.0, 1.0), blended[:, 4]


def _amplitudes(
    sentence: Sentence,
    phones: TimedPhones,
    manner: Manner,
    times: np.ndarray,  # [K]
    generator: np.random.Generator,
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Broken lines of voicing, aspiration and frication, and the mix of noises in each block [K, noises]."""
    voicing, aspiration, frication = [(0.0, 0.0)], [(0.0, 0.0)], [(0.0, 0.0)]
    mix = np.zeros((len(times), len(NOISE_NAMES)), np.float32)
    accents = np.where(sentence.stress, 1.5 + manner.accent, -0.5 * manner.accent)
    accents = accents + 0.7 * generator.standard_normal(len(accents))
    for index, name in enumerate(sentence.phones):
        phone = PHONES[name]
        start, end = float(phones.starts[index]), float(phones.ends[index])
        shut = start + phone.closure * (end - start)
        accent = 10 ** (accents[index] / 20)
        if phone.voiced:
            level = accent * 10 ** ((_VOICING[phone.kind] + _OPEN_VOWELS.get(name, 0.0)) / 20)
            until = shut - 0.004 if phone.kind in ("stop", "affricate") else end
            _plateau(voicing, start, until, level, 0.008)
        if phone.noise and phone.noise != "h":
            level = accent * _NOISE[phone.noise] * (0.6 if phone.voiced else 1.0)
            begin = shut if phone.closure else start
            # A stop's burst is 12 ms; the rest of an unvoiced one is breath through the opening mouth.
            until = min(end, begin + 0.012) if phone.kind == "stop" else end
            _plateau(frication, begin, until, level, 0.003 if phone.closure else 0.012)
            near = (times >= begin - HOP / SAMPLE_RATE) & (times <= until + HOP / SAMPLE_RATE)
            mix[near, NOISE_NAMES.index(phone.noise)] = 1.0
            if phone.kind == "stop" and not phone.voiced:
                _plateau(aspiration, until, end, accent * 0.7 * _NOISE["h"], 0.008)
        if phone.noise == "h":
            _plateau(aspiration, start, end, accent * _NOISE["h"], 0.012)
    return _line(voicing), _line(aspiration), _line(frication), mix


def _plateau(points: list[tuple[float, float]], start: float, end: float, level: float, ramp: float) -> None:
    """Appends a stretch at `level` with ramps just inside it; a stretch that touches the one before joins it."""
    ramp = min(ramp, 0.4 * max(end - start, 0.0))
    touches = len(points) > 1 and start - points[-1][0] < 1e-6
    if touches:
        before, level_before = points[-2]
        points[-1] = (points[-1][0], 0.5 * (level_before + level) if min(level_before, level) > 0 else 0.0)
        points += [(start + ramp, level), (end - ramp, level), (end, 0.0)]
    else:
        points += [(start, 0.0), (start + ramp, level), (end - ramp, level), (end, 0.0)]


def _line(points: list[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    times, levels = zip(*points, strict=True)
    return np.array(times), np.array(levels)
