"""SPEAK Eq. 1-13 and our terms against values worked out by hand or in float64 numpy."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from speak import losses
from speak.config import IrfdConfig, SpeakConfig, preset, with_changes
from speak.errors import SpeakError
from speak.models.irfd import Probes
from speak.models.judge import Reading
from tests.tolerances import assert_close


def tensor(*values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def pictures(seed: int, count: int = 2) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((count, 3, 4, 4)))


def test_distances_are_l2_over_root_d_and_root_mean_square_per_image() -> None:
    assert_close(losses.code_distance(tensor([3.0, 4.0, 0.0, 0.0]), tensor([0.0] * 4)), tensor(2.5))
    a, b = pictures(1), pictures(2)
    expected = np.sqrt(((a.numpy() - b.numpy()) ** 2).mean((1, 2, 3)))
    assert_close(losses.image_distance(a, b), torch.from_numpy(expected))


def test_equal_codes_and_pictures_have_a_zero_gradient_and_no_nan() -> None:
    code, frame = torch.ones(1, 4, requires_grad=True), torch.ones(1, 3, 2, 2, requires_grad=True)
    total = losses.code_distance(code, torch.ones(1, 4)) + losses.image_distance(frame, torch.ones(1, 3, 2, 2))
    total.sum().backward()
    assert torch.equal(code.grad, torch.zeros(1, 4)) and torch.equal(frame.grad, torch.zeros(1, 3, 2, 2))


# Eq. 1. Codes of width 4: |a - b| / sqrt(4).
def test_eq_1_is_the_triplet_of_the_sentence() -> None:
    anchor, positive, negative = tensor([2.0, 0, 0, 0]), tensor([0.0, 0, 0, 0]), tensor([2.0, 1, 0, 0])
    different, same = torch.tensor([False]), torch.tensor([True])
    # d(a, p) = 1, d(a, n) = 0.5
    assert_close(losses.identity_loss(anchor, positive, negative, different, margin=0.1), number(0.6))
    assert_close(losses.identity_loss(anchor, positive, negative, different, margin=-0.6), number(0.0))
    # one person on both frames: no negative, only the pull
    assert_close(losses.identity_loss(anchor, positive, negative, same, margin=0.1), number(1.0))


def test_eq_1_pulls_alike_and_pushes_apart_and_averages_over_the_batch() -> None:
    anchor = tensor([1.0, 0], [1.0, 0]).requires_grad_()
    positive, negative = tensor([0.0, 0], [0.0, 0]), tensor([1.0, 1], [1.0, 1])
    loss = losses.identity_loss(anchor, positive, negative, torch.tensor([False, True]), margin=0.5)
    assert_close(loss, number((0.5 + 1 / math.sqrt(2)) / 2))
    loss.backward()
    assert anchor.grad[0, 0] > 0 and anchor.grad[0, 1] > 0  # down is towards the positive and away from the negative
    assert anchor.grad[1, 0] > 0 and anchor.grad[1, 1] == 0


# Eq. 2
def test_eq_2_is_the_cross_entropy_of_the_labelled_clips() -> None:
    logits = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 8)))
    probability = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True)
    expected = -(np.log(probability[0, 4]) + np.log(probability[2, 7])) / 3
    assert_close(losses.classification_loss(logits, torch.tensor([4, -1, 7])), number(expected))


def test_eq_2_unlabelled_clips_contribute_nothing() -> None:
    logits = torch.randn(2, 8, requires_grad=True)
    loss = losses.classification_loss(logits, torch.tensor([-1, -1]))
    loss.backward()
    assert loss == 0 and torch.equal(logits.grad, torch.zeros(2, 8))


# Eq. 3 and 4
@pytest.mark.parametrize("loss", [losses.pose_loss, losses.emotion_loss])
def test_eq_3_and_4_add_the_code_distances_of_a_and_b(loss) -> None:  # noqa: ANN001
    again_a, code_a = tensor([1.0, 0, 0, 0], [0.0, 0, 0, 0]), tensor([0.0, 0, 0, 0], [0.0, 3, 0, 4])
    again_b, code_b = tensor([0.0] * 4, [0.0] * 4), tensor([0.0] * 4, [1.0] * 4)
    assert_close(loss(again_a, code_a, again_b, code_b), number((0.5 + 2.5 + 0 + 1) / 2))


# Eq. 5-7
def test_eq_7_adds_the_self_losses_of_source_and_target() -> None:
    frame = torch.zeros(1, 3, 2, 2, dtype=torch.float64)
    assert_close(losses.self_loss(frame + 0.5, frame, frame, frame - 0.25), number(0.75))


def test_the_cross_term_counts_only_pairs_whose_exchange_is_known() -> None:
    picture = pictures(3).requires_grad_()
    truth = pictures(4)
    truth[1] = float("nan")  # there is no such picture
    loss = losses.cross_loss(picture, truth, torch.tensor([True, False]))
    expected = np.sqrt(((picture.detach().numpy()[0] - truth.numpy()[0]) ** 2).mean()) / 2
    assert_close(loss, number(expected))
    loss.backward()
    assert picture.grad[0].abs().max() > 0 and torch.equal(picture.grad[1], torch.zeros_like(picture[1]))


def test_a_probe_that_reads_nothing_scores_the_codes_variance() -> None:
    true = torch.randn(1000, 4, generator=torch.Generator().manual_seed(0))
    true = (true - true.mean(0)) / true.std(0, correction=0)
    assert_close(losses.probe_loss({"a": (torch.zeros_like(true), true), "b": (true, true)}), torch.tensor(0.5))
    assert set(Probes(preset("tiny")).nets) == {
        f"{to}_from_{source}" for to in ("identity", "pose", "emotion") for source in ("identity", "pose", "emotion")
        if to != source
    }  # fmt: skip


# Eq. 10
def test_eq_10_is_the_logistic_game_averaged_over_the_scales() -> None:
    real = [(tensor([[[2.0]]]), []), (tensor([[[0.0, 1.0]]]), [])]
    fake = [(tensor([[[-1.0]]]), []), (tensor([[[3.0, -2.0]]]), [])]

    def sigmoid(value: float) -> float:
        return 1 / (1 + math.exp(-value))

    first = -math.log(sigmoid(2)) - math.log(1 - sigmoid(-1))
    second = -(math.log(sigmoid(0)) + math.log(sigmoid(1))) / 2
    second -= (math.log(1 - sigmoid(3)) + math.log(1 - sigmoid(-2))) / 2
    assert_close(losses.discriminator_loss(real, fake), number((first + second) / 2))
    generator = (-math.log(sigmoid(-1)) - (math.log(sigmoid(3)) + math.log(sigmoid(-2))) / 2) / 2
    assert_close(losses.adversarial_loss(fake), number(generator))


def test_a_certain_discriminator_gives_large_but_finite_losses() -> None:
    certain = [(torch.full((1, 1, 2, 2), -1e4, dtype=torch.float16), [])]
    assert losses.adversarial_loss(certain) == pytest.approx(1e4, rel=1e-3)


def test_feature_matching_is_the_mean_over_all_scales_and_layers_and_moves_the_generated_frame_alone() -> None:
    features = [pictures(number, 3).requires_grad_() for number in range(4)]
    logits = tensor([[[0.0]]])
    generated = [(logits, [features[0], features[1][..., :2, :2]]), (logits, [features[2]])]
    real = [(logits + 5, [features[3], features[0][..., :2, :2]]), (logits, [features[1]])]
    corner = ..., slice(2), slice(2)
    pairs = (features[0], features[3]), (features[1][corner], features[0][corner]), (features[2], features[1])
    wanted = sum(float((a - b).detach().abs().mean()) for a, b in pairs) / 3
    found = losses.feature_matching_loss(generated, real)
    assert_close(found, number(wanted))
    found.backward()
    assert features[2].grad.abs().sum() > 0 and features[3].grad is None
    assert losses.feature_matching_loss(real, real) == 0


def test_r1_of_a_linear_discriminator_is_half_its_squared_weight() -> None:
    frames = pictures(5).requires_grad_()
    weight = pictures(6, 1)[0]
    logits = (frames * weight).sum((1, 2, 3)).view(2, 1, 1, 1)
    assert_close(losses.r1_penalty([(logits, [])], frames), (weight**2).sum() / 2)


def test_the_path_length_of_a_linear_generator_is_known_and_its_gradient_is_too() -> None:
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    styles = tensor([[1.0], [1.0]]).requires_grad_()  # [B = 1, levels = 2, style_dim = 1]
    pattern = pictures(7, 1)
    frames = scale * pattern * (styles[:, 0] + 2 * styles[:, 1])[:, :, None, None]
    directions = pictures(8, 1)
    penalty, mean = losses.path_length_penalty(frames, styles, number(0.0), directions)
    slope = float((pattern * directions).sum() / 4)  # root of 4 x 4 pixels
    length = abs(3 * slope) * math.sqrt((1 + 4) / 2)
    assert_close(mean, number(0.01 * length))
    assert_close(penalty, number((0.99 * length) ** 2))
    penalty.backward()
    assert_close(scale.grad, number(2 * 0.99 * length * length / 3))  # d length / d scale = length / scale


# Eq. 11 and 12
def test_eq_11_pulls_matched_windows_and_pushes_others_to_the_margin() -> None:
    distances, matched = tensor(0.5, 0.5, 1.5, 0.0), tensor(1, 0, 0, 1)
    expected = (0.5**2 + (1 - 0.5) ** 2 + 0 + 0) / (2 * 4)
    assert_close(losses.contrastive_loss(distances, matched, margin=1.0), number(expected))


def test_eq_12_is_the_l2_distance_of_video_and_audio() -> None:
    video = tensor([3.0, 0], [1.0, 1]).requires_grad_()
    audio = tensor([0.0, 4], [1.0, 1])
    distances = losses.embedding_distance(video, audio)
    assert_close(distances, tensor(5.0, 0.0))
    losses.sync_loss(video, audio).backward()
    assert_close(video.grad, tensor([1.5, -2.0], [0.0, 0.0]))  # d/dv |v - a|^2 / 4 over two windows
    assert_close(losses.sync_loss(video[None], audio[None]), number(25 / 4))


def test_a_one_frame_clip_has_no_window_and_no_sync_loss() -> None:
    empty = torch.zeros(2, 0, 8, requires_grad=True)
    loss = losses.sync_loss(empty, torch.zeros(2, 0, 8))
    loss.backward()
    assert loss == 0


# L_vgg and the pixel term
def test_the_perceptual_loss_averages_layers_of_any_size_alike() -> None:
    generated = [torch.zeros(1, 2, 4, 4), torch.zeros(1, 8, 1, 1)]
    true = [torch.full((1, 2, 4, 4), 0.5), torch.full((1, 8, 1, 1), -1.5)]
    assert_close(losses.perceptual_loss(generated, true), torch.tensor(1.0))


def test_the_perceptual_loss_can_look_at_the_face_alone() -> None:
    generated = [torch.zeros(1, 2, 4, 4), torch.zeros(1, 8, 2, 2)]
    true = [torch.zeros(1, 2, 4, 4), torch.zeros(1, 8, 2, 2)]
    true[0][..., :2, :2] = 1.0  # a quarter of the picture
    true[1][..., 1, 1] = 1.0  # another one
    weight = torch.ones(1, 1, 4, 4)
    weight[..., :2, :2] = 3.0
    assert_close(losses.perceptual_loss(generated, true), torch.tensor(1 / 4))
    assert_close(losses.perceptual_loss(generated, true, weight), torch.tensor((3 / 6 + 1 / 6) / 2))


def test_the_pixel_loss_can_look_at_the_face_alone() -> None:
    frames, truth = torch.zeros(1, 3, 2, 2), torch.tensor([[1.0, 0.0], [0.0, 0.5]]).expand(1, 3, 2, 2)
    assert_close(losses.pixel_loss(frames, truth), torch.tensor(1.5 / 4))
    face = torch.tensor([[1.0, 1.0], [0.0, 0.0]]).view(1, 1, 2, 2)
    assert_close(losses.pixel_loss(frames, truth, face), torch.tensor(0.5))


# Eq. 8 and 13
def test_the_total_is_the_weighted_sum() -> None:
    total = losses.total_loss({"a": torch.tensor(2.0), "b": torch.tensor(3.0)}, {"a": 0.5, "b": 2.0, "c": 0.0})
    assert_close(total, torch.tensor(7.0))


def test_a_missing_loss_an_unknown_one_and_no_loss_at_all_are_errors() -> None:
    with pytest.raises(SpeakError, match="no loss was computed for sync"):
        losses.total_loss({"pixel": torch.tensor(1.0)}, {"pixel": 1.0, "sync": 0.1})
    with pytest.raises(SpeakError, match="'extra' has no weight"):
        losses.total_loss({"extra": torch.tensor(1.0)}, {"pixel": 1.0})
    with pytest.raises(SpeakError, match="switched off"):
        losses.total_loss({}, {"pixel": 0.0})
    with pytest.raises(SpeakError, match="'sink' has no weight"):
        losses.compute({"sink": lambda: torch.tensor(1.0)}, {"sync": 1.0})


def test_a_weight_of_zero_from_the_command_line_skips_the_work() -> None:
    def never() -> Tensor:
        raise AssertionError("this loss is switched off")

    config = with_changes(preset("paper"), {"irfd.weight_identity": "0"})
    weights = losses.loss_weights(config.irfd)
    assert weights["identity"] == 0 and weights["self"] == 1
    found = losses.compute({"identity": never, "self": lambda: torch.tensor(2.0)}, weights)
    assert found == {"self": torch.tensor(2.0)}


def test_the_papers_presets_weigh_the_papers_losses_alone() -> None:
    paper = preset("paper")
    on = {name for name, weight in losses.loss_weights(paper.irfd).items() if weight}
    assert on == {"identity", "classification", "pose", "emotion", "self"}  # Eq. 8
    on = {name for name, weight in losses.loss_weights(paper.speak).items() if weight}
    assert on == {"adversarial", "sync", "perceptual"}  # Eq. 13
    assert losses.loss_weights(IrfdConfig())["cross"] > 0 and losses.loss_weights(SpeakConfig())["pixel"] > 0


def test_losses_of_half_precision_inputs_are_computed_in_float32() -> None:
    frames = torch.full((1, 3, 64, 64), 300.0, dtype=torch.float16)  # its square is beyond float16
    distance = losses.image_distance(frames, torch.zeros_like(frames))
    assert distance.dtype == torch.float32
    assert_close(distance, torch.tensor([300.0]))


def test_reading_weighs_what_a_generated_frame_says_against_what_the_true_one_says() -> None:
    def reading(landmark: float, angle: float, opening: float, logits: list[float], identity: list[float]) -> Reading:
        return Reading(torch.full((1, 68, 2), landmark, dtype=torch.float64), tensor([angle] * 6), tensor(opening),
                       tensor(logits), tensor(identity))  # fmt: skip

    weights = {"landmarks": 1.0, "pose": 10.0, "mouth_opening": 100.0, "emotion": 1000.0, "likeness": 10000.0}
    generated = reading(3.0, 12.0, 0.5, [0.0, 0.0], [0.6, 0.8])
    true = reading(1.0, 6.0, 0.25, [math.log(3), 0.0], [1.0, 0.0])
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    expected = 2 * 20 / 40 + 10 * (12 - 6) / 30 + 100 * 0.25 + 1000 * divergence + 10000 * 0.4
    found = losses.reading_loss(generated, true, 40, tensor(*[30.0] * 6), weights)
    assert_close(found, number(expected))
    assert_close(losses.reading_loss(true, true, 40, tensor(*[30.0] * 6), weights), number(0.0))


def test_matching_is_the_cross_entropy_of_finding_each_other_and_asks_nothing_of_what_does_not_match() -> None:
    rng = np.random.default_rng(5)
    video, audio = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in rng.standard_normal((2, 4, 3)))
    likeness = np.exp(-((video[:, None] - audio[None]) ** 2).sum(2) / (2 * 0.2))
    rows = -np.log(np.diag(likeness) / likeness.sum(1)) - np.log(np.diag(likeness) / likeness.sum(0))
    found = losses.matching_loss(torch.from_numpy(video), torch.from_numpy(audio), tensor(1.0, 0.0, 1.0, 1.0), 0.2)
    assert_close(found, number(rows[[0, 2, 3]].mean() / 2))
    nothing = losses.matching_loss(torch.from_numpy(video), torch.from_numpy(audio), torch.zeros(4), 0.2)
    assert_close(nothing, number(0.0))
