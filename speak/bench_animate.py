"""`python -m speak bench animate`: a video from end to end with preset `default` at 256x256, and its memory by length.

The model is not trained, which changes neither speed nor memory. The drivers are as long as the speech, so that every
frame is decoded, encoded, generated and written. Each length runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from speak import allocator, checkpoint
from speak.animate import write_video
from speak.batch_file import Job
from speak.bench_data import moving_frames
from speak.config import FRAME_RATE, SAMPLE_RATE, preset, to_dict
from speak.drivers import as_frames
from speak.generation import TalkingHead, load
from speak.media.audio import write_wav
from speak.media.image import write_image
from speak.media.video import VideoWriter
from speak.models.speak import Speak
from speak.speech import Speech

LENGTHS, QUICK_LENGTHS = (10, 180), (4, 20)  # seconds of speech


def measure(arguments: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Two tables: whole videos of 10 and of 180 seconds (frames a second and peak memory), and what a frame's parts
    cost one after the other. `--quick`: 4 and 20 seconds."""
    lengths = QUICK_LENGTHS if arguments.quick else LENGTHS
    rows = []
    with tempfile.TemporaryDirectory(prefix="speak-bench-") as name:
        folder = Path(name)
        _write_inputs(folder, lengths)
        for seconds in lengths:
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
            command = [sys.executable, "-c", "from speak.bench_animate import child; child()", str(folder),
                       str(seconds), arguments.device or ""]  # fmt: skip
            child = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            rows.append(json.loads(child.stdout.splitlines()[-1]))
        head = load(folder / "default.pt", arguments.device)
        parts = _parts(head, folder, lengths[0])
    return {f"whole videos, 256x256, {str(head.dtype).removeprefix('torch.')}": rows, "parts, ms a frame": parts}


def _write_inputs(folder: Path, lengths: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    torch.manual_seed(0)
    config = preset("default")
    checkpoint.save(folder / "default.pt", {"stage": "speak", "config": to_dict(config), "step": 0,
                                            "models": {"speak": Speak(config).state_dict()}})  # fmt: skip
    size = config.model.image_size
    write_image(folder / "photo.png", next(moving_frames(size, size, 1)))
    for seconds in lengths:
        time_of_sample = np.arange(seconds * SAMPLE_RATE) / SAMPLE_RATE
        syllables = np.clip(np.sin(2 * np.pi * 3.3 * time_of_sample), 0, 1)
        write_wav(folder / f"{seconds}.wav", (0.3 * syllables * random.normal(0, 0.3, len(syllables))).astype("f4"))
        with VideoWriter(folder / f"{seconds}.mp4", speed="ultrafast", comment="") as writer:
            for frame in moving_frames(size, size, seconds * FRAME_RATE):
                writer.write(frame)


def child() -> None:
    """One length in this process; prints a row as JSON."""
    folder, seconds, device = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] or None
    allocator.keep_memory()
    head = load(folder / "default.pt", device)
    driver = str(folder / f"{seconds}.mp4")
    job = Job(str(folder / "photo.png"), str(folder / f"{seconds}.wav"), driver, driver, str(folder / "out.mp4"))
    start = time.perf_counter()
    frames = write_video(head, job, progress=False)
    elapsed = time.perf_counter() - start
    print(json.dumps({"speech": f"{seconds} s", "frames": frames, "frames/s": round(frames / elapsed, 1),
                      "times real time": round(frames / elapsed / FRAME_RATE, 2), "peak MiB": peak_memory()}))


def peak_memory() -> float | None:
    """MiB that this process has held at most; None where the system does not say (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)


def _parts(head: TalkingHead, folder: Path, seconds: int) -> list[dict[str, Any]]:
    """Each part alone, over as many frames as the shorter video has."""
    model, batch = head.model, head.settings.batch
    speech = Speech(folder / f"{seconds}.wav")
    frames = list(moving_frames(head.image_size, head.image_size, batch))
    inputs = as_frames(frames, head.device)
    audio = torch.cat(list(speech.encode(model)))
    noise = model.draw_noise([0])
    with torch.no_grad():
        codes = model.encode_identity(inputs[:1]), model.encode_pose(inputs), model.encode_emotion(inputs)
    portrait = head.portrait(head.photo(frames[0], (0, 0, head.image_size, head.image_size)), codes[0])
    generated = head.frames_of_codes(*codes, audio[:batch], noise, portrait)

    def write() -> None:
        with VideoWriter(folder / "part.mp4", folder / f"{seconds}.wav") as writer:
            for _ in range(-(-speech.frames // batch)):
                for frame in generated:
                    writer.write(frame)

    def networks() -> None:
        pose, emotion = model.encode_pose(inputs), model.encode_emotion(inputs)
        head.frames_of_codes(codes[0], pose, emotion, audio[:batch], noise, portrait)

    with torch.no_grad():
        calls = {
            "audio encoder": (lambda: list(speech.encode(model)), speech.frames),
            "pose and emotion encoders": (lambda: (model.encode_pose(inputs), model.encode_emotion(inputs)), batch),
            "editing and generator, to uint8": (lambda: head.frames_of_codes(*codes, audio[:batch], noise, portrait),
                                                batch),
            "all of a frame's networks (12 asked of two cores)": (networks, batch),
            "video encoder and sound": (write, -(-speech.frames // batch) * batch),
        }  # fmt: skip
        return [{"part": name, "ms": round(_milliseconds(call) / count, 2)} for name, (call, count) in calls.items()]


def _milliseconds(call: Any, repeats: int = 5) -> float:
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times[1:]))
