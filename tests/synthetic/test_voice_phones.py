"""Phones and what the mouth does with them."""

import numpy as np
import pytest

from speak.config import EMOTIONS
from speak.synthetic.phones import (
    MOUTH_NAMES,
    PHONES,
    TimedPhones,
    closures,
    frame_times,
    mouth_at,
    mouth_curve,
    mouth_opening,
)
from speak.synthetic.sentences import random_sentence
from speak.synthetic.voice import random_voice, utter

CHANNEL = {name: index for index, name in enumerate(MOUTH_NAMES)}


def sentences(count: int) -> list[TimedPhones]:
    """Fast and slow sentences of several speakers."""
    rows = []
    for seed in range(count):
        weights = np.zeros(len(EMOTIONS))
        weights[EMOTIONS.index(("fear", "neutral", "sad")[seed % 3])] = 1.0
        words = random_sentence(np.random.default_rng(seed), 4.0)
        rows.append(utter(words, random_voice(np.random.default_rng(seed)), weights, (seed,)).phones)
    return rows


def test_phones_follow_each_other_without_gaps_and_begin_and_end_in_silence() -> None:
    for phones in sentences(6):
        assert np.array_equal(phones.ends[:-1], phones.starts[1:]) and phones.starts[0] == 0
        assert np.all(phones.ends > phones.starts)
        assert phones.names[0] == phones.names[-1] == "sil"


@pytest.mark.parametrize(("names", "channel"), [("p b m", "press"), ("f v", "tuck"), ("th dh", "tongue")])
def test_lip_and_tongue_consonants_are_seen_in_at_least_one_frame(names: str, channel: str) -> None:
    checked = 0
    for phones in sentences(30):
        frames = int(phones.seconds * 30)
        curve, times = mouth_curve(phones, frames).numpy(), frame_times(0, frames)
        for name, start, end in zip(phones.names, phones.starts, phones.ends, strict=True):
            if name in names.split():
                near = (times > start - 1 / 30) & (times < end + 1 / 30)
                best = curve[near, CHANNEL[channel]].max()
                assert best > 0.95, f"{name} at {start:.2f} s reaches {best:.2f}"
                checked += 1
    assert checked > 20


def test_lips_are_shut_in_every_frame_within_a_bilabial() -> None:
    for phones in sentences(12):
        frames = int(phones.seconds * 30)
        opening, times = mouth_opening(mouth_curve(phones, frames)).numpy(), frame_times(0, frames)
        for name, start, end in closures(phones):
            if name in "pbm":
                within = (times > start + 0.012) & (times < end - 0.012)
                assert np.all(opening[within] < 0.02), name


def test_open_vowels_open_the_mouth_round_ones_round_it_and_silence_closes_it() -> None:
    phones = TimedPhones.from_durations("sil aa sil uw sil iy sil".split(), [0.5, 0.2, 0.5, 0.2, 0.5, 0.2, 0.5])
    curve = mouth_at(phones, np.array([0.25, 0.6, 0.95, 1.3, 1.65, 2.0, 2.35]))
    opening = mouth_opening(curve)
    assert opening[1] > 0.9 and opening[3] < 0.3 and max(opening[[0, 2, 4, 6]]) < 0.01
    assert curve[3, CHANNEL["round"]] > 0.9 and curve[5, CHANNEL["wide"]] > 0.8


def test_a_consonant_takes_on_the_rounding_of_its_vowel() -> None:
    at = {}
    for vowel in ("uw", "iy"):
        phones = TimedPhones.from_durations(["sil", vowel, "t", vowel, "sil"], [0.3, 0.12, 0.08, 0.12, 0.3])
        at[vowel] = mouth_at(phones, np.array([0.46]))[0]
    assert at["uw"][CHANNEL["round"]] > 0.5 > 0.05 > at["iy"][CHANNEL["round"]]


def test_the_mouth_never_jumps() -> None:
    for phones in sentences(6):
        fine = mouth_at(phones, np.arange(0, phones.seconds, 1 / 4000)).numpy()
        assert np.abs(np.diff(fine, axis=0)).max() < 0.05  # from lips pressed to tongue shown takes 5 ms at least


def test_a_window_of_the_curve_equals_the_same_frames_of_the_whole() -> None:
    phones = sentences(1)[0]
    whole = mouth_curve(phones, 80)
    assert np.abs((mouth_at(phones, frame_times(30, 5)) - whole[30:35]).numpy()).max() < 1e-5


def test_every_phone_has_a_mouth_in_range_and_a_duration() -> None:
    assert 30 <= len(PHONES) - 1 <= 40
    for name, phone in PHONES.items():
        assert all(0 <= value <= 1 for value in phone.mouth) and phone.duration > 0.04, name
        assert phone.then == "" or PHONES[phone.then].kind == "vowel"


def test_the_label_at_a_time_is_the_phone_spoken_then() -> None:
    phones = TimedPhones.from_durations(["sil", "m", "aa"], [0.2, 0.1, 0.3])
    names = [list(PHONES)[label] for label in phones.label_at(np.array([-1.0, 0.1, 0.2, 0.29, 0.31, 0.59, 0.61]))]
    assert names == ["sil", "sil", "m", "m", "aa", "aa", "sil"]
