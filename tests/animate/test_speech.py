"""The speech of a video: exactly as many frames as it is long, encoded in pieces as if at once, silent where it is."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from speak.config import AnimateConfig
from speak.errors import SpeakError
from speak.generation import TalkingHead
from speak.speech import Speech, silence_of_frames
from tests.tolerances import assert_close


def noise(seconds: float, size: float = 0.1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, size, round(seconds * 16000)).astype(np.float32)


@pytest.mark.parametrize("samples", [8000, 16000, 16001, 33333, 57600])
def test_frames_cover_the_sound_and_end_with_it(samples: int) -> None:
    speech = Speech(noise(samples / 16000)[:samples])
    assert (speech.frames - 1) / 30 < samples / 16000 <= speech.frames / 30 + 1e-9
    blocks = list(speech)
    assert sum(map(len, blocks)) == speech.samples and abs(speech.samples - speech.frames * 16000 / 30) <= 0.5
    assert torch.equal(torch.cat(blocks)[:samples], torch.from_numpy(noise(samples / 16000)[:samples]))


def test_an_hour_has_108000_frames() -> None:
    hour = np.zeros(3600 * 16000, np.float32)
    hour[::100] = 0.1
    assert Speech(hour).frames == 108000


@pytest.mark.parametrize("chunk", [0.3, 1.0, 5.0])
def test_sound_encoded_in_pieces_is_that_of_the_whole(head: TalkingHead, chunk: float) -> None:
    speech = Speech(noise(7.3))
    assert not speech.silence.any()
    pieces = list(speech.encode(head.model, AnimateConfig(audio_chunk=chunk)))
    around = torch.zeros(32000)  # silence stands before and after it
    with torch.no_grad():
        whole = head.model.encode_audio(torch.cat([around, *speech, around])[None], speech.frames + 120)[0]
    assert_close(torch.cat(pieces), whole[60:-60])
    assert len(pieces) > 1 or chunk == 5.0


def test_the_ends_of_the_speech_are_heard_as_within_silence(head: TalkingHead) -> None:
    """Silence put before and after the file by the user changes hardly anything in the frames of the speech."""
    sound, silence = noise(3.0), np.zeros(16000, np.float32)
    alone = torch.cat(list(Speech(sound).encode(head.model)))
    within = torch.cat(list(Speech(np.concatenate([silence, sound, silence])).encode(head.model)))[30:-30]
    with torch.no_grad():
        edges = head.model.encode_audio(torch.from_numpy(sound)[None], 90)[0]  # as if the clip were all there is
    for ends in (slice(0, 4), slice(-4, None)):
        # not equal: where vectors of 20 ms become frames depends a little on the clip's length
        assert (alone - within)[ends].abs().max() < 0.1 * (edges - within)[ends].abs().max()


def test_a_pause_is_silent_and_a_closure_within_a_word_is_not() -> None:
    sound = noise(4.0)
    sound[16000:32000] *= 1e-3  # a second, 60 dB down
    sound[40000:41000] = 0.0  # a t: 60 ms
    silence = Speech(sound).silence
    assert (silence[35:55] == 1).all() and (silence[:28] == 0).all() and (silence[63:] == 0).all()
    assert np.abs(np.diff(silence)).max() <= 0.5  # it comes and goes over some frames


def test_a_pause_with_background_noise_is_silent_too() -> None:
    sound = noise(6.0, 0.1)
    sound[32000:64000] = noise(2.0, 0.1 * 10 ** (-28 / 20), 1)
    silence = Speech(sound).silence
    assert (silence[66:114] == 1).all() and (silence[:58] == 0).all() and (silence[122:] == 0).all()


def test_speech_in_strong_noise_is_never_taken_for_silence() -> None:
    loudness = np.full(500, -20.0)
    loudness[200:260] = -26.0
    assert not silence_of_frames(loudness, 150, AnimateConfig()).any()


def test_in_silence_the_vectors_are_those_of_digital_silence(head: TalkingHead) -> None:
    sound = noise(3.0)
    sound[16000:] *= 1e-4
    speech = Speech(sound)
    vectors = torch.cat(list(speech.encode(head.model)))
    silent = head.model.encode_silence()
    assert torch.equal(vectors[45:], silent.expand(len(vectors) - 45, -1))
    assert (vectors[:25] - silent).abs().max() > 1e-2


def test_sound_of_any_kind_is_the_same_speech(tmp_path: Path) -> None:
    tone = np.sin(np.arange(44100) * 2 * np.pi * 220 / 44100) * 0.3
    soundfile.write(tmp_path / "stereo.wav", np.stack([tone, tone], 1), 44100, subtype="FLOAT")
    soundfile.write(tmp_path / "mono.flac", tone[::2], 22050)
    stereo, mono = Speech(tmp_path / "stereo.wav"), Speech(tmp_path / "mono.flac")
    assert stereo.frames == mono.frames == 30
    assert (torch.cat(list(stereo)) - torch.cat(list(mono))).abs()[200:-200].max() < 2e-3


@pytest.mark.parametrize(
    ("sound", "message"),
    [(noise(0.1), "0.10 s of speech are too short"), (np.zeros(16000), "silence throughout"),
     (np.full(16000, 2e-5), "silence throughout"), (np.full(16000, np.nan), "numbers"), (noise(1)[None], "numbers")],
)  # fmt: skip
def test_what_is_no_speech_is_refused(sound: np.ndarray, message: str) -> None:
    with pytest.raises(SpeakError, match=message):
        Speech(sound)
