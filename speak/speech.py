"""The speech of one video: counted and measured in a first pass, encoded in a stream in a second one.

Memory holds a hundred numbers a second of sound for finding silences, and nothing else that grows with its length.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from speak.config import FRAME_RATE, SAMPLE_RATE, AnimateConfig, sample_of_frame
from speak.errors import SpeakError
from speak.media.audio import stream_audio
from speak.models.speak import Speak
from speak.models.wav2vec2_streaming import encode_long

HOP = SAMPLE_RATE // 100  # samples of one measurement of loudness
SILENT_SAMPLE = 1e-4  # a sound that never exceeds this is silence throughout: less than 4 steps of 16 bit
AROUND = 2  # seconds of silence that the encoder sees before and after the speech: whole seconds are whole frames
LONG = 600 * SAMPLE_RATE  # samples from which the first pass shows a progress bar


class Speech:
    """Sound to be spoken, from a file or from samples; iterating gives its blocks [n] at 16 kHz, as often as wanted.

    Args:
        source: a sound or video file, or float samples [S] at 16 kHz.
        config: how silence is told from speech.
    Raises:
        SpeakError: unreadable, shorter than `shortest_speech`, silent throughout.

    Attributes:
        frames: N, the video frames that it takes: the last one may begin before the sound ends, none after it.
        samples: of these N frames; the end is filled up with silence.
        silence: [N] in [0, 1], how much of each frame is silence.
    """

    def __init__(self, source: str | Path | np.ndarray, config: AnimateConfig | None = None) -> None:
        config = config or AnimateConfig()
        self._source = source if isinstance(source, str | Path) else np.asarray(source, np.float32)
        self.name = str(source) if isinstance(source, str | Path) else "the speech"
        if isinstance(self._source, np.ndarray) and not (self._source.ndim == 1 and np.isfinite(self._source).all()):
            raise SpeakError(f"speech: give samples [S] at {SAMPLE_RATE} Hz that are numbers, not {self._source.shape}")
        loudness, count, peak, rest = [], 0, 0.0, np.zeros(0, np.float32)
        with tqdm(desc="listen", unit="s", delay=3, leave=False) as bar:
            for block in self._sound():
                count += len(block)
                peak = max(peak, float(np.abs(block).max(initial=0)))
                rest = np.concatenate([rest, block])
                whole = len(rest) // HOP * HOP
                loudness.append(np.square(rest[:whole]).reshape(-1, HOP).mean(1))
                rest = rest[whole:]
                bar.update(len(block) // SAMPLE_RATE)
        if count < config.shortest_speech * SAMPLE_RATE:
            raise SpeakError(f"{self.name}: {count / SAMPLE_RATE:.2f} s of speech are too short, at least "
                             f"{config.shortest_speech:g} s are wanted")  # fmt: skip
        if peak < SILENT_SAMPLE:
            raise SpeakError(f"{self.name}: silence throughout, there is nothing to say")
        self.seconds = count / SAMPLE_RATE
        self.frames = -(-count * FRAME_RATE // SAMPLE_RATE)
        self.samples = sample_of_frame(self.frames)
        decibels = 10 * np.log10(np.concatenate(loudness) + 1e-12)
        self.silence = silence_of_frames(decibels, self.frames, config)

    def __iter__(self) -> Iterator[Tensor]:
        room = self.samples
        for block in self._sound():  # a file may not have grown since it was measured
            room -= len(block)
            yield torch.from_numpy(block[: len(block) + min(0, room)])
        if room > 0:
            yield torch.zeros(room)

    def encode(
        self,
        model: Speak,
        config: AnimateConfig | None = None,
    ) -> Iterator[Tensor]:
        """f_a(1:N) in blocks [n, D]. Where the sound is silent they are drawn to the vector of digital silence: the
        mouth then closes even where breath, noise or the net's own unrest would move it."""
        config = config or AnimateConfig()
        silent, first = model.encode_silence(), 0
        blocks = encode_long(model.audio_encoder, _Surrounded(self), self.frames + 2 * AROUND * FRAME_RATE,
                             self.samples + 2 * AROUND * SAMPLE_RATE, config.audio_chunk)  # fmt: skip
        for block in _inner(blocks, AROUND * FRAME_RATE, self.frames):
            share = torch.from_numpy(self.silence[first : first + len(block), None]).to(block)
            yield torch.lerp(block, silent.expand_as(block), share)
            first += len(block)

    def _sound(self) -> Iterator[np.ndarray]:
        if isinstance(self._source, np.ndarray):
            yield from (self._source[start : start + LONG] for start in range(0, len(self._source), LONG))
        else:
            yield from stream_audio(self._source)


class _Surrounded:
    """Speech with silence before and after it, which is what stands there in training: without it the net would show
    its own edges in the first and last frames."""

    def __init__(self, speech: Speech) -> None:
        self._speech = speech

    def __iter__(self) -> Iterator[Tensor]:
        silence = torch.zeros(AROUND * SAMPLE_RATE)
        yield from itertools.chain([silence], self._speech, [silence])


def _inner(blocks: Iterator[Tensor], first: int, count: int) -> Iterator[Tensor]:
    """Rows `first` to `first + count` of a stream of blocks [n, D]."""
    start = 0
    for block in blocks:
        inner = block[max(0, first - start) : max(0, first + count - start)]
        start += len(block)
        if len(inner):
            yield inner


@torch.no_grad()
def silence_of_frames(
    decibels: np.ndarray,  # [M] loudness of every 10 ms, dB of full scale
    frames: int,  # N
    config: AnimateConfig,
) -> np.ndarray:
    """float32 [N], 1 where a frame and its surroundings are silent, 0 in speech, a short ramp between.

    Silent is what is `silence_depth` below the loud speech of the clip; where there is a steady background noise that
    speech stands out of, what is within `noise_margin` of it; and always what is below `silence_floor`. The
    surroundings are `silence_reach` to both sides, so that the closure within a t or a k stays speech.
    """
    if not len(decibels):
        return np.zeros(frames, np.float32)
    noise, loud = np.percentile(decibels, [5, 95])
    threshold = max(loud - config.silence_depth, config.silence_floor)
    if loud - noise > 2 * config.noise_margin + 6:
        threshold = max(threshold, noise + config.noise_margin)
    reach = round(config.silence_reach * SAMPLE_RATE / HOP)
    padded = np.pad(decibels, reach, constant_values=-200.0)
    loudest = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1).max(1)  # [M]
    middle = (np.arange(frames) + 0.5) * SAMPLE_RATE / FRAME_RATE / HOP
    silent = (loudest[np.minimum(middle.astype(int), len(loudest) - 1)] < threshold).astype(np.float32)
    ramp = config.silence_ramp
    window = np.concatenate([np.arange(1, ramp + 2), np.arange(ramp, 0, -1)]).astype(np.float32)
    return np.convolve(np.pad(silent, ramp, "edge"), window / window.sum(), "valid").astype(np.float32)
