import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.signal import resample_poly

from speak.errors import SpeakError
from speak.media.audio import read_audio, read_wav_samples, resampled, stream_audio, write_wav
from tests.media.generated import ffmpeg


def tone(rate: int, seconds: float, hertz: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 44101, 48000, 96000])
def test_resampling_in_blocks_equals_scipy_on_the_whole(rate: int) -> None:
    random = np.random.default_rng(rate)
    samples = random.standard_normal(int(2.3 * rate)).astype(np.float32)
    blocks = np.split(samples, np.sort(random.integers(0, len(samples), 9)))
    common = math.gcd(rate, 16000)
    whole = resample_poly(samples.astype(np.float64), 16000 // common, rate // common)
    made = np.concatenate(list(resampled(blocks, rate, 16000)))
    assert made.shape == whole.shape
    assert np.abs(made - whole).max() < 1e-5


def test_long_sound_is_resampled_in_blocks_as_it_is_whole() -> None:
    samples = np.random.default_rng(0).standard_normal(48000 * 12).astype(np.float32)
    blocks = list(resampled(np.split(samples, 24), 48000, 16000))
    assert len(blocks) > 10  # it is streamed
    assert np.abs(np.concatenate(blocks) - resample_poly(samples.astype(np.float64), 1, 3)).max() < 1e-5


def test_what_is_above_8_khz_does_not_fold_back(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "high.wav", tone(48000, 1, 11000), 48000, subtype="FLOAT")
    assert np.abs(read_audio(tmp_path / "high.wav")[500:-500]).max() < 2e-3
    soundfile.write(tmp_path / "low.wav", tone(48000, 1, 1000), 48000, subtype="FLOAT")
    assert np.abs(read_audio(tmp_path / "low.wav") - tone(16000, 1, 1000))[500:-500].max() < 2e-3


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_every_width_and_number_of_channels_is_read(tmp_path: Path, subtype: str, channels: int) -> None:
    samples = np.repeat(tone(16000, 0.3)[:, None], channels, axis=1)
    soundfile.write(tmp_path / "s.wav", samples, 16000, subtype=subtype)
    steps = {"PCM_U8": 2 / 256, "PCM_16": 2 / 65536}.get(subtype, 1e-6)
    assert np.abs(read_audio(tmp_path / "s.wav") - samples[:, 0]).max() <= steps


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = tone(16000, 0.2, 300), tone(16000, 0.2, 500)
    soundfile.write(tmp_path / "s.wav", np.stack([left, right], 1), 16000, subtype="FLOAT")
    assert np.abs(read_audio(tmp_path / "s.wav") - (left + right) / 2).max() < 1e-6
    ffmpeg("-i", tmp_path / "s.wav", "-c:a", "pcm_f32le", tmp_path / "s.mka")  # the same through ffmpeg
    assert np.abs(read_audio(tmp_path / "s.mka") - (left + right) / 2).max() < 1e-6


@pytest.mark.parametrize("suffix", [".flac", ".aiff", ".mp3", ".m4a", ".ogg", ".opus", ".mka"])
def test_every_format_comes_out_in_time_and_at_its_loudness(tmp_path: Path, suffix: str) -> None:
    samples = np.concatenate([np.zeros(8000), tone(16000, 0.5), np.zeros(8000)])
    soundfile.write(tmp_path / "s.wav", np.stack([samples, samples], 1), 16000)
    ffmpeg("-i", tmp_path / "s.wav", "-ar", "48000", tmp_path / f"s{suffix}")
    made = read_audio(tmp_path / f"s{suffix}")
    assert abs(len(made) - len(samples)) <= 0.1 * 16000  # coders pad the end
    assert abs(np.flatnonzero(np.abs(made) > 0.15)[0] / 16000 - 0.5) < 0.005
    assert abs(np.abs(made[9000:15000]).max() - 0.5) < 0.05


def test_a_written_file_comes_back_and_is_padded_with_silence(tmp_path: Path) -> None:
    samples = tone(16000, 0.1)
    assert write_wav(tmp_path / "s.wav", [samples[:700], samples[700:]]) == 1600
    assert np.abs(read_audio(tmp_path / "s.wav") - samples).max() < 1e-4
    part = read_wav_samples(tmp_path / "s.wav", -100, 1700)
    assert part.shape == (1800,) and not part[:100].any() and not part[1700:].any()
    assert np.abs(part[100:1700] - samples).max() < 1 / 32767
    assert not read_wav_samples(tmp_path / "s.wav", 5000, 5100).any()


def test_bad_sound_is_refused_in_one_line(tmp_path: Path) -> None:
    samples = tone(16000, 0.5)
    samples[1000:1003] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 16000)
    soundfile.write(tmp_path / "whole.wav", tone(16000, 0.5), 16000)
    soundfile.write(tmp_path / "whole.flac", np.random.default_rng(0).uniform(-1, 1, 30000), 16000)
    (tmp_path / "cut.wav").write_bytes((tmp_path / "whole.wav").read_bytes()[:9000])
    (tmp_path / "cut.flac").write_bytes((tmp_path / "whole.flac").read_bytes()[:20000])
    (tmp_path / "text.wav").write_text("RIFFsizeWAVE is what it says")
    (tmp_path / "text.mp3").write_text("hello" * 500)
    for name, reason in {
        "nan.wav": "3 samples are not numbers", "none.wav": "no length", "cut.wav": "truncated",
        "cut.flac": "damaged|truncated", "text.wav": "no sound that can be read", "text.mp3": "no sound",
        "missing.wav": "no such file", ".": "folder",
    }.items():  # fmt: skip
        with pytest.raises(SpeakError, match=reason) as caught:
            read_audio(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)


def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    write_wav(tmp_path / "s.wav", (tone(48000, 10).astype(np.float32) for _ in range(12)), 48000)
    assert max(len(block) for block in stream_audio(tmp_path / "s.wav")) <= 25 * 16000
    assert abs(sum(len(block) for block in stream_audio(tmp_path / "s.wav")) - 120 * 16000) <= 1
