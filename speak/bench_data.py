"""`python -m speak bench data`: how fast clips are prepared, beside the decoder alone, and how fast they are read.

All material is made on the spot: moving gradients with noise, which decodes and compresses about as a camera's picture.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from speak.config import FRAME_RATE, SAMPLE_RATE, ClipsConfig, sample_of_frame
from speak.datasets.clips import IrfdPairs, SpeakWindows, SyncWindows
from speak.media.audio import write_wav
from speak.media.ffmpeg import executable, file_argument
from speak.media.prepared import ClipRecord, PreparedCorpus, PreparedWriter
from speak.media.video import VideoWriter
from speak.prepare import prepare

SIZES = ((1920, 1080), (640, 480), (256, 256))


def bench_data(seconds: float = 8.0) -> dict[str, float]:
    """Figures by name: `decode WxH frames/s` a core (ffmpeg alone, one thread, to nowhere), `prepare WxH frames/s` a
    core (with a given box), `prepare/decode WxH` (the ratio of their processor times), `read frames/s` (random frames
    of a prepared 256x256 corpus, one core) and the three stages' samples in frames/s.

    Args:
        seconds: length of the videos that are prepared.
    """
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="speak-bench-") as name:
        folder = Path(name)
        for width, height in SIZES:
            figures |= _prepare_speed(folder / f"{width}", width, height, seconds)
        figures |= _read_speed(folder / "corpus")
    return figures


def moving_frames(width: int, height: int, count: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Frames uint8 [height, width, 3] of gradients that move, with some noise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    noise = random.normal(0, 4, (height + 16, width + 16, 1)).astype(np.float32)
    waves = [np.sin(x / width * 9 + k) + np.cos(y / height * 7 - k) for k in range(3)]
    for index in range(count):
        dy, dx = random.integers(0, 16, 2)
        shift = 40 * np.sin(index / 9)
        frame = np.stack([128 + 50 * np.roll(wave, int(shift) + 5 * k, 1) for k, wave in enumerate(waves)], -1)
        yield np.clip(frame + noise[dy : dy + height, dx : dx + width], 0, 255).astype(np.uint8)


def _prepare_speed(folder: Path, width: int, height: int, seconds: float) -> dict[str, float]:
    source = folder / "videos"
    source.mkdir(parents=True)
    count = round(seconds * FRAME_RATE)
    sound = folder / "sound.wav"
    write_wav(sound, np.random.default_rng(0).normal(0, 0.1, sample_of_frame(count)).astype(np.float32))
    with VideoWriter(source / "video.mp4", sound, comment="") as writer:
        for frame in moving_frames(width, height, count):
            writer.write(frame)
    command = [executable(), "-loglevel", "error", "-threads", "1", "-i", file_argument(source / "video.mp4"),
               "-map", "0:v:0", "-f", "null", "-"]  # fmt: skip
    decode = min(_processor_time(lambda: subprocess.run(command, check=True)) for _ in range(3))
    side = 0.45 * height
    box = (width / 2 - side / 2, height / 2 - side / 2, side, side)
    times = []
    for attempt in range(3):
        out = folder / f"out{attempt}"
        times.append(_processor_time(lambda o=out: prepare(source, "folder", o, box=box, workers=1, quiet=True)))
    size = f"{width}x{height}"
    return {
        f"decode {size} frames/s": count / decode,
        f"prepare {size} frames/s": count / min(times),
        f"prepare/decode {size}": min(times) / decode,
    }


def _read_speed(folder: Path, clips: int = 16, frames: int = 150, samples: int = 400) -> dict[str, float]:
    writer = PreparedWriter(folder)
    emotions = ("happy", "neutral", "sad", "angry")
    sound = np.random.default_rng(0).normal(0, 0.1, frames * SAMPLE_RATE // FRAME_RATE).astype(np.float32)
    for number in range(clips):
        record = ClipRecord(f"clip{number:03d}", f"person{number % 4}", 0, emotions[number // 4])
        writer.write(record, moving_frames(256, 256, frames, number), sound)
    corpus, random = PreparedCorpus(folder), np.random.default_rng(0)

    def read() -> None:
        for _ in range(samples):
            corpus.frames(corpus.clips[random.integers(clips)], [int(random.integers(frames))])

    read()  # the pages of the files are in memory from here on
    figures = {"read frames/s": samples / _timed(read)}
    config = ClipsConfig()
    for name, data, each in (
        ("irfd", IrfdPairs(corpus, config), 2),
        ("syncnet", SyncWindows(corpus, config), config.sync_frames),
        ("speak", SpeakWindows(corpus, config), 1 + config.speak_frames + config.emotion_frames),
    ):
        count = samples // each
        figures[f"{name} samples, frames/s"] = each * count / _timed(lambda d=data, n=count: [d[i] for i in range(n)])
    return figures


def _processor_time(call: Callable[[], object]) -> float:
    """Seconds that this process and its ended children were on a core."""
    before = os.times()
    call()
    return sum(os.times()[:4]) - sum(before[:4])


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
