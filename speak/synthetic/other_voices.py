"""Voices of speech synthesisers that happen to be installed (espeak-ng, flite) as further speakers, with timed phones.

Nothing needs them. They are given the phones of a sentence, not text, and report when each phone sounds: espeak-ng by
the phoneme events of its library (to the sample), flite by the segments it prints (to the millisecond). What they say
depends on their version, so they are used only where they are asked for by name.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import dataclasses
import functools
import os
import shutil
import subprocess
import tempfile
import wave
from pathlib import Path

import numpy as np

from speak.config import SAMPLE_RATE
from speak.errors import SpeakError
from speak.synthetic.manners import manner_of
from speak.synthetic.phones import PHONES, TimedPhones
from speak.synthetic.sentences import Sentence
from speak.synthetic.voice import Voice

# Our phones in espeak-ng's mnemonics (voice "en-us") and in flite's names where they differ.
_ESPEAK = {
    "iy": "i:", "ih": "I", "eh": "E", "ae": "a", "aa": "A:", "ao": "O:", "uh": "U", "uw": "u:", "ah": "V", "er": "3:",
    "ax": "@", "ey": "eI", "ay": "aI", "oy": "OI", "aw": "aU", "ow": "oU", "w": "w", "y": "j", "r": "r", "l": "l",
    "m": "m", "n": "n", "ng": "N", "p": "p", "b": "b", "t": "t", "d": "d", "k": "k", "g": "g", "ch": "tS", "jh": "dZ",
    "f": "f", "v": "v", "th": "T", "dh": "D", "s": "s", "z": "z", "sh": "S", "zh": "Z", "h": "h",
}  # fmt: skip
_FLITE = {"sil": "pau", "h": "hh"}
_FLITE_VOICES = {"kal16": 105.0, "awb": 115.0, "rms": 95.0, "slt": 170.0}  # and the pitch they are made for, Hz
_ESPEAK_VARIANTS = ("en-us", "en-us+m2", "en-us+m4", "en-us+m7", "en-us+f1", "en-us+f2", "en-us+f4")
_LOUDNESS = -26.0  # dB of full scale, an ordinary sentence: that of `voice.py`


@dataclasses.dataclass(frozen=True)
class Recording:
    """A sentence spoken by somebody else's synthesiser; it is used as an `Utterance` is."""

    phones: TimedPhones
    sound: np.ndarray  # [samples] float32 at 16 kHz

    @property
    def samples(self) -> int:
        return len(self.sound)

    def waveform(self, start: int = 0, end: int | None = None) -> np.ndarray:
        """Samples `start` to `end`; silence beyond the ends of the sentence."""
        end = len(self.sound) if end is None else end
        low, high = max(start, 0), min(end, len(self.sound))
        found = np.zeros(end - start, np.float32)
        if high > low:
            found[low - start : high - start] = self.sound[low:high]
        return found


def installed_voices() -> list[str]:
    """Names of the voices that are installed here, such as `espeak:en-us+f2` and `flite:slt`; often none."""
    names = [f"espeak:{variant}" for variant in _ESPEAK_VARIANTS] if _espeak_library() else []
    return names + [f"flite:{name}" for name in _FLITE_VOICES if name in _flite_voices()]


def fitting_voices(build: float) -> list[str]:
    """The installed voices that go with a face: women's for a build (`Person.build`) below 0, men's from 0 on."""
    return [name for name in installed_voices() if ("+f" in name or name.endswith(":slt")) == (build < 0)]


def record(
    name: str,  # one of `installed_voices`
    sentence: Sentence,
    voice: Voice,  # its tempo and melody; timbre and pitch are the synthesiser's own
    emotion_weights: np.ndarray,  # [8] 0..1: pitch, melody, tempo, loudness and pauses follow, voice quality cannot
) -> Recording:
    """`sentence` in an installed voice. Raises SpeakError where the voice is not installed or fails."""
    engine, _, variant = name.partition(":")
    if engine not in ("espeak", "flite") or name not in installed_voices():
        raise SpeakError(f"voice '{name}' is not installed: here are {', '.join(installed_voices()) or 'none'}")
    manner = manner_of(np.asarray(emotion_weights, np.float64))
    speak = _espeak if engine == "espeak" else _flite
    tempo, melody = voice.tempo * 2**manner.tempo, voice.melody * 2**manner.melody
    sound, rate, phones = speak(variant, sentence, tempo, manner.pitch, melody, 2**manner.pauses)
    sound = _at_16k(sound, rate)
    voiced = sound[np.abs(sound) > 0.02 * np.abs(sound).max()]
    gain = 10 ** ((_LOUDNESS + manner.loudness) / 20) / max(float(np.sqrt(np.mean(voiced**2))), 1e-6)
    return Recording(phones, (0.98 * np.tanh(sound * gain / 0.98)).astype(np.float32))


def _at_16k(sound: np.ndarray, rate: int) -> np.ndarray:
    from scipy.signal import resample_poly

    common = np.gcd(rate, SAMPLE_RATE)
    return sound if rate == SAMPLE_RATE else resample_poly(sound, SAMPLE_RATE // common, rate // common)


@functools.cache
def _flite_voices() -> tuple[str, ...]:
    if not shutil.which("flite"):
        return ()
    listed = subprocess.run(["flite", "-lv"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    return tuple(listed.stdout.partition(":")[2].split())


def _flite(
    variant: str, sentence: Sentence, tempo: float, pitch: float, melody: float, pauses: float
) -> tuple[np.ndarray, int, TimedPhones]:
    names = list(sentence.phones)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sentence.wav"
        mean = _FLITE_VOICES[variant] * 2 ** (pitch / 12)
        done = subprocess.run(
            ["flite", "-voice", variant, "-psdur", "--setf", f"duration_stretch={1 / tempo:.4f}",
             "--setf", f"int_f0_target_mean={mean:.2f}", "--setf", f"int_f0_target_stddev={0.13 * mean * melody:.2f}",
             "-p", " ".join(_FLITE.get(name, name) for name in names), "-o", os.fspath(path)],
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode or not path.exists():
            raise SpeakError(f"flite: voice '{variant}' failed: {done.stderr.strip()[-120:]}")
        with wave.open(os.fspath(path)) as file:
            rate = file.getframerate()
            sound = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768
    segments = [item.rpartition(":") for item in done.stdout.split()]
    said = [{"pau": "sil", "hh": "h"}.get(name, name) for name, _, _ in segments]
    if said and said[-1] == "sil" and said[:-1] == names[: len(said) - 1] and len(said) == len(names) + 1:
        segments[-2:], said = [segments[-1]], names  # a last pause of its own joins ours
    if said != names:
        raise SpeakError(f"flite: voice '{variant}' said other phones than it was given")
    durations = np.diff([0.0, *(float(end) for _, _, end in segments)])
    return sound, rate, TimedPhones.from_durations(names, np.maximum(durations, 1e-3))


class _Identifier(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):  # espeak_EVENT of speak_lib.h
    _fields_ = [
        ("type", ctypes.c_int), ("unique", ctypes.c_uint), ("text_position", ctypes.c_int), ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int), ("sample", ctypes.c_int), ("user_data", ctypes.c_void_p),
        ("id", _Identifier),
    ]  # fmt: skip


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@functools.cache
def _espeak_library() -> tuple[ctypes.CDLL, int] | None:
    """The library and its sample rate, or None where it is not installed."""
    path = ctypes.util.find_library("espeak-ng")
    if not path:
        return None
    try:
        library = ctypes.CDLL(path)
        rate = library.espeak_Initialize(2, 0, None, 0x8001)  # synchronous, phoneme events, do not exit on errors
    except (OSError, AttributeError):
        return None
    return (library, rate) if rate > 0 else None


def _espeak(
    variant: str, sentence: Sentence, tempo: float, pitch: float, melody: float, pauses: float
) -> tuple[np.ndarray, int, TimedPhones]:
    library, rate = _espeak_library() or (None, 0)
    assert library is not None
    chunks: list[np.ndarray] = []
    events: list[tuple[int, str]] = []

    def take(wave_: ctypes.POINTER, count: int, event: ctypes.POINTER) -> int:  # type: ignore[valid-type]
        index = 0
        while event[index].type != 0:
            if event[index].type == 7:  # espeakEVENT_PHONEME
                events.append((event[index].sample, event[index].id.string.decode("utf-8", "replace")))
            index += 1
        if wave_ and count > 0:
            chunks.append(np.ctypeslib.as_array(wave_, (count,)).copy())
        return 0

    callback = _Callback(take)
    library.espeak_SetSynthCallback(callback)
    if library.espeak_SetVoiceByName(variant.encode()) != 0:
        raise SpeakError(f"espeak-ng: has no voice '{variant}'")
    for parameter, value in ((1, 165 * tempo), (3, np.clip(50 + 6 * pitch, 0, 99)), (4, np.clip(50 * melody, 5, 99))):
        library.espeak_SetParameter(parameter, int(value), 0)
    pieces: list[np.ndarray] = []
    durations: list[float] = []
    spare = 0.0  # seconds of the phrase's own silence that count for the pause after it
    for row in _phrases_and_pauses(sentence):
        if isinstance(row, int):
            wanted = PHONES["sil"].duration * sentence.lengthen[row] * pauses
            pieces.append(np.zeros(int(round(max(wanted - spare, 0.0) * rate)), np.float32))
            durations.append(spare + len(pieces[-1]) / rate)
            continue
        chunks.clear()
        events.clear()
        text = f"[[{_mnemonics(sentence, row)}]]".encode()
        library.espeak_Synth(text, len(text) + 1, 0, 0, 0, 0x101, None, None)  # UTF-8, phonemes in brackets
        library.espeak_Synchronize()
        sound = np.concatenate(chunks).astype(np.float32) / 32768
        starts = [sample for sample, name in events if name[0] not in "_;"]
        if len(starts) != len(row):
            raise SpeakError(f"espeak-ng: voice '{variant}' said {len(starts)} phones for {len(row)}")
        after = [sample for sample, name in events if name[0] == "_" and sample > starts[-1]]
        edges = np.array([*starts, min([*after, len(sound)])])
        for place in range(1, len(row)):
            phone = PHONES[sentence.phones[row[place]]]
            if phone.closure and not phone.voiced:  # the event is the burst: the silence before it is the closure
                before = np.nonzero(np.abs(sound[edges[place - 1] : edges[place]]) > 0.01)[0]
                if len(before):
                    edges[place] = edges[place - 1] + before[-1] + 1
        pieces.append(sound[starts[0] :])
        durations += list(np.maximum(np.diff(edges), 1) / rate)
        spare = (len(sound) - edges[-1]) / rate
    return np.concatenate(pieces), rate, TimedPhones.from_durations(list(sentence.phones), durations)


def _phrases_and_pauses(sentence: Sentence) -> list[int | list[int]]:
    """Indices of the phones: a list for each phrase, a number for each pause."""
    rows: list[int | list[int]] = []
    for index, name in enumerate(sentence.phones):
        if name == "sil":
            rows.append(index)
        elif rows and isinstance(rows[-1], list):
            rows[-1].append(index)
        else:
            rows.append([index])
    return rows


def _mnemonics(sentence: Sentence, row: list[int]) -> str:
    """The phrase for espeak-ng; a bar keeps two mnemonics from being read as one, an apostrophe is stress."""
    return "|".join(
        ("'" if sentence.stress[index] and PHONES[sentence.phones[index]].kind == "vowel" else "")
        + _ESPEAK[sentence.phones[index]]
        for index in row
    )
