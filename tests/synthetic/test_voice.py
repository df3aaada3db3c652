"""The synthetic voices, measured on the sound alone by other means than made it: linear prediction, autocorrelation."""

import dataclasses

import numpy as np
import pytest
from scipy.linalg import solve_toeplitz
from scipy.signal import lfilter

from speak.config import EMOTIONS, SAMPLE_RATE
from speak.errors import SpeakError
from speak.synthetic.formants import HOP
from speak.synthetic.other_voices import installed_voices, record
from speak.synthetic.phones import PHONES, closures, frame_times, mouth_curve, mouth_opening
from speak.synthetic.sentences import Sentence, random_sentence
from speak.synthetic.voice import Utterance, Voice, random_voice, utter

NEUTRAL = np.zeros(len(EMOTIONS))
MAN = Voice(100.0, 1.0, 0.55, 0.00025, 0.01, 0.005, 0.03, 1.0, 1.0, 0.0, (1.0, 1.0, 1.0))


def said(*names: str, voice: Voice = MAN, weights: np.ndarray = NEUTRAL, seed: int = 1) -> Utterance:
    row = ("sil", *names, "sil")
    syllable = tuple(-1 if name == "sil" else 0 for name in row)
    sentence = Sentence(row, (1,) * len(row), syllable, (0,) * len(row), (1.5,) * len(row), False)
    return utter(sentence, voice, weights, (seed,))


def talk(speaker: int, emotion: str, sentence: int, strength: float = 1.0) -> np.ndarray:
    weights = np.zeros(len(EMOTIONS))
    weights[EMOTIONS.index(emotion)] = strength
    words = random_sentence(np.random.default_rng((7, sentence)), 3.0)
    return utter(words, random_voice(np.random.default_rng((5, speaker))), weights, (speaker, sentence)).waveform()


def measured_formants(sound: np.ndarray) -> np.ndarray:
    """Resonances of an all-pole model of order 18, Hz."""
    sound = lfilter([1, -0.97], [1], sound) * np.hamming(len(sound))
    correlation = np.correlate(sound, sound, "full")[len(sound) - 1 : len(sound) + 18]
    correlation[0] *= 1.0001
    poles = np.roots(np.concatenate([[1], -solve_toeplitz(correlation[:-1], correlation[1:])]))
    poles = poles[poles.imag > 0.01]
    hertz, width = np.angle(poles) * SAMPLE_RATE / 2 / np.pi, -np.log(abs(poles)) * SAMPLE_RATE / np.pi
    return np.sort(hertz[(hertz > 150) & (width < 500)])


def measured_pitch(sound: np.ndarray) -> tuple[float, float]:
    """Hz, and how periodic the sound is (1: perfectly)."""
    window = np.hanning(len(sound))
    transform = np.fft.rfft((sound - sound.mean()) * window, 4 * len(sound))
    correlation = np.fft.irfft(abs(transform) ** 2)[: len(sound)]
    of_window = np.fft.irfft(abs(np.fft.rfft(window, 4 * len(sound))) ** 2)[: len(sound)]
    correlation = correlation / correlation[0] / (of_window / of_window[0] + 1e-3)
    low, high = SAMPLE_RATE // 500, min(SAMPLE_RATE // 60, len(sound) // 2)
    best = low + int(np.argmax(correlation[low:high]))
    return SAMPLE_RATE / best, float(correlation[best])


def stretch(sound: np.ndarray, start: float, end: float) -> np.ndarray:
    return sound[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)].astype(np.float64)


def decibels(sound: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(sound**2) + 1e-20))


@pytest.mark.parametrize("vowel", "iy ih eh ae aa ao uh uw ah er ax".split())
def test_a_vowels_formants_and_pitch_are_what_was_asked_for(vowel: str) -> None:
    utterance = said("h", vowel)
    middle = 0.5 * (utterance.phones.starts[2] + utterance.phones.ends[2])
    sound = stretch(utterance.waveform(), middle - 0.03, middle + 0.03)
    formants = measured_formants(sound)[:3]
    assert np.all(np.abs(formants / np.array(PHONES[vowel].formants) - 1) < 0.08), formants
    asked = utterance.tracks.pitch[int(middle * SAMPLE_RATE) // HOP]
    assert abs(measured_pitch(sound)[0] / asked - 1) < 0.03


def test_a_child_speaks_higher_and_with_a_shorter_vocal_tract_than_a_man() -> None:
    child = dataclasses.replace(MAN, pitch=280.0, tract=0.74)
    utterance = said("h", "eh", voice=child)
    middle = 0.5 * (utterance.phones.starts[2] + utterance.phones.ends[2])
    sound = stretch(utterance.waveform(), middle - 0.03, middle + 0.03)
    assert 250 < measured_pitch(sound)[0] < 340
    second = measured_formants(sound)
    assert np.abs(second / (PHONES["eh"].formants[1] / 0.74) - 1).min() < 0.08, second


def test_closures_are_silent_and_fricatives_hiss_where_they_should() -> None:
    for consonant in ("p", "t", "k", "ch"):
        utterance = said("aa", consonant, "aa")
        sound = utterance.waveform()
        vowel = stretch(sound, utterance.phones.starts[1] + 0.05, utterance.phones.ends[1] - 0.02)
        (_, start, end) = closures(utterance.phones)[0]
        assert decibels(stretch(sound, start + 0.02, end - 0.003)) < decibels(vowel) - 45
    centres = {}
    for consonant in ("s", "sh"):
        utterance = said("aa", consonant, "aa")
        hiss = stretch(utterance.waveform(), utterance.phones.starts[2] + 0.02, utterance.phones.ends[2] - 0.02)
        power = abs(np.fft.rfft(hiss)) ** 2
        centres[consonant] = (power * np.fft.rfftfreq(len(hiss), 1 / SAMPLE_RATE)).sum() / power.sum()
    assert centres["s"] > 5000 > 4200 > centres["sh"]


def test_sound_and_mouth_agree_to_the_frame() -> None:
    loudness, opening = [], []
    for seed in range(6):
        words = random_sentence(np.random.default_rng(seed), 3.0)
        utterance = utter(words, random_voice(np.random.default_rng(seed)), NEUTRAL, (seed,))
        frames = int(utterance.phones.seconds * 30)
        sound = utterance.waveform()
        loudness.append([np.sqrt(np.mean(stretch(sound, t - 1 / 60, t + 1 / 60) ** 2)) for t in frame_times(0, frames)])
        opening.append(mouth_opening(mouth_curve(utterance.phones, frames)).numpy())

    def agreement(shift: int) -> float:
        pairs = [(a[5:-5], np.roll(o, shift)[5:-5]) for a, o in zip(loudness, opening, strict=True)]
        return float(np.mean([np.corrcoef(a, o)[0, 1] for a, o in pairs]))

    found = {shift: agreement(shift) for shift in range(-5, 6)}
    assert max(found, key=found.get) == 0, found
    assert found[0] > 0.6, found


def test_the_same_seed_gives_the_same_bytes_and_any_stretch_gives_the_same_samples() -> None:
    words = random_sentence(np.random.default_rng(3), 4.0)
    assert words == random_sentence(np.random.default_rng(3), 4.0)
    voice = random_voice(np.random.default_rng(4))
    sound = utter(words, voice, NEUTRAL, (1, 2)).waveform()
    utterance = utter(words, voice, NEUTRAL, (1, 2))
    assert utterance.waveform().tobytes() == sound.tobytes()
    assert np.abs(utterance.waveform(20000, 23200) - sound[20000:23200]).max() < 1e-6
    beyond = utterance.waveform(-500, len(sound) + 500)
    assert np.abs(beyond[500:-500] - sound).max() < 1e-6 and not beyond[:500].any() and not beyond[-500:].any()
    assert np.abs(utter(words, voice, NEUTRAL, (1, 3)).waveform(0, 16000) - sound[:16000]).max() > 0.01


def test_every_emotion_can_be_told_from_the_sound_of_people_never_heard() -> None:
    def features(sound: np.ndarray) -> np.ndarray:
        pieces = np.lib.stride_tricks.sliding_window_view(sound.astype(np.float64), 640)[::160]
        level = 10 * np.log10((pieces**2).mean(1) + 1e-9)
        pitches = [measured_pitch(pieces[k]) for k in np.nonzero(level > level.max() - 18)[0][::2]]
        semitones = np.array([12 * np.log2(hertz / 100) for hertz, periodic in pitches if periodic > 0.6])
        power = abs(np.fft.rfft(sound)) ** 2
        hertz = np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE)
        low, high = power[(hertz > 50) & (hertz < 1000)].sum(), power[(hertz > 1000) & (hertz < 4000)].sum()
        steps = np.diff(semitones)
        return np.array([
            np.median(semitones), np.ptp(np.percentile(semitones, (10, 90))), steps[abs(steps) < 3].std(),
            decibels(sound), 10 * np.log10(low / high), (level > level.max() - 28).mean(),
            level[level > level.max() - 28].std(),
        ])  # fmt: skip

    people = 8
    table = np.array([[features(talk(p, e, 100 * p + i)) for i, e in enumerate(EMOTIONS)] for p in range(people)])
    calm = np.array([np.mean([features(talk(p, "neutral", 900 + s)) for s in range(2)], 0) for p in range(people)])
    table = table - calm[:, None]  # against the speaker's own ordinary voice
    right = 0
    for left_out in range(people):
        known = np.delete(table, left_out, 0)
        spread = np.mean([np.cov(known[:, e].T) for e in range(8)], 0) + 1e-3 * np.eye(table.shape[-1])
        for emotion in range(8):
            gaps = table[left_out, emotion] - known.mean(0)
            right += int(np.argmin(np.einsum("ei,ij,ej->e", gaps, np.linalg.inv(spread), gaps)) == emotion)
    assert right / (people * 8) > 0.75, right


def test_a_stronger_emotion_is_further_from_neutral() -> None:
    levels = [decibels(talk(1, "angry", 5, strength)) for strength in (0.0, 0.5, 1.0)]
    assert levels[1] > levels[0] + 2 and levels[2] > levels[1] + 2
    lengths = [len(talk(1, "sad", 5, strength)) for strength in (0.0, 0.5, 1.0)]
    assert lengths[0] < lengths[1] < lengths[2]


def test_nothing_clips_whoever_speaks_however_angry() -> None:
    for speaker in range(6):
        sound = talk(speaker, "angry", speaker)
        assert sound.dtype == np.float32 and np.isfinite(sound).all() and np.abs(sound).max() < 1
        assert abs(float(sound.mean())) < 1e-3


@pytest.mark.skipif(not installed_voices(), reason="neither espeak-ng nor flite is installed")
def test_installed_synthesisers_say_the_phones_they_are_given_at_the_times_they_report() -> None:
    one_of_each = {name.partition(":")[0]: name for name in installed_voices()[::-1]}
    for name in one_of_each.values():
        found = dict.fromkeys(range(-4, 5), 0.0)
        for seed in range(6):
            words = random_sentence(np.random.default_rng(seed), 3.0)
            spoken = record(name, words, MAN, NEUTRAL)
            assert spoken.phones.names == words.phones
            frames = int(spoken.phones.seconds * 30) - 6
            opening = mouth_opening(mouth_curve(spoken.phones, frames)).numpy()
            sound = spoken.waveform(0, spoken.samples + SAMPLE_RATE)
            loud = [np.sqrt(np.mean(stretch(sound, t - 1 / 60, t + 1 / 60) ** 2)) for t in frame_times(0, frames)]
            for shift in found:
                found[shift] += float(np.corrcoef(loud[5:-5], np.roll(opening, shift)[5:-5])[0, 1])
        assert max(found, key=found.get) == 0, (name, found)


def test_a_voice_that_is_not_installed_is_refused_by_name() -> None:
    with pytest.raises(SpeakError, match="espeak:martian"):
        record("espeak:martian", random_sentence(np.random.default_rng(0), 1.0), MAN, NEUTRAL)
