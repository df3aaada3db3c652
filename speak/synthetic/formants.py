"""Formant synthesis: from tracks of pitch, formants and loudness to a waveform, source and filter in blocks.

The source is a train of glottal pulses (derivative of the flow: the polynomial of KLGLOTT88 with an exponential
return phase, Klatt and Klatt 1990) with jitter, shimmer and breath, plus noise at constrictions. The filter is Klatt's
cascade of digital resonators with a nasal pole-zero pair for the voice, and one spectral shape for each kind of noise.
Blocks of 16 ms are filtered in the frequency domain and overlapped every 8 ms, so that the filters move smoothly and
the whole sentence is a few array operations.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from speak.config import SAMPLE_RATE

HOP = 128  # samples between blocks
_BLOCK = 2 * HOP
_FFT = 1024  # a block and 48 ms of ringing
_BINS = np.arange(_FFT // 2 + 1) * (SAMPLE_RATE / _FFT)  # Hz
_Z1 = np.exp(-2j * np.pi * _BINS / SAMPLE_RATE).astype(np.complex64)
_POWERS = np.stack([np.ones_like(_Z1), _Z1, _Z1 * _Z1]).view(np.float32)  # of z^-1, real and imaginary by turns
_WINDOW = (0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(_BLOCK) + 0.5) / _BLOCK)).astype(np.float32)

# Spectral shape of each noise, a grown man's: (Hz, width in Hz, gain) of its humps.
NOISES: dict[str, tuple[tuple[float, float, float], ...]] = {
    "s": ((5600, 1100, 1.0), (7300, 900, 0.7)),
    "sh": ((2700, 650, 1.0), (4300, 1300, 0.6)),
    "f": ((1400, 1200, 0.35), (4500, 3000, 0.5), (7500, 1500, 0.7)),
    "th": ((1600, 1200, 0.35), (6000, 2000, 0.6)),
    "p": ((500, 500, 1.0), (1500, 1500, 0.35)),
    "t": ((3900, 1100, 1.0), (6000, 1500, 0.6)),
    "k": ((1800, 350, 1.0), (3900, 900, 0.3)),
}
NOISE_NAMES = tuple(NOISES)

# Formants above the moving three, for a grown man: Hz and bandwidth.
_UPPER = ((3350.0, 180.0), (4100.0, 250.0), (5000.0, 350.0), (5900.0, 450.0), (6900.0, 550.0))
_BANDWIDTHS = (70.0, 95.0, 140.0)


@dataclasses.dataclass(frozen=True)
class Tracks:
    """Everything the synthesiser wants, for a whole sentence. K blocks: block k is centred on sample k * HOP."""

    samples: int  # length of the sentence
    pitch: np.ndarray  # [K] Hz
    formants: np.ndarray  # [K, 3] Hz, already this speaker's
    nasal: np.ndarray  # [K] 0..1
    nasal_zero: np.ndarray  # [K] Hz
    noise_mix: np.ndarray  # [K, len(NOISE_NAMES)] 0..1, float32
    voicing: tuple[np.ndarray, np.ndarray]  # times in seconds, amplitude: a broken line
    aspiration: tuple[np.ndarray, np.ndarray]  # the same: noise from the throat
    frication: tuple[np.ndarray, np.ndarray]  # the same: noise from a constriction
    tract: float  # length of the vocal tract against a grown man's
    open_quotient: float  # share of a period in which the glottis is open: 0.4 pressed .. 0.8 breathy
    return_time: float  # seconds; longer is duller
    breath: float  # aspiration beside the voice, against its amplitude
    jitter: float  # standard deviation of a period, of the period
    shimmer: float  # standard deviation of a pulse's amplitude, of the amplitude
    gain: float
    seed: tuple[int, ...]  # of jitter, shimmer and noise


def synthesise(
    tracks: Tracks,
    start: int = 0,  # first sample wanted
    end: int | None = None,  # one past the last; default: the whole sentence
) -> np.ndarray:  # [end - start] float32
    """The sound between two samples of the sentence; what lies outside the sentence is silent.

    The same samples come out whichever stretch is asked for (to float32 rounding).
    """
    from scipy.fft import irfft  # several rows at a time, in float32

    end = tracks.samples if end is None else end
    sound = np.zeros(end - start, np.float32)
    # Blocks whose ringing reaches into the stretch; block k covers samples (k - 1) * HOP .. (k + 1) * HOP.
    first = max(0, (start - _FFT) // HOP)
    last = min(len(tracks.pitch) - 1, -(-end // HOP))
    if first > last:
        return sound
    begin = (first - 1) * HOP
    times = (np.arange(begin, (last + 1) * HOP) / SAMPLE_RATE).astype(np.float64)
    generator = np.random.default_rng(tracks.seed)
    voice, throat, hiss = _sources(tracks, times, generator)
    spectrum = _blocks(voice + throat) * _vocal_tract(tracks, slice(first, last + 1))
    if hiss.any():
        shapes = _noise_shapes(tracks.tract).view(np.float32)
        mixed = np.einsum("kn,nb->kb", tracks.noise_mix[first : last + 1].astype(np.float32), shapes)
        spectrum += _blocks(hiss) * mixed.view(np.complex64)
    pieces = irfft(spectrum, _FFT)  # [K', FFT] float32
    whole = np.zeros((len(pieces) + _FFT // HOP) * HOP, np.float32)
    strips = pieces.reshape(len(pieces), _FFT // HOP, HOP)
    for offset in range(_FFT // HOP):  # overlap and add, a strip of every block at a time
        whole[offset * HOP : (offset + len(pieces)) * HOP] += strips[:, offset].reshape(-1)
    low, high = max(start, begin), min(end, begin + len(whole), tracks.samples)
    if high > low:
        sound[low - start : high - start] = _soft(tracks.gain * whole[low - begin : high - begin])
    return sound


def _sources(
    tracks: Tracks, times: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Glottal pulses, noise at the glottis and noise at constrictions, at `times`: each [S] float32."""
    blocks = np.arange(len(tracks.pitch)) * (HOP / SAMPLE_RATE)
    phase = np.concatenate([[0.0], np.cumsum(0.5 * (tracks.pitch[1:] + tracks.pitch[:-1]))]) * (HOP / SAMPLE_RATE)
    count = int(phase[-1]) + 2
    # Whole-sentence draws, so that any stretch of it sees the same ones.
    wobble = generator.standard_normal(2 * count).reshape(2, count)
    noise = generator.standard_normal((2, tracks.samples + 4 * _BLOCK), dtype=np.float32)
    at = np.arange(count) + tracks.jitter * wobble[0].clip(-2.5, 2.5)
    instants = np.interp(at, phase, blocks)  # seconds at which each pulse begins
    instants = np.append(instants, blocks[-1] + 1.0)
    index = np.clip(np.searchsorted(instants, times, side="right") - 1, 0, count - 1)
    period = np.maximum(np.diff(instants), 1e-3)
    height = (1.0 + tracks.shimmer * wobble[1].clip(-2.5, 2.5)) * np.interp(instants[:-1], *tracks.voicing)
    since = (times - instants[index]).astype(np.float32)
    opened = (tracks.open_quotient * period[index]).astype(np.float32)
    x = np.clip(since / opened, 0.0, 1.0)
    closing = np.exp(np.minimum(opened - since, 0.0) * np.float32(1.0 / tracks.return_time))
    pulses = np.where(since < opened, x * (2.0 - 3.0 * x), -closing) * height[index].astype(np.float32)
    first = int(round(times[0] * SAMPLE_RATE)) + 2 * _BLOCK  # the sentence's noise starts two blocks early
    throat_noise, hiss_noise = noise[:, first : first + len(times)]
    flow = np.where(since < opened, x * x * (1.0 - x) * 6.75, 0.0)  # the puff of air carries the breath
    breathing = tracks.breath * height[index].astype(np.float32) * (0.15 + 0.85 * flow)
    throat = throat_noise * (np.interp(times, *tracks.aspiration).astype(np.float32) + breathing)
    hiss = hiss_noise * np.interp(times, *tracks.frication).astype(np.float32)
    return pulses.astype(np.float32), throat.astype(np.float32), hiss


def _blocks(signal: np.ndarray) -> np.ndarray:
    """Spectra of the windowed blocks of `signal`: [K', bins] complex64."""
    from scipy.fft import rfft

    halves = signal.reshape(-1, HOP)
    framed = np.concatenate([halves[:-1], halves[1:]], axis=1) * _WINDOW
    return rfft(framed, _FFT)


def _vocal_tract(tracks: Tracks, blocks: slice) -> np.ndarray:
    """Response of the throat and mouth in each block: [K', bins] complex64."""
    # Resonators are 1 at 0 Hz: numerator (1 + b + c), denominator 1 + b z^-1 + c z^-2.
    upper = (1j * _BINS / (1j * _BINS + 40.0)).astype(np.complex64)  # lips pass no steady flow
    for hertz, width in _UPPER:
        hertz, width = hertz / tracks.tract, width / tracks.tract
        if hertz < 0.48 * SAMPLE_RATE:
            b, c = _resonator(np.array(hertz), np.array(width))
            upper *= (1 + b + c) / _denominator(b, c)
    scale = np.ones(blocks.stop - blocks.start, np.float32)
    below = np.ones((len(scale), len(_BINS)), np.complex64)
    nasal = tracks.nasal[blocks]
    for column, width in enumerate(_BANDWIDTHS):
        hertz = np.clip(tracks.formants[blocks, column], 120.0, 0.46 * SAMPLE_RATE)
        b, c = _resonator(hertz, width * (1 + 1.2 * nasal) / np.sqrt(tracks.tract))
        scale *= (1 + b + c).astype(np.float32)
        below *= _denominator(b, c)
    response = upper * scale[:, None] / below
    coupled = np.nonzero(nasal > 1e-3)[0]
    if len(coupled):  # a pole and a zero at one place: they part as the nose opens
        hertz = tracks.nasal_zero[blocks][coupled] / tracks.tract
        pole = _resonator(hertz, np.full(len(hertz), 400.0))
        zero = _resonator(hertz, 400.0 - 320.0 * nasal[coupled])
        level = ((1 + pole[0] + pole[1]) / (1 + zero[0] + zero[1])).astype(np.float32)
        response[coupled] *= _denominator(*zero) / _denominator(*pole) * level[:, None]
    return response


def _resonator(hertz: np.ndarray, width: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    radius = np.exp(-np.pi * width / SAMPLE_RATE)
    return -2 * radius * np.cos(2 * np.pi * hertz / SAMPLE_RATE), radius**2


def _denominator(b: np.ndarray, c: np.ndarray) -> np.ndarray:  # [...] -> [..., bins] complex64
    terms = np.stack([np.ones_like(b), b, c], -1).astype(np.float32)
    return np.einsum("...k,kb->...b", terms, _POWERS).view(np.complex64)  # no matmul: its threads are in training's way


def _noise_shapes(tract: float) -> np.ndarray:  # [len(NOISE_NAMES), bins] complex64
    delay = np.exp(-2j * np.pi * _BINS * 0.002)  # 2 ms, so that what a real spectrum spreads to both sides is kept
    shapes = [
        sum(gain * np.exp(-0.5 * ((_BINS * tract**0.5 - hertz) / width) ** 2) for hertz, width, gain in humps)
        for humps in NOISES.values()
    ]
    return (np.stack(shapes) * delay).astype(np.complex64)


def _soft(sound: np.ndarray) -> np.ndarray:
    """Leaves what is below 0.6 alone and bends what is above towards 0.98, so that nothing ever clips."""
    loud = np.abs(sound)
    return np.where(loud <= 0.6, sound, np.sign(sound) * (0.6 + 0.38 * np.tanh((loud - 0.6) / 0.38))).astype(np.float32)
