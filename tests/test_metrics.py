"""The field's figures against scikit-image, numpy in float64 and cases worked by hand."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from speak import metrics
from speak.errors import SpeakError

LIKE_SCIKIT_IMAGE = 1e-6  # as the figures are asked for


def frames(seed: int, count: int = 3, height: int = 40, width: int = 33) -> Tensor:
    """Smooth pictures with noise, uint8 [N, 3, H, W]."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / random.uniform(2, 9) + y / random.uniform(2, 9)) for _ in range(count * 3)]
    noise = 20 * random.standard_normal((height, width))
    pictures = 128 + 70 * np.array(waves).reshape(count, 3, height, width) + noise
    return torch.from_numpy(pictures.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("seed", range(3))
def test_psnr_and_both_conventions_of_ssim_are_scikit_images(seed: int) -> None:
    scikit = pytest.importorskip("skimage.metrics", reason="scikit-image is in the test extra")
    a, b = frames(seed), frames(seed + 100)
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    for n, (x, y) in enumerate(zip(a.permute(0, 2, 3, 1).numpy(), b.permute(0, 2, 3, 1).numpy(), strict=True)):
        expected = {
            "psnr": (metrics.psnr(a, b), scikit.peak_signal_noise_ratio(y, x, data_range=255)),
            "uniform": (metrics.ssim(a, b), scikit.structural_similarity(x, y, channel_axis=-1, data_range=255)),
            "gaussian": (metrics.ssim(a, b, "gaussian"),
                         scikit.structural_similarity(x, y, channel_axis=-1, data_range=255, **gaussian)),
        }  # fmt: skip
        for name, (ours, theirs) in expected.items():
            assert abs(float(ours[n]) - theirs) < LIKE_SCIKIT_IMAGE, name


def test_the_truth_against_itself_has_ssim_1_and_infinite_psnr() -> None:
    a = frames(1)
    assert torch.allclose(metrics.ssim(a, a), torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-12)
    assert torch.isinf(metrics.psnr(a, a)).all()


def test_legacy_psnr_wraps_like_numpys_uint8() -> None:
    a, b = frames(4, count=1), frames(5, count=1)
    # ITU-R 601 gray by the textbook; a pixel may round the other way in OpenCV's integers, none does here
    weights = np.array([0.299, 0.587, 0.114])[:, None, None]
    gray = [np.round((x[0].numpy() * weights).sum(0)).astype(np.uint8) for x in (a, b)]
    error = np.mean((gray[0] - gray[1]) ** 2)  # uint8 arithmetic: wraps at 256
    expected = 20 * math.log10(255 / math.sqrt(error))
    assert float(metrics.psnr(a, b, "legacy_uint8")[0]) == pytest.approx(expected, abs=0.01)
    assert expected > float(metrics.psnr(a, b)[0]) + 3  # that is why it is not the default
    assert metrics.psnr(a, a, "legacy_uint8").tolist() == [100.0]


def test_landmark_distance_of_a_case_worked_by_hand() -> None:
    truth = torch.zeros(1, 68, 2)
    moved = truth.clone()
    moved[0, 48:58] += torch.tensor([3.0, 4.0])  # ten of twenty mouth points move by 5 pixels
    # the mouth's mean moves by half of it: every mouth point is 2.5 away from its own
    assert metrics.landmark_distance(moved, truth, 256, mouth=True).tolist() == [2.5]
    # of all 68: the mean moves by 10/68 of 5; ten points are 5 * 58/68 away, 58 points 5 * 10/68
    expected = (10 * 5 * 58 / 68 + 58 * 5 * 10 / 68) / 68
    assert metrics.landmark_distance(moved, truth, 256, mouth=False).item() == pytest.approx(expected, abs=1e-12)
    assert metrics.landmark_distance(moved, truth, 64, mouth=True).tolist() == [10.0]  # frames of 64: scaled to 256
    assert metrics.landmark_distance(moved, truth, 256, mouth=True, convention="sum").tolist() == [50.0]


def test_landmark_distance_ignores_where_the_face_is_and_marks_frames_without_one() -> None:
    points = torch.from_numpy(np.random.default_rng(0).uniform(0, 256, (3, 68, 2)))
    moved = points + torch.tensor([7.0, -2.0])
    moved[1] = math.nan
    distance = metrics.landmark_distance(moved, points, 256, mouth=False)
    assert torch.isnan(distance).tolist() == [False, True, False]
    assert distance[[0, 2]].abs().max() < 1e-12


def embeddings(seed: int, count: int, dim: int = 24) -> Tensor:
    walk = np.random.default_rng(seed).standard_normal((count, dim))
    return torch.from_numpy(walk / np.linalg.norm(walk, axis=1, keepdims=True)).float()


@pytest.mark.parametrize("lag", [-7, 0, 1, 12])
def test_sync_equals_an_independent_computation_and_finds_the_shift(lag: int) -> None:
    speech = embeddings(1, 60)
    # the picture of frame t shows what is heard `lag` frames earlier: the picture is late by `lag`
    video = torch.stack([speech[t - lag] if 0 <= t - lag < 60 else torch.zeros(24) for t in range(60)])
    video = video + 0.1 * embeddings(2, 60)
    table = np.zeros((60, 31))
    for t in range(60):
        for k in range(-15, 16):
            heard = speech[t + k].double().numpy() if 0 <= t + k < 60 else np.zeros(24)
            table[t, k + 15] = np.sqrt(((video[t].double().numpy() - heard) ** 2).sum())
    curve = np.mean(table, axis=0)
    found = metrics.sync(video, speech)
    assert np.abs(found.curve.numpy() - curve).max() < 1e-12
    assert found.confidence == pytest.approx(np.median(curve) - curve.min(), abs=1e-12)
    assert found.distance == pytest.approx(curve.min(), abs=1e-12)
    assert found.offset == lag


def test_a_mismatched_voice_has_a_low_confidence() -> None:
    video = embeddings(1, 90)
    matched, foreign = metrics.sync(video, video), metrics.sync(video, embeddings(9, 90))
    assert matched.confidence > 1 > 0.2 > foreign.confidence


def test_identity_similarity_and_correlation_are_the_textbooks() -> None:
    a, b = torch.tensor([[1.0, 0.0], [3.0, 4.0]]), torch.tensor([[0.0, 2.0], [3.0, 4.0]])
    assert metrics.identity_similarity(a, b).tolist() == [0.0, 1.0]
    x, y = np.random.default_rng(3).standard_normal((2, 50))
    assert metrics.correlation(torch.tensor(x), torch.tensor(y)) == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-12)
    assert math.isnan(metrics.correlation(torch.ones(50), torch.tensor(y)))


def test_the_interval_over_clips_is_students_and_leaves_out_what_was_not_measured() -> None:
    # t with 3 degrees of freedom at 97.5 %: 3.182446; mean 2.5, standard deviation sqrt(5/3)
    found = metrics.mean_of([1.0, 2.0, math.nan, 3.0, 4.0, math.inf])
    half = 3.182446 * math.sqrt(5 / 3) / 2
    assert (found.mean, found.count) == (2.5, 4)
    assert found.low == pytest.approx(2.5 - half, abs=1e-5) and found.high == pytest.approx(2.5 + half, abs=1e-5)
    assert math.isnan(metrics.mean_of([1.0]).low) and metrics.mean_of([]).count == 0


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(SpeakError, match="unknown convention 'box': choose from uniform, gaussian"):
        metrics.ssim(frames(1), frames(2), "box")
    with pytest.raises(SpeakError, match="smaller than the 7x7 window"):
        metrics.ssim(frames(1, height=6), frames(2, height=6))
    with pytest.raises(SpeakError, match="too short"):
        metrics.sync(torch.zeros(0, 4), torch.zeros(0, 4))
    with pytest.raises(ValueError, match="uint8"):
        metrics.psnr(frames(1).float(), frames(2).float())
