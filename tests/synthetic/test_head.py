"""The rendered head: what is true of it holds in the pixels, not only in the numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_fill_holes, convolve
from torch import Tensor

from speak.config import EMOTIONS
from speak.synthetic.detail import FULL
from speak.synthetic.expression import LEVEL_STRENGTH
from speak.synthetic.head import render, rotation
from speak.synthetic.identity import HAIR_STYLES, HANGING_STYLES, IDENTITY_NAMES, choice, column
from speak.synthetic.motion import emotion_weights
from speak.synthetic.scene import Scene
from tests.synthetic.heads import people, polygon, show, straight, with_traits

EYES = (slice(36, 42), slice(42, 48))


BOTH = pytest.mark.parametrize("lifelike", [0.0, 1.0], ids=["figurines", "adults"])


def repeated(identity: Tensor, scene: Scene, who: int, count: int) -> tuple[Tensor, Scene]:
    index = torch.full((count,), who)
    return identity[index], scene[index]


def test_the_same_numbers_give_the_same_bytes() -> None:
    identity, scene = people(3)
    first, second = show(identity, scene, size=64), show(identity, scene, size=64)
    for name in ("frames", "landmarks", "mouth_opening", "visible"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name


@BOTH
def test_a_picture_does_not_depend_on_its_neighbours_in_the_batch(lifelike: float) -> None:
    identity, scene = people(10, lifelike=lifelike)
    together = show(identity, scene, size=64)
    alone = show(identity[7:8], scene[7:8], size=64)
    other = ((together.frames[7] - alone.frames[0]).abs() * 127.5).amax(0)
    assert (other > 1).sum() <= 2  # exp and sin may differ in the last bit, which may move an edge pixel
    assert (together.landmarks[7] - alone.landmarks[0]).abs().max() < 1e-3


@BOTH
def test_there_is_no_hole_or_crack_in_a_head_at_any_turn(lifelike: float) -> None:
    identity, scene = people(len(HAIR_STYLES), seed=3, lifelike=lifelike)
    identity = with_traits(identity, glasses=0.0)
    identity[:, IDENTITY_NAMES.index("hair_style")] = (torch.arange(len(HAIR_STYLES)) + 0.5) / len(HAIR_STYLES)
    for yaw, pitch in ((-40, 0), (40, 0), (0, -40), (0, 40), (30, -25), (-30, 25)):
        pose = straight(len(HAIR_STYLES)) + torch.tensor([yaw, pitch, 0, 0, 0, 0.0])
        rendered = show(identity, scene, pose)
        for who, covered in enumerate(rendered.visible.numpy()):
            if HAIR_STYLES[who] not in (*HANGING_STYLES, "tied_back"):  # beside a neck the background shows rightly
                assert not (binary_fill_holes(covered > 0) & (covered == 0)).any(), (yaw, pitch, who)
            around = convolve(covered, np.ones((5, 5)) - np.eye(5)[[2]].T @ np.eye(5)[[2]], mode="constant")
            assert not ((around > 23.9) & (covered < 1)).any(), (yaw, pitch, who)


@BOTH
def test_small_turns_make_small_changes_without_popping(lifelike: float) -> None:
    identity, scene = people(6, seed=5, lifelike=lifelike)
    for who in range(0, 6, 2):
        one, light = repeated(identity, scene, who, 12)
        for axis in (0, 1):
            pose = straight(12)
            pose[:, axis] = torch.linspace(28, 33.5, 12) * (1 if who else -1)
            frames = show(one, light, pose, size=128).frames
            change = (frames[1:] - frames[:-1]).abs().mean((1, 2, 3))
            assert change.max() < 1.8 * change.median(), change
            blurred = torch.nn.functional.avg_pool2d(frames, 8)
            assert (blurred[1:] - blurred[:-1]).abs().max() < 0.35


@BOTH
def test_gaze_changes_only_what_lies_between_the_lids(lifelike: float) -> None:
    identity, scene = people(6, seed=1, lifelike=lifelike)
    identity = with_traits(identity, glasses=0.0)
    pose = straight(6) + torch.tensor([20, -8, 5, 0, 0, 0.1])
    left = torch.tensor([0, 0, -0.8, 0.0]).repeat(6, 1)
    before, after = show(identity, scene, pose, eyes=left, size=256), show(identity, scene, pose, eyes=-left, size=256)
    moved = ((before.frames - after.frames).abs().amax(1) > 0.08).numpy()
    for picture, marks in zip(moved, before.landmarks, strict=True):
        eyes = polygon(marks[EYES[0]], 256, 3.0) | polygon(marks[EYES[1]], 256, 3.0)  # six points cut a curve
        assert picture.sum() > 60
        assert (picture & ~eyes).sum() == 0


@BOTH
def test_a_blink_covers_the_eyes(lifelike: float) -> None:
    identity, scene = people(4, seed=2, lifelike=lifelike)
    identity = with_traits(identity, glasses=0.0, hair_style=0.0, makeup=0.0, skin_tone=0.5,
                           eye_colour=1.0)  # fmt: skip
    shut = torch.tensor([1, 1, 0, 0.0]).repeat(4, 1)

    def uncovered(frame: Tensor) -> Tensor:  # a figurine's white; an adult's blue iris, the white being shaded
        return frame[2] > frame[0] + 0.2 if lifelike else frame.amin(0) > 0.35

    opened, closed = show(identity, scene, size=256), show(identity, scene, eyes=shut, size=256)
    for index in range(4):
        eye = polygon(opened.landmarks[index, EYES[0]], 256, 0.0)
        seen, hidden = ((uncovered(shown.frames[index]).numpy() & eye).sum() for shown in (opened, closed))
        assert seen > 0.1 * eye.sum() and hidden <= 2
        gap = closed.landmarks[index, [41, 40], 1] - closed.landmarks[index, [37, 38], 1]
        assert gap.abs().max() < 0.6


@BOTH
def test_mouth_landmarks_enclose_the_painted_lips(lifelike: float) -> None:
    identity, scene = people(4, seed=4, lifelike=lifelike)
    identity = with_traits(identity, makeup=1.0, lip_colour=0.0, beard=0.0, moustache=0.0, skin_tone=0.15, blush=0.0)
    scene.light[:] = torch.tensor([0.1, 0.4, 0.9, 1, 1, 1])
    mouth = torch.tensor([[0, 0, 0, 0, 0, 0], [0.6, 0.3, 0, 0, 0, 0], [0.3, 0, 0.9, 0, 0, 0], [0.1, 0.8, 0, 0, 0, 0]])
    rendered = show(identity, scene, mouth=mouth, size=256)
    for frame, marks in zip((rendered.frames + 1) / 2, rendered.landmarks, strict=True):
        red = (frame[0] > 1.75 * frame[1]).numpy()
        red[: int(marks[33, 1]) + 1] = False
        lips = polygon(marks[48:60], 256, 2.0)
        inner = polygon(marks[60:68], 256, 0.0)
        face = polygon(marks[[2, 5, 8, 11, 14, 33]], 256, 0.0)
        assert (red & face & ~lips).sum() < 0.06 * (red & lips).sum()
        ring = polygon(marks[48:60], 256, 0.0) & ~inner
        assert (red & ring).sum() > 0.6 * ring.sum()


@BOTH
def test_teeth_show_only_inside_the_lips(lifelike: float) -> None:
    identity, scene = people(6, seed=6, lifelike=lifelike)
    identity = with_traits(identity, skin_tone=0.95, beard=0.0, moustache=0.0, glasses=0.0, hair_grey=0.0, makeup=0.0,
                           hair_style=0.0, clothing_hue=0.05, clothing_tone=0.3, age=0.2)  # fmt: skip
    scene.background[:, :6] = torch.tensor([0.1, 0.1, 0.3, 0.1, 0.1, 0.3])
    mouth = torch.tensor([[0.9, 0.2, 0, 0, 0, 0], [0.3, 0.9, 0, 0, 0, 0], [0.1, 0.1, 0, 0, 1, 0]]).repeat(2, 1)
    weights = torch.eye(8)[[4, 3, 5, 0, 2, 7]]
    pose = straight(6) + torch.tensor([[0, 0], [25, 0], [-25, 5], [38, 0], [-38, 0], [10.0, -20]]) @ torch.eye(2, 6)
    rendered = show(identity, scene, pose, weights, mouth, size=256)
    found = 0
    for frame, marks in zip((rendered.frames + 1) / 2, rendered.landmarks, strict=True):
        lips = polygon(marks[48:60], 256, 1.5)
        around = polygon(marks[[3, 5, 8, 11, 13, 33]], 256, 0.0) & ~polygon(marks[31:36], 256, 4.0)
        bright = 0.50 if lifelike else 0.55  # adults' teeth lie in the shade of their lips
        tooth = ((frame[2] > bright) & (frame.amax(0) - frame.amin(0) < 0.25)).numpy()
        found += (tooth & lips).sum()
        assert (tooth & around & ~lips).sum() <= 3
    assert found > (100 if lifelike else 200)  # adults' mouths are smaller and show less


@BOTH
def test_between_shut_lips_is_a_dark_line_and_no_tooth(lifelike: float) -> None:
    identity, scene = people(8, seed=6, lifelike=lifelike)
    identity = with_traits(identity, skin_tone=0.9, beard=0.0, moustache=0.0, makeup=0.0)
    weights = torch.eye(8)
    shut = torch.tensor([0, 0, 0, 1.0, 0, 0]).repeat(8, 1)
    rendered = show(identity, scene, weights=weights, mouth=shut, size=256)
    for frame, marks in zip((rendered.frames + 1) / 2, rendered.landmarks, strict=True):
        line = polygon(marks[60:68], 256, 1.5)
        lips = polygon(marks[48:60], 256, 0.0) & ~line
        light, colourless = frame.mean(0).numpy(), (frame.amin(0) / frame.amax(0)).numpy()
        darkest = [light[line[:, x], x].min() for x in range(256) if line[:, x].any()]
        assert np.median(darkest) < 0.75 * light[lips].mean()
        assert colourless[line].max() < 0.9  # a tooth's colour


def test_positive_angles_turn_right_down_and_anticlockwise() -> None:
    identity, scene = people(1)
    level = show(identity, scene).landmarks[0]
    for axis in range(3):
        pose = straight(1)
        pose[0, axis] = 20
        turned = show(identity, scene, pose).landmarks[0]
        nose = turned[30] - turned[[36, 45]].mean(0) - (level[30] - level[[36, 45]].mean(0))
        if axis == 0:
            assert nose[0] > 4
        elif axis == 1:
            assert nose[1] > 2
        else:
            assert turned[45, 1] < level[45, 1] < turned[36, 1] + 20 and turned[45, 1] < turned[36, 1]


def test_a_rotation_is_roll_after_yaw_after_pitch() -> None:
    scipy_rotation = pytest.importorskip("scipy.spatial.transform").Rotation
    angles = torch.tensor([[25.0, -15.0, 10.0], [-38.0, 20.0, -5.0]])
    expected = scipy_rotation.from_euler("ZYX", angles[:, [2, 0, 1]].numpy(), degrees=True).as_matrix()
    assert np.abs(rotation(*angles.unbind(1)).numpy() - expected).max() < 1e-6


def test_near_features_move_more_than_far_ones_when_the_head_turns() -> None:
    identity, scene = people(4)
    pose = straight(4)
    pose[:, 0] = 15
    shift = (show(identity, scene, pose, size=64).landmarks - show(identity, scene, size=64).landmarks)[..., 0]
    assert (shift[:, 30] > shift[:, 27] + 1).all() and (shift[:, 27] > shift[:, 0].clamp(min=0) + 1).all()


def test_x_and_y_move_the_picture_by_image_widths() -> None:
    identity, scene = people(2)
    moved = straight(2) + torch.tensor([0, 0, 0, 8 / 64, -4 / 64, 0])
    first, second = show(identity, scene, size=64), show(identity, scene, moved, size=64)
    assert torch.allclose(second.landmarks, first.landmarks + torch.tensor([8.0, -4.0]), atol=1e-3)
    assert (second.visible[:, 6:50, 18:60] - first.visible[:, 10:54, 10:52]).abs().mean() < 2e-3


def test_scale_multiplies_the_face() -> None:
    identity, scene = people(2)
    def width(scale: float) -> Tensor:
        pose = straight(2)
        pose[:, 5] = scale
        marks = show(identity, scene, pose, size=64).landmarks
        return marks[:, 16, 0] - marks[:, 0, 0]
    assert torch.allclose(width(1.3) / width(1.0), torch.full((2,), 1.3), atol=1e-3)


@BOTH
def test_mouth_opening_follows_the_mouth_and_the_landmarks(lifelike: float) -> None:
    identity, scene = people(1, lifelike=lifelike)
    opened = torch.zeros(9, 6)
    opened[:, 0] = torch.linspace(0, 1, 9)
    rendered = show(*repeated(identity, scene, 0, 9), mouth=opened, size=64)
    gap = rendered.landmarks[:, 66, 1] - rendered.landmarks[:, 62, 1]
    assert (rendered.mouth_opening[1:] > rendered.mouth_opening[:-1]).all()
    assert rendered.mouth_opening[0] < 0.03 and 0.6 < rendered.mouth_opening[-1] < 1.2
    assert np.corrcoef(gap, rendered.mouth_opening)[0, 1] > 0.998
    shut = torch.tensor([[1.0, 0, 0, 1, 0, 0]])
    assert show(identity, scene, mouth=shut, size=64).mouth_opening[0] < 0.03


@BOTH
def test_a_stronger_level_changes_the_face_more(lifelike: float) -> None:
    identity, scene = people(1, seed=8, lifelike=lifelike)
    for emotion in EMOTIONS:
        strength = torch.tensor([0.0, *LEVEL_STRENGTH])
        frames = show(*repeated(identity, scene, 0, 4), weights=emotion_weights(emotion, strength)).frames
        change = (frames[1:] - frames[0]).abs().mean((1, 2, 3))
        if emotion == "neutral":
            assert change.max() == 0
        else:
            assert change[0] > 1e-3 and (change[1:] > 1.1 * change[:-1]).all(), emotion


@BOTH
def test_every_emotion_moves_brows_eyes_or_mouth_in_its_own_way(lifelike: float) -> None:
    identity, scene = people(1, seed=8, lifelike=lifelike)
    marks = show(*repeated(identity, scene, 0, 8), weights=torch.eye(8), size=256).landmarks
    rest = marks[EMOTIONS.index("neutral")]
    moved = {name: marks[index] - rest for index, name in enumerate(EMOTIONS)}
    assert moved["happy"][[48, 54], 1].max() < -1  # corners up
    assert moved["sad"][[48, 54], 1].min() > 1  # corners down
    assert moved["sad"][[21, 22], 1].max() < -3 and moved["sad"][[17, 26], 1].min() > 1  # brows slant
    assert moved["angry"][[21, 22], 1].min() > 3  # brows down inside
    assert moved["surprised"][19:25, 1].max() < -3 and moved["surprised"][57, 1] > 5  # brows up, jaw down
    assert moved["fear"][48, 0] < -1 and moved["fear"][[37, 44], 1].max() < -1  # mouth stretched, eyes wide
    assert abs(moved["contempt"][54, 1] - moved["contempt"][48, 1]) > 1.5  # one corner only
    assert moved["disgusted"][51, 1] < -1 and moved["disgusted"][[41, 46], 1].max() < -0.5  # upper lip up, lids tight


@pytest.mark.parametrize("size", [64, 96, 128])
def test_the_coarser_mesh_of_small_pictures_shows_the_same_as_the_full_one(size: int, monkeypatch) -> None:
    identity, scene = people(16, seed=9)
    generator = torch.Generator().manual_seed(4)
    pose = straight(16) + torch.randn(16, 6, generator=generator) * torch.tensor([18, 9, 6, 0.03, 0.03, 0.05])
    mouth, weights = torch.rand(16, 6, generator=generator) ** 3, torch.eye(8).repeat(2, 1)
    small = show(identity, scene, pose, weights, mouth, size=size)
    monkeypatch.setattr("speak.synthetic.head.detail_of", lambda size: FULL)
    full = show(identity, scene, pose, weights, mouth, size=size)
    away = (small.landmarks - full.landmarks).norm(dim=2)
    assert away.mean() < 0.1 and away.max() < 1  # pixels of this size
    assert (small.mouth_opening - full.mouth_opening).abs().max() < 1e-6
    assert (small.frames - full.frames).abs().mean() < 0.03 and (small.visible - full.visible).abs().mean() < 0.005


@pytest.mark.parametrize("size", [64, 128])
def test_smaller_pictures_show_the_same(size: int) -> None:
    identity, scene = people(3, seed=9)
    small, large = show(identity, scene, size=size), show(identity, scene, size=256)
    factor = 256 // size
    away = ((small.landmarks + 0.5) - (large.landmarks + 0.5) / factor).norm(dim=2)
    assert away.mean() < 0.1 and away.max() < 0.6  # pixels of the small picture
    reduced = torch.nn.functional.avg_pool2d(large.frames, factor)
    assert (small.frames - reduced).abs().mean() < 0.03


def test_people_are_told_apart() -> None:
    identity, scene = people(120, seed=11)
    frames = show(identity, scene[torch.zeros(120, dtype=torch.long)], size=64).frames.flatten(1)
    distance = torch.cdist(frames, frames) / frames.shape[1] ** 0.5 + 9 * torch.eye(120)
    moved = straight(8) + torch.tensor([3.0, 0, 0, 0, 0, 0])
    turned = show(identity[:8], scene[:8], moved, size=64).frames - show(identity[:8], scene[:8], size=64).frames
    assert distance.min() > turned.square().mean((1, 2, 3)).sqrt().mean()  # a turn of 3 degrees changes less


def test_a_seed_draws_the_same_people_of_all_looks() -> None:
    identity, _ = people(600)
    assert torch.equal(identity[:5], people(600)[0][:5]) and identity.min() >= 0 and identity.max() <= 1
    assert set(choice(column(identity, "hair_style"), len(HAIR_STYLES)).tolist()) == set(range(len(HAIR_STYLES)))
    for name in ("skin_tone", "age", "eye_colour", "hair_colour", "nose_width", "jaw_width"):
        assert column(identity, name).std() > 0.12, name
    assert 0.1 < (column(identity, "glasses") > 0.74).float().mean() < 0.5
    assert 0.05 < (column(identity, "beard") > 0.72).float().mean() < 0.4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_renders_the_same_picture() -> None:
    identity, scene = people(4)
    here = show(identity, scene)
    pose, weights = straight(4).cuda(), emotion_weights("neutral", torch.ones(4)).cuda()
    still = torch.zeros(4, 6).cuda(), torch.zeros(4, 4).cuda()
    there = render(identity.cuda(), pose, weights, *still, scene.to("cuda"), 128)
    assert (there.frames.cpu() - here.frames).abs().mean() < 2e-3
    assert (there.landmarks.cpu() - here.landmarks).abs().max() < 0.05
