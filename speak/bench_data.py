"""`python -m speak bench data`: how fast clips are prepared, beside the decoder alone, how fast they are read, and how
fast rendered people are made.

All material is made on the spot: moving gradients with noise, which decodes and compresses about as a camera's picture.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from speak.bench import median_ms
from speak.config import EMOTIONS, EYE_NAMES, FRAME_RATE, SAMPLE_RATE, ClipsConfig, sample_of_frame
from speak.datasets.clips import IrfdPairs, SpeakWindows, SyncWindows
from speak.media.audio import write_wav
from speak.media.ffmpeg import executable, file_argument
from speak.media.prepared import ClipRecord, PreparedCorpus, PreparedWriter
from speak.media.video import VideoWriter
from speak.prepare import prepare
from speak.synthetic.head import render
from speak.synthetic.identity import sample_identity
from speak.synthetic.phones import MOUTH_NAMES
from speak.synthetic.scene import sample_scene
from speak.synthetic.sentences import random_sentence
from speak.synthetic.voice import random_voice, utter

SIZES = ((1920, 1080), (640, 480), (256, 256))


def measure(arguments: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Four tables.

    Preparing, a row a size: frames a second and core of ffmpeg's decoder alone (to nowhere), of `prepare` (given box,
    sound, 256x256 JPEG) and of `prepare` that looks for faces (a second, rough decoding), and the ratios of their
    processor times to the decoder's. Reading a prepared corpus at random, frames a second and core, bare and through
    the three stages' windows. Rendering people, pictures a second by size, with one thread and with all of them.
    Rendered voices: how many times as fast as it lasts speech is made on one core.
    """
    seconds, samples = (2.0, 150) if arguments.quick else (8.0, 600)
    with tempfile.TemporaryDirectory(prefix="speak-bench-") as name:
        folder = Path(name)
        prepared = [_prepare_speed(folder / f"{width}", width, height, seconds) for width, height in SIZES]
        read = _read_speed(folder / "corpus", 4 if arguments.quick else 16, samples)
    return {
        "prepare, frames a second and core": prepared,
        "read at random, 256x256, frames a second and core": read,
        "rendered people, pictures a second; 30 at 256 are asked of two cores": _render_speed(arguments.quick),
        "rendered voices, one core": _voice_speed(arguments.quick),
    }


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


def _prepare_speed(folder: Path, width: int, height: int, seconds: float) -> dict[str, Any]:
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

    def prepared(name: str, box: tuple[float, float, float, float] | None) -> float:
        """The least processor time of three runs."""
        outs = [folder / f"{name}{attempt}" for attempt in range(3)]
        return min(_processor_time(lambda o=out: prepare(source, "folder", o, box=box, workers=1, quiet=True))
                   for out in outs)  # fmt: skip

    given, looked = prepared("given", box), prepared("looked", None)
    return {
        "video": f"{width}x{height}", "decoder": round(count / decode), "prepare": round(count / given),
        "ratio of times": round(given / decode, 2), "with detection": round(count / looked),
        "its ratio": round(looked / decode, 2),
    }  # fmt: skip


def _read_speed(folder: Path, clips: int, samples: int, frames: int = 150) -> list[dict[str, Any]]:
    writer = PreparedWriter(folder)
    emotions = ("happy", "neutral", "sad", "angry")
    sound = np.random.default_rng(0).normal(0, 0.1, frames * SAMPLE_RATE // FRAME_RATE).astype(np.float32)
    for number in range(clips):
        record = ClipRecord(f"clip{number:03d}", f"person{number % 4}", 0, emotions[number // 4 % 4])
        writer.write(record, moving_frames(256, 256, frames, number), sound)
    corpus, random = PreparedCorpus(folder), np.random.default_rng(0)

    def read() -> None:
        for _ in range(samples):
            corpus.frames(corpus.clips[random.integers(clips)], [int(random.integers(frames))])

    read()  # the pages of the files are in memory from here on
    rows = [{"what": "single frames", "frames/s": round(samples / _processor_time(read))}]
    config = ClipsConfig()
    for name, data, each in (
        ("irfd pairs", IrfdPairs(corpus, config), 2),
        ("syncnet windows", SyncWindows(corpus, config), config.sync_frames),
        ("speak windows", SpeakWindows(corpus, config), 1 + config.speak_frames + config.emotion_frames),
    ):
        count = samples // each
        seconds = _processor_time(lambda d=data, n=count: [d[index] for index in range(n)])
        rows.append({"what": name, "frames/s": round(each * count / seconds)})
    return rows


def _render_speed(quick: bool) -> list[dict[str, Any]]:
    """Somebody else in every picture, turned and moved as in training: the renderer's dearest case."""
    threads, rows, count = torch.get_num_threads(), [], 8 if quick else 32
    generator = torch.Generator().manual_seed(0)
    identity, scene = sample_identity(count, generator), sample_scene(count, generator)
    pose = torch.randn(count, 6, generator=generator) * torch.tensor([16, 9, 6, 0.03, 0.03, 0.05])
    pose[:, 5] += 1
    emotions = torch.eye(len(EMOTIONS)).repeat(count // len(EMOTIONS), 1)
    mouth = torch.rand(count, len(MOUTH_NAMES), generator=generator) ** 2
    eyes = torch.zeros(count, len(EYE_NAMES))
    for size in (256, 128, 64):
        row: dict[str, Any] = {"size": size}
        try:
            for used in sorted({1, threads}):
                torch.set_num_threads(used)
                milliseconds = median_ms(
                    lambda s=size: render(identity, pose, emotions, mouth, eyes, scene, s), 3 if quick else 5
                )
                row[f"{used} thread{'s' * (used > 1)}"] = round(1e3 * count / milliseconds)
        finally:
            torch.set_num_threads(threads)
        rows.append(row)
    return rows


def _voice_speed(quick: bool) -> list[dict[str, Any]]:
    generator = np.random.default_rng(0)
    weights = np.eye(len(EMOTIONS), dtype=np.float32)[EMOTIONS.index("happy")]
    sentences = [random_sentence(generator, 4.0) for _ in range(2 if quick else 10)]
    lasted = 0.0

    def speak() -> None:
        nonlocal lasted
        for number, sentence in enumerate(sentences):
            utterance = utter(sentence, random_voice(np.random.default_rng(number)), weights, (number,))
            lasted += len(utterance.waveform(0, round(utterance.phones.seconds * SAMPLE_RATE))) / SAMPLE_RATE

    taken = _processor_time(speak)
    return [{"voice": "formants", "times as fast as it lasts": round(lasted / taken)}]


def _processor_time(call: Callable[[], object]) -> float:
    """Seconds that this process and its ended children were on a core: of a busy machine, too."""
    before = os.times()
    call()
    return max(0.01, sum(os.times()[:4]) - sum(before[:4]))
