import contextlib
import math
import time
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from speak.errors import SpeakError
from speak.media import ffmpeg as ffmpeg_module
from speak.media import video as video_module
from speak.media.audio import read_audio, stream_audio, write_wav
from speak.media.video import VideoReader, VideoWriter, probe, write_video
from tests.media.generated import clicks, ffmpeg, flash_and_click, flashes, number_of, numbered_frame, numbered_video


def frames_of(path: Path, **options: object) -> list[np.ndarray]:
    with VideoReader(path, **options) as reader:
        return list(reader)


@pytest.mark.parametrize("rate", ["2213/100", "24000/1001", "25", "30000/1001", "30", "35", "60"])
def test_every_rate_comes_out_at_exactly_30_showing_what_was_on_screen(tmp_path: Path, rate: str) -> None:
    count = 120
    video = numbered_video(tmp_path / "v.mp4", count, rate, "-c:v", "libx264", "-crf", "10")
    numbers = np.array([number_of(frame) for frame in frames_of(video)])
    seconds = count / Fraction(rate)
    assert abs(len(numbers) - seconds * 30) <= 0.5 + 1e-9
    on_screen = numbers / float(Fraction(rate))  # when the shown frame begins
    late = np.arange(len(numbers)) / 30 - on_screen
    # shown from half an output frame before its time to half a frame after it ends
    assert late.min() >= -1 / 60 - 2e-3 and late.max() <= 1 / float(Fraction(rate)) + 1 / 60 + 2e-3


def test_a_variable_rate_is_followed_by_its_time_stamps(tmp_path: Path) -> None:
    # 40 frames at 20 frames/s, then 40 at 50
    stamps = "if(lt(N,40),N/20,2+(N-40)/50)/TB"
    video = numbered_video(tmp_path / "v.mkv", 80, "30", "-vf", f"settb=1/1000,setpts='{stamps}'", "-fps_mode",
                           "passthrough", "-c:v", "libx264", "-crf", "10")  # fmt: skip
    numbers = [number_of(frame) for frame in frames_of(video)]
    assert abs(len(numbers) - (2 + 40 / 50) * 30) <= 1
    begins = np.concatenate([np.arange(40) / 20, 2 + np.arange(40) / 50])
    for index, number in enumerate(numbers[:-1]):
        assert abs(begins[number] - index / 30) <= 1 / 20 + 1 / 60


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".avi", ".webm", ".mpg", ".flv"])
def test_containers_of_all_sorts_give_the_same_frames(tmp_path: Path, suffix: str) -> None:
    codec = ["-b:v", "4M"] if suffix in (".mpg", ".flv", ".avi") else ["-crf", "10"]
    video = numbered_video(tmp_path / f"v{suffix}", 50, "25", *codec)
    numbers = [number_of(frame) for frame in frames_of(video)]
    assert abs(len(numbers) - 60) <= 1
    assert max(abs(number - index * 25 / 30) for index, number in enumerate(numbers)) <= 1.01


@pytest.mark.parametrize("rate", ["2213/100", "24000/1001", "30000/1001", "35"])
def test_flash_and_click_stay_together(tmp_path: Path, rate: str) -> None:
    video = flash_and_click(tmp_path / "v.mp4", rate, 20, 5)
    seen = flashes(np.array([frame.mean() for frame in frames_of(video)]), 30)
    heard = clicks(read_audio(video), 16000)
    assert len(seen) == len(heard) == 4
    assert np.abs(seen - heard).max() <= 1 / 60 + 1e-3  # half a frame; AAC smears the click by a millisecond


@pytest.mark.long
@pytest.mark.parametrize("rate", ["2213/100", "24000/1001", "30000/1001", "35"])
def test_an_hour_does_not_drift(tmp_path: Path, rate: str) -> None:
    video = flash_and_click(tmp_path / "v.mp4", rate, 3600, 300, "-preset", "ultrafast")
    with VideoReader(video) as reader:
        brightness = np.array([frame.mean() for frame in reader])
    source_frames = math.ceil(3600 * Fraction(rate))
    assert len(brightness) == round(source_frames / Fraction(rate) * 30)
    heard, seconds = [], 0.0
    for block in stream_audio(video):
        starts = seconds + clicks(block, 16000)
        heard += [start for start in starts if not heard or start > heard[-1] + 1]  # one may lie over two blocks
        seconds += len(block) / 16000
    seen = flashes(brightness, 30)
    assert len(seen) == len(heard) == 12
    apart = seen - np.array(heard)
    print(f"{rate}: {len(brightness)} frames, {seconds:.4f} s of sound, apart {1e3 * apart} ms")
    assert np.abs(apart).max() <= 1 / 60 + 1e-3


def test_sound_that_starts_late_in_its_file_is_put_where_it_belongs(tmp_path: Path) -> None:
    flash_and_click(tmp_path / "v.mp4", "30", 4, 2)
    ffmpeg("-i", tmp_path / "v.mp4", "-itsoffset", "0.5", "-i", tmp_path / "v.mp4", "-map", "0:v", "-map", "1:a",
           "-c", "copy", tmp_path / "late.mkv")  # fmt: skip
    assert np.allclose(clicks(read_audio(tmp_path / "late.mkv"), 16000), [1.5, 3.5], atol=5e-3)
    seen = flashes(np.array([frame.mean() for frame in frames_of(tmp_path / "late.mkv")]), 30)
    assert np.allclose(seen, [1, 3], atol=1 / 60)


def test_rotation_metadata_is_applied(tmp_path: Path) -> None:
    half = np.zeros((32, 64, 3), np.uint8)
    half[:, 32:] = 255  # the right half is white
    write_video(tmp_path / "v.mp4", [half] * 5)
    ffmpeg("-display_rotation", "90", "-i", tmp_path / "v.mp4", "-c", "copy", tmp_path / "r.mp4")
    frame = frames_of(tmp_path / "r.mp4")[0]
    assert frame.shape == (64, 32, 3) and probe(tmp_path / "r.mp4").width == 32
    assert {int(frame[:24].mean()) > 128, int(frame[40:].mean()) > 128} == {True, False}
    assert frame[:24].mean() > 250 or frame[40:].mean() > 250


def test_pixels_that_are_not_square_are_made_so(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", [np.full((48, 36, 3), 90, np.uint8)] * 3)
    ffmpeg("-i", tmp_path / "v.mp4", "-vf", "setsar=4/3", tmp_path / "s.mp4")
    assert frames_of(tmp_path / "s.mp4")[0].shape == (48, 48, 3)
    assert (probe(tmp_path / "s.mp4").width, probe(tmp_path / "s.mp4").height) == (48, 48)


def test_odd_sizes_gain_a_pixel_and_colours_come_back(tmp_path: Path) -> None:
    frame = np.empty((65, 97, 3), np.uint8)
    frame[:] = (200, 40, 90)
    write_video(tmp_path / "v.mp4", [frame] * 4)
    back = frames_of(tmp_path / "v.mp4")
    assert len(back) == 4 and back[0].shape == (66, 98, 3)
    assert np.abs(back[0].astype(int) - frame[0, 0]).max() <= 3


def test_a_box_and_a_size_give_that_part(tmp_path: Path) -> None:
    frame = np.zeros((60, 90, 3), np.uint8)
    frame[11:31, 33:63] = 250
    write_video(tmp_path / "v.mp4", [frame] * 3, quality=5)
    part = frames_of(tmp_path / "v.mp4", box=(33, 11, 30, 20), size=(16, 8))[0]
    assert part.shape == (8, 16, 3) and part[1:-1, 1:-1].min() > 220


def test_a_file_without_sound_says_so(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", [numbered_frame(0)] * 3)
    assert not probe(tmp_path / "v.mp4").sound
    with pytest.raises(SpeakError, match=r"v\.mp4.*no sound"):
        read_audio(tmp_path / "v.mp4")


def test_a_part_that_is_sought_equals_the_same_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = numbered_video(tmp_path / "v.mp4", 250, "25", "-crf", "10", "-g", "60", "-bf", "3")
    whole = [number_of(frame) for frame in frames_of(video)]
    assert [number_of(frame) for frame in frames_of(video, start=170, frames=50)] == whole[170:220]
    monkeypatch.setattr(video_module, "SEEK_FROM", 2)
    for start in (61, 170, 233, 290):
        assert [number_of(frame) for frame in frames_of(video, start=start, frames=5)] == whole[start : start + 5]
        assert [number_of(frame) for frame in frames_of(video, start=start)] == whole[start:]


def test_reading_and_writing_hold_a_few_frames_whatever_the_length(tmp_path: Path) -> None:
    frame = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)

    def peak(count: int) -> int:
        tracemalloc.start()
        write_video(tmp_path / "v.mp4", (frame for _ in range(count)), speed="ultrafast")
        with VideoReader(tmp_path / "v.mp4") as reader:
            assert sum(1 for _ in reader) == count
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(2)
    short, long = peak(10), peak(200)
    assert long <= short + 2 * frame.nbytes


def test_the_written_file_has_the_frames_the_original_sound_and_says_generated(tmp_path: Path) -> None:
    sound = 0.5 * np.sin(np.arange(44100 * 2) * 2 * np.pi * 440 / 44100)
    write_wav(tmp_path / "s.wav", sound, 44100)
    frames = [numbered_frame(number) for number in range(60)]
    assert write_video(tmp_path / "v.mp4", frames, tmp_path / "s.wav", quality=10) == 60
    assert [number_of(frame) for frame in frames_of(tmp_path / "v.mp4")] == list(range(60))
    spectrum = np.abs(np.fft.rfft(read_audio(tmp_path / "v.mp4")[:32000]))
    assert spectrum.argmax() == 880  # 440 Hz over two seconds
    assert b"generated" in (tmp_path / "v.mp4").read_bytes()
    with VideoWriter(tmp_path / "part.mp4", tmp_path / "s.wav", audio_seconds=0.5) as writer:
        for frame in frames[:15]:
            writer.write(frame)
    assert abs(len(read_audio(tmp_path / "part.mp4")) / 16000 - 0.5) < 0.03


def test_an_error_while_writing_leaves_nothing_and_keeps_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_text("before")

    def frames():
        yield numbered_frame(0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "v.mp4", frames())
    with pytest.raises(SpeakError, match="no frame"):
        write_video(tmp_path / "w.mp4", [])
    with pytest.raises(SpeakError, match="folder does not exist"):
        write_video(tmp_path / "missing" / "w.mp4", [numbered_frame(0)])
    (tmp_path / "no.wav").write_text("this is text, not sound")
    with pytest.raises(SpeakError, match=r"w\.mp4: not written"):
        write_video(tmp_path / "w.mp4", [numbered_frame(0)] * 200, tmp_path / "no.wav")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["no.wav", "v.mp4"]
    assert (tmp_path / "v.mp4").read_text() == "before"


def test_a_truncated_video_is_refused_with_its_name(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (30, 64, 64, 3), np.uint8)
    write_video(tmp_path / "v.mp4", noise)
    data = (tmp_path / "v.mp4").read_bytes()
    for share in (0.3, 0.7, 0.95):
        (tmp_path / "cut.mp4").write_bytes(data[: int(share * len(data))])
        with pytest.raises(SpeakError, match=r"cut\.mp4"):
            frames_of(tmp_path / "cut.mp4")


def test_a_decoder_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = numbered_video(tmp_path / "v.mp4", 5, "30")
    hangs = tmp_path / "hangs"
    hangs.write_text("#!/bin/sh\nexec sleep 60\n")
    hangs.chmod(0o755)
    monkeypatch.setattr(ffmpeg_module, "executable", lambda: str(hangs))
    start = time.monotonic()
    with pytest.raises(SpeakError, match="said nothing for 0.5 s"):
        frames_of(video, stall_seconds=0.5)
    with pytest.raises(SpeakError, match="said nothing for 0.5 s"):
        list(stream_audio(video, stall_seconds=0.5))
    assert time.monotonic() - start < 10


def test_frames_that_claim_to_last_for_weeks_are_not_filled_up(tmp_path: Path) -> None:
    video = numbered_video(tmp_path / "v.avi", 10, "25")
    content = bytearray(video.read_bytes())
    scale = content.index(b"strh") + 8 + 20  # AVI's seconds a frame are scale / rate
    content[scale : scale + 4] = (50_000_000).to_bytes(4, "little")
    video.write_bytes(content)
    start, count = time.monotonic(), 0
    with VideoReader(video, stall_seconds=20) as reader, contextlib.suppress(SpeakError):
        for _ in reader:
            count += 1
    assert count < 30 * (video.stat().st_size / 50 + 70) and time.monotonic() - start < 10
