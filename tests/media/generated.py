"""Small media made on the spot for the tests: videos that show the time, flashes with clicks, files of every kind."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np

from speak.media.ffmpeg import executable

BITS = 12  # a frame's number is written as black and white columns


def ffmpeg(*arguments: object) -> None:
    """Runs ffmpeg on its own, as another program would make the file."""
    subprocess.run([executable(), "-y", "-loglevel", "error", *map(str, arguments)], check=True)


def numbered_frame(number: int, width: int = 96, height: int = 32) -> np.ndarray:
    """uint8 [H, W, 3] with `number` in columns that survive video coding."""
    bits = (number >> np.arange(BITS)) & 1
    row = np.repeat(bits, width // BITS) * 200 + 20
    return np.broadcast_to(row[None, :, None], (height, width, 3)).astype(np.uint8).copy()


def number_of(frame: np.ndarray) -> int:
    """The number that `numbered_frame` wrote."""
    columns = frame.mean(axis=(0, 2)).reshape(BITS, -1)[:, 2:-2].mean(1)
    return int(((columns > 120) << np.arange(BITS)).sum())


def numbered_video(path: Path, count: int, rate: str, *options: object) -> Path:
    """A video whose frame n shows n, at `rate` (ffmpeg's notation)."""
    frames = np.stack([numbered_frame(number) for number in range(count)])
    subprocess.run(
        [executable(), "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-video_size", "96x32",
         "-framerate", rate, "-i", "pipe:0", *map(str, options), str(path)],
        input=frames.tobytes(), check=True,
    )  # fmt: skip
    return path


def flash_and_click(path: Path, rate: str, seconds: float, every: float, *options: object) -> Path:
    """Three white frames and clicks of 10 ms together, about every `every` seconds, starting at about `every` / 2.

    Both begin at a frame of the source, to the microsecond: what is apart afterwards, the reader has moved.
    """
    fraction = Fraction(rate)
    frames = round(every * fraction)  # from flash to flash
    first, period = frames // 2, float(frames / fraction)
    start = float(first / fraction)
    ffmpeg(
        "-f", "lavfi", "-i", f"color=black:s=64x64:r={rate}:d={seconds}",
        "-f", "lavfi", "-i",
        f"aevalsrc='0.9*lt(mod(t-{start:.9f}+{period:.9f},{period:.9f}),0.01)*cos(2*PI*1000*t)':s=48000:d={seconds}",
        "-vf", f"drawbox=t=fill:color=white:enable='between(mod(n,{frames}),{first},{first + 2})'",
        *options, path,
    )  # fmt: skip
    return path


def flashes(brightness: np.ndarray, rate: float) -> np.ndarray:
    """Times at which a sequence of brightness values rises above the middle, seconds."""
    bright = brightness > 100
    return (np.flatnonzero(bright[1:] & ~bright[:-1]) + 1) / rate


def clicks(samples: np.ndarray, rate: float) -> np.ndarray:
    """Times at which sound begins after silence, seconds."""
    loud = np.flatnonzero(np.abs(samples) > 0.2)
    return loud[np.diff(loud, prepend=-rate) > 0.1 * rate] / rate
