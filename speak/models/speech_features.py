"""Spectral pictures of speech for SyncNet: log mel bands for ours, MFCC for the published net."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from speak.config import SAMPLE_RATE

WINDOW = 400  # samples of a 25 ms window
HOP = 160  # samples of a 10 ms step
FFT = 512

# python_speech_features' defaults, which the published SyncNet was trained on
MFCC_BANDS, MFCC_COEFFICIENTS, MFCC_LIFTER, PRE_EMPHASIS = 26, 13, 22, 0.97
FLOAT64_EPSILON = 2.0**-52


def hertz_to_mel(hertz: float) -> float:
    """2595 log10(1 + f / 700)."""
    return 2595 * math.log10(1 + hertz / 700)


@functools.cache
def mel_filters(bands: int, bins_rounded: bool) -> np.ndarray:
    """Triangular filters [bands, FFT / 2 + 1] in float64, evenly spaced in mel from 0 to half the sample rate.

    bins_rounded: corners moved down to whole bins of an FFT one longer, as python_speech_features has them.
    """
    top = hertz_to_mel(SAMPLE_RATE / 2)
    corners = [700 * (10 ** (top * index / (bands + 1) / 2595) - 1) for index in range(bands + 2)]
    if bins_rounded:
        places = np.array([math.floor((FFT + 1) * hertz / SAMPLE_RATE) for hertz in corners], dtype=np.float64)
    else:
        places = np.array([FFT * hertz / SAMPLE_RATE for hertz in corners])
    bins = np.arange(FFT // 2 + 1)
    left, middle, right = places[:-2, None], places[1:-1, None], places[2:, None]
    rising = (bins - left) / np.maximum(middle - left, 1e-9)
    falling = (right - bins) / np.maximum(right - middle, 1e-9)
    return np.where(bins < middle, rising, falling).clip(min=0)


def log_mel(
    speech: Tensor,  # [..., S] at 16 kHz in [-1, 1]
    bands: int,
) -> Tensor:
    """Log mel power [..., bands, S // 160 + 1], about zero mean and unit variance for speech; silence is about -2.5.

    Window centres lie on multiples of 10 ms; outside the given samples there is silence.
    """
    flat = F.pad(speech.reshape(-1, speech.shape[-1]).float(), (WINDOW // 2, WINDOW // 2))
    window = torch.hann_window(WINDOW, device=speech.device)
    power = _power(flat.unfold(-1, WINDOW, HOP) * window)
    mel = power @ torch.from_numpy(mel_filters(bands, bins_rounded=False)).to(power).T
    pictures = (torch.log(mel + 1e-4) + 1.5) / 3
    return pictures.transpose(-1, -2).reshape(*speech.shape[:-1], bands, power.shape[1])


def mfcc(
    speech: Tensor,  # [..., S] at 16 kHz in [-1, 1]
) -> Tensor:
    """MFCC [..., 13, T] as python_speech_features 0.6 computes them from 16-bit samples: 25 ms windows every 10 ms.

    The first coefficient is the log energy of the window. Computed in float64, returned in float32.
    """
    samples = (speech.reshape(-1, speech.shape[-1]).double() * 32768).round().clamp(-32768, 32767)
    emphasised = torch.cat([samples[:, :1], samples[:, 1:] - PRE_EMPHASIS * samples[:, :-1]], dim=1)
    steps = max(0, math.ceil((samples.shape[1] - WINDOW) / HOP))
    emphasised = F.pad(emphasised, (0, steps * HOP + WINDOW - samples.shape[1]))
    power = _power(emphasised.unfold(-1, WINDOW, HOP)) / FFT  # [B, T, 257]
    energy = _not_zero(power.sum(-1))
    bands = _not_zero(power @ torch.from_numpy(mel_filters(MFCC_BANDS, bins_rounded=True)).to(power).T).log()
    order = torch.arange(MFCC_COEFFICIENTS, dtype=torch.float64, device=speech.device)
    place = torch.arange(MFCC_BANDS, dtype=torch.float64, device=speech.device)
    cosine = torch.cos(math.pi / MFCC_BANDS * order[:, None] * (place + 0.5)) * math.sqrt(2 / MFCC_BANDS)
    lifter = 1 + MFCC_LIFTER / 2 * torch.sin(math.pi * order / MFCC_LIFTER)
    coefficients = bands @ cosine.T * lifter
    coefficients = torch.cat([energy.log()[..., None], coefficients[..., 1:]], dim=-1)
    return coefficients.transpose(-1, -2).reshape(*speech.shape[:-1], MFCC_COEFFICIENTS, power.shape[1]).float()


def _power(windows: Tensor) -> Tensor:
    """[B, T, 400] -> [B, T, 257]."""
    if windows.numel() == 0:  # MKL's transform refuses it
        return windows.new_zeros(*windows.shape[:-1], FFT // 2 + 1)
    spectrum = torch.fft.rfft(windows, FFT)
    return spectrum.real.square() + spectrum.imag.square()


def _not_zero(values: Tensor) -> Tensor:
    return torch.where(values == 0, FLOAT64_EPSILON, values)
