"""What happens to speech between a mouth and a file: rooms, noise, microphones, telephones, loudness; from a seed.

Time is kept: the direct sound stays where it was, so labels by frame hold.
"""

from __future__ import annotations

import numpy as np

from speak.config import SAMPLE_RATE


def disturbed(
    speech: np.ndarray,  # [S] float32 at 16 kHz
    generator: np.random.Generator,
) -> np.ndarray:  # [S] float32 in (-1, 1)
    """`speech` under conditions drawn from `generator`: a room, equalisation, a narrow band, noise, each perhaps."""
    draws = generator.random(4)
    speech = speech.astype(np.float64)
    if draws[0] < 0.5:
        speech = in_room(speech, generator)
    if draws[1] < 0.6:
        speech = equalised(speech, generator)
    if draws[2] < 0.15:
        speech = telephone(speech, generator)
    if draws[3] < 0.8:
        speech = noisy(speech, generator, decibels=float(generator.uniform(0.0, 35.0)))
    loudness = 10 ** (generator.uniform(-12.0, 9.0) / 20)
    return np.tanh(loudness * speech).astype(np.float32)


def in_room(speech: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """An exponentially dying tail after the direct sound: 60 dB in 0.1 to 0.7 s."""
    from scipy.signal import oaconvolve

    seconds = float(np.exp(generator.uniform(np.log(0.1), np.log(0.7))))
    times = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tail = generator.standard_normal(len(times)) * 10 ** (-3 * times / seconds)
    tail[: int(generator.uniform(0.001, 0.008) * SAMPLE_RATE)] = 0  # the walls are a step away
    ratio = 10 ** (generator.uniform(0.0, 15.0) / 20)  # direct against reverberant energy
    tail /= ratio * max(np.sqrt((tail**2).sum()), 1e-9)
    tail[0] += 1
    return oaconvolve(speech, tail)[: len(speech)]


def equalised(speech: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A smooth random response within about 10 dB: microphones and loudspeakers."""
    octaves = np.linspace(np.log2(60), np.log2(SAMPLE_RATE / 2), 7)
    gains = generator.normal(0.0, 5.0, 7)
    return _filtered(speech, lambda hertz: 10 ** (np.interp(np.log2(np.maximum(hertz, 60)), octaves, gains) / 20))


def telephone(speech: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Only 300 Hz to somewhere between 3 and 6 kHz."""
    top = float(generator.uniform(3000, 6000))
    return _filtered(speech, lambda hertz: 1 / (1 + (300 / np.maximum(hertz, 1)) ** 4) / (1 + (hertz / top) ** 8))


def noisy(speech: np.ndarray, generator: np.random.Generator, decibels: float) -> np.ndarray:
    """With noise of a random colour, sometimes rising and falling, `decibels` below the speech where there is some."""
    noise = generator.standard_normal(len(speech))
    slope = float(generator.uniform(-2.0, 0.3))  # power of the frequency: from rumble to hiss
    noise = _filtered(noise, lambda hertz: (np.maximum(hertz, 40) / 1000) ** (slope / 2))
    if generator.random() < 0.4:
        knots = np.arange(0, len(speech) + 4000, 4000)
        noise *= np.interp(np.arange(len(speech)), knots, generator.uniform(0.1, 1.5, len(knots)))
    loud = np.abs(speech) > 0.1 * max(np.abs(speech).max(), 1e-6)
    level = np.sqrt(np.mean(speech[loud] ** 2)) if loud.any() else 0.03
    return speech + noise * max(level, 1e-3) * 10 ** (-decibels / 20) / max(np.sqrt(np.mean(noise**2)), 1e-9)


def _filtered(speech: np.ndarray, response: object) -> np.ndarray:
    """`speech` through a zero-phase response of frequency."""
    from scipy.fft import irfft, next_fast_len, rfft, rfftfreq

    length = next_fast_len(len(speech) + 512, real=True)  # of 23,979 samples a transform takes ten times as long
    spectrum = rfft(speech, length)
    hertz = rfftfreq(length, 1 / SAMPLE_RATE)
    return irfft(spectrum * response(hertz), length)[: len(speech)]  # type: ignore[operator]
