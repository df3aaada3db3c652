"""The field's figures, tensors in: PSNR, SSIM, landmark distance, sync confidence and offset, identity similarity.

Each has one value a frame (or a clip), in float64; means over clips are taken where clips are known. Where two
conventions are in use both are here under a name, and a report says which one it used.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from speak.config import LANDMARKS, MOUTH_LANDMARKS
from speak.errors import SpeakError

# rgb: mean square over the three channels. legacy_uint8: ATVGnet's script, which takes the difference of gray uint8
# pictures and its square without a cast, so that both wrap at 256; only for comparison with old tables.
PSNR_CONVENTIONS = ("rgb", "legacy_uint8")
# uniform: 7x7 windows with sample covariance, scikit-image's default. gaussian: Wang et al. 2004, 11x11, sigma 1.5.
SSIM_CONVENTIONS = ("uniform", "gaussian")
# mean over the points; sum: ATVGnet's script, 20 times larger for the mouth.
LMD_CONVENTIONS = ("mean", "sum")
LMD_SIZE = 256  # landmark distances are in pixels of a frame with this side
SYNC_SHIFT = 15  # frames to each side over which the sync offset is looked for

_CHUNK = 16  # frames whose SSIM is computed at once


def to_uint8(
    frames: Tensor,  # any shape in [-1, 1]; values outside are cut
) -> Tensor:
    """Frames as they would be stored and as the figures are defined: uint8 0-255."""
    return ((frames.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def psnr(
    generated: Tensor,  # uint8 [N, 3, H, W] RGB
    truth: Tensor,  # the same
    convention: str = "rgb",  # one of PSNR_CONVENTIONS
) -> Tensor:
    """Peak signal-to-noise ratio in dB of each frame, [N]; equal frames have infinity (`legacy_uint8`: 100)."""
    _check_frames(generated, truth)
    _check_convention(convention, PSNR_CONVENTIONS)
    if convention == "rgb":
        error = (generated.double() - truth.double()).square().mean((1, 2, 3))
        return 10 * (255.0**2 / error).log10()
    difference = (_gray(generated) - _gray(truth)).to(torch.uint8)  # wraps
    error = (difference.int().square() % 256).double().mean((1, 2))
    return torch.where(error == 0, 100.0, 10 * (255.0**2 / error).log10())


def ssim(
    generated: Tensor,  # uint8 [N, 3, H, W] RGB
    truth: Tensor,  # the same
    convention: str = "uniform",  # one of SSIM_CONVENTIONS
) -> Tensor:
    """Structural similarity of each frame, [N], 1 for equal frames: Wang et al. 2004, K1 .01, K2 .03, range 255.

    Mean over the places where the window lies inside the picture, then over the three channels. Raises SpeakError for
    frames smaller than the window.
    """
    _check_frames(generated, truth)
    _check_convention(convention, SSIM_CONVENTIONS)
    side = 7 if convention == "uniform" else 11
    if min(generated.shape[-2:]) < side:
        height, width = generated.shape[-2:]
        raise SpeakError(f"frames of {width}x{height} pixels are smaller than the {side}x{side} window of SSIM")
    if convention == "uniform":
        window = torch.full((side,), 1 / side, dtype=torch.float64)
        unbiased = side**2 / (side**2 - 1)
    else:
        window = torch.exp(-(torch.arange(-5, 6, dtype=torch.float64) ** 2) / (2 * 1.5**2))
        window, unbiased = window / window.sum(), 1.0
    parts = zip(generated.split(_CHUNK), truth.split(_CHUNK), strict=True)
    found = [_ssim(a.double(), b.double(), window.to(a.device), unbiased) for a, b in parts]
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.float64)


def landmark_distance(
    generated: Tensor,  # [N, 68, 2] pixels, iBUG order; NaN where no face was found
    truth: Tensor,  # the same
    size: int,  # pixels of the frames' side: distances are scaled to frames of 256
    mouth: bool,  # True: M-LMD, points 48 to 67; False: F-LMD, all 68
    convention: str = "mean",  # one of LMD_CONVENTIONS
) -> Tensor:
    """Landmark distance of each frame in pixels at 256x256, [N]; NaN where either side has no face.

    Each set minus its own mean, no normalisation of its scale; then the mean of the points' L2 distances.
    """
    _check_convention(convention, LMD_CONVENTIONS)
    if generated.shape != truth.shape or generated.shape[1:] != (LANDMARKS, 2):
        raise ValueError(f"landmarks {tuple(generated.shape)} and {tuple(truth.shape)} are not two of [N, 68, 2]")
    points = MOUTH_LANDMARKS if mouth else slice(None)
    a, b = generated[:, points].double(), truth[:, points].double()
    distance = ((a - a.mean(1, keepdim=True)) - (b - b.mean(1, keepdim=True))).norm(dim=-1) * (LMD_SIZE / size)
    return distance.mean(1) if convention == "mean" else distance.sum(1)


@dataclasses.dataclass(frozen=True)
class Sync:
    """How well the mouth goes with the speech (Chung & Zisserman 2016)."""

    confidence: float  # LSE-C, Sync_conf: median - minimum of `curve`
    distance: float  # LSE-D: minimum of `curve`
    offset: int  # frames by which the picture is later than its speech
    curve: Tensor  # [2 * shift + 1], mean distance where the speech is taken -shift ... shift frames later


def sync(
    video: Tensor,  # [T, D], embedding of the window that starts at each frame
    audio: Tensor,  # [T, D], embedding of the speech of the same time
    shift: int = SYNC_SHIFT,
) -> Sync:
    """Sync confidence and offset from a SyncNet's embeddings, as syncnet_python defines them.

    D[t, k] = |v_t - a_(t+k)| for k in -shift ... shift, where the speech is zeros before its start and after its end;
    the curve is the mean over t. Raises SpeakError for a clip without a single window.
    """
    if video.shape != audio.shape or video.dim() != 2:
        raise ValueError(f"embeddings {tuple(video.shape)} and {tuple(audio.shape)} are not two of [T, D]")
    count = len(video)
    if not count:
        raise SpeakError("the clip is too short for a sync confidence: SyncNet wants five frames or more")
    video, audio = video.double(), F.pad(audio.double(), (0, 0, shift, shift))
    curve = torch.stack([(video - audio[k : k + count]).norm(dim=1).mean() for k in range(2 * shift + 1)])
    least = int(curve.argmin())
    return Sync(float(curve.median() - curve[least]), float(curve[least]), shift - least, curve)


def identity_similarity(
    generated: Tensor,  # [N, D] identity embeddings of the generated frames
    reference: Tensor,  # [N, D] or [1, D], of the true frames or the identity's photo
) -> Tensor:
    """CSIM of each frame, [N]: the cosine of the two identity embeddings."""
    return F.cosine_similarity(generated.double(), reference.double(), dim=-1)


def correlation(
    a: Tensor,  # [N]
    b: Tensor,  # [N]
) -> float:
    """Pearson's correlation; NaN where either does not change (for a mouth that never moves, it is not defined)."""
    a, b = a.double() - a.double().mean(), b.double() - b.double().mean()
    scale = float(a.norm() * b.norm())
    return float(a @ b) / scale if scale > 1e-12 else math.nan


@dataclasses.dataclass(frozen=True)
class Mean:
    """A mean over clips with its 95 % confidence interval."""

    mean: float  # NaN where nothing was measured
    low: float  # NaN for fewer than two values
    high: float
    count: int  # values that went in; NaN and infinite ones are left out


def mean_of(values: Sequence[float], level: float = 0.95) -> Mean:
    """Mean and Student's t interval of the finite `values`, one a clip (clips are taken as independent)."""
    from scipy.special import stdtrit

    kept = torch.tensor([value for value in values if math.isfinite(value)], dtype=torch.float64)
    if not len(kept):
        return Mean(math.nan, math.nan, math.nan, 0)
    mean = float(kept.mean())
    if len(kept) < 2:
        return Mean(mean, math.nan, math.nan, 1)
    half = float(stdtrit(len(kept) - 1, (1 + level) / 2) * kept.std() / math.sqrt(len(kept)))
    return Mean(mean, mean - half, mean + half, len(kept))


def share_of(values: Sequence[float]) -> Mean:
    """Mean and Wilson's 95 % interval of values that are 0 or 1 (wrong or right); NaN are left out."""
    kept = [value for value in values if math.isfinite(value)]
    if not kept:
        return Mean(math.nan, math.nan, math.nan, 0)
    count, z = len(kept), 1.959964
    share = sum(kept) / count
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    return Mean(share, centre - half, centre + half, count)


def _ssim(a: Tensor, b: Tensor, window: Tensor, unbiased: float) -> Tensor:
    """[N] of float64 [N, 3, H, W]."""
    mean_a, mean_b = _filtered(a, window), _filtered(b, window)
    var_a = unbiased * (_filtered(a * a, window) - mean_a * mean_a)
    var_b = unbiased * (_filtered(b * b, window) - mean_b * mean_b)
    covariance = unbiased * (_filtered(a * b, window) - mean_a * mean_b)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    above = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return (above / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean((1, 2, 3))


def _filtered(frames: Tensor, window: Tensor) -> Tensor:
    """`frames` weighted by window x window, only where it lies inside."""
    height, width = (length - len(window) + 1 for length in frames.shape[-2:])
    rows = sum(weight * frames[..., i : i + height, :] for i, weight in enumerate(window.tolist()))
    return sum(weight * rows[..., i : i + width] for i, weight in enumerate(window.tolist()))


def _gray(frames: Tensor) -> Tensor:
    """int32 [N, H, W] as OpenCV makes gray of 8-bit RGB: ITU-R 601 in 15 bits, rounded."""
    red, green, blue = frames.int().unbind(1)
    return (red * 9798 + green * 19235 + blue * 3735 + (1 << 14)) >> 15


def _check_frames(generated: Tensor, truth: Tensor) -> None:
    if generated.shape != truth.shape or generated.dim() != 4 or generated.shape[1] != 3:
        raise ValueError(f"frames {tuple(generated.shape)} and {tuple(truth.shape)} are not two of [N, 3, H, W]")
    if generated.dtype != torch.uint8 or truth.dtype != torch.uint8:
        raise ValueError(f"frames are {generated.dtype} and {truth.dtype}, not uint8: see to_uint8")


def _check_convention(convention: str, known: tuple[str, ...]) -> None:
    if convention not in known:
        raise SpeakError(f"unknown convention '{convention}': choose from {', '.join(known)}")


def effective_rank(
    codes: Tensor,  # [N, D]
) -> float:
    """exp of the entropy of the centred codes' singular values as shares (Roy & Vetterli 2007): 1 to D; 0: constant."""
    values = torch.linalg.svdvals(codes.double() - codes.double().mean(0))
    if values.sum() < 1e-9:
        return 0.0
    shares = values / values.sum()
    return float(torch.special.entr(shares).sum().exp())
