"""The photo bent to what the generator shows."""

import dataclasses
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from speak import checkpoint
from speak.config import PhotoWarpConfig, preset, to_dict, with_changes
from speak.datasets.rendered import RenderedData, fresh
from speak.models.photo_warp import REACH, PhotoWarp, Portrait, likeness, warp
from speak.models.speak import Speak
from speak.shipped import load_speak
from speak.synthetic.augment import recoloured, reshaped
from tests.tolerances import assert_close

SMALL = PhotoWarpConfig(width=6, image_size=32, poses=4)
POSE_DIM = 5


def faces(count: int, size: int, seed: int = 0) -> Tensor:
    """Smooth coloured blobs, [count, 3, size, size] in [-1, 1]."""
    noise = torch.randn(count, 3, size // 8, size // 8, generator=torch.Generator().manual_seed(seed))
    return torch.tanh(F.interpolate(noise, size=[size] * 2, mode="bicubic", align_corners=False))


def poses(count: int, seed: int = 0) -> Tensor:  # f_P [count, POSE_DIM]
    return torch.randn(count, POSE_DIM, generator=torch.Generator().manual_seed(seed))


def decided(share: float, more: float = 1e-7) -> PhotoWarp:
    """One that moves nothing, and takes this share of the photo, and this of G_g's own difference, everywhere."""
    torch.manual_seed(0)
    net = PhotoWarp(SMALL, POSE_DIM)
    with torch.no_grad():
        for layer in (*net.move, net.last):
            layer.weight.zero_()
            layer.bias.zero_()
        net.last.bias[4:6] = torch.tensor([share, more]).logit()
    return net


def test_a_flow_of_whole_pixels_shows_the_pixels_there() -> None:
    pictures = torch.randn(2, 3, 8, 10)
    flow = torch.zeros(2, 2, 8, 10)
    assert_close(warp(pictures, flow), pictures)
    flow[:, 0], flow[:, 1] = 2 * 3 / 10, -2 * 2 / 8  # three to the right, two up
    assert_close(warp(pictures, flow)[:, :, 2:, :-3], pictures[:, :, :-2, 3:])
    assert_close(warp(pictures, flow)[:, :, 0, 0], pictures[:, :, 0, 3])  # beyond the edge: the edge


def test_features_are_compared_with_those_at_every_place_around() -> None:
    here, there = torch.randn(2, 5, 6, 7), torch.randn(2, 5, 6, 7)
    found = likeness(here, there)
    assert found.shape == (2, (2 * REACH + 1) ** 2, 6, 7)
    for y, x, dy, dx in ((2, 3, -2, 1), (3, 2, 0, 0), (4, 4, 1, 2), (0, 0, -1, 0)):
        row, column = y + dy, x + dx
        inside = 0 <= row < 6 and 0 <= column < 7
        expected = (here[:, :, y, x] * there[:, :, row, column]).mean(1) if inside else torch.zeros(2)
        assert_close(found[:, (dy + REACH) * (2 * REACH + 1) + dx + REACH, y, x], expected)


@torch.no_grad()
def test_new_weights_leave_the_generators_picture_nearly_as_it_is() -> None:
    torch.manual_seed(0)
    pictures, photos = faces(2, 32), faces(2, 32, seed=1)
    frames = PhotoWarp(SMALL, POSE_DIM)(pictures, poses(2), Portrait(photos, faces(2, 32, seed=2), poses(2, 1)))
    assert (frames - pictures).abs().mean() < 0.3 * (photos - pictures).abs().mean()


@torch.no_grad()
def test_a_large_photo_keeps_its_detail_and_a_small_picture_is_enlarged() -> None:
    pictures, photos = faces(2, 32), torch.rand(2, 3, 128, 128) * 2 - 1
    portrait = Portrait(photos, faces(2, 32, seed=3), poses(2))
    torch.testing.assert_close(decided(1 - 1e-7)(pictures, poses(2), portrait), photos, rtol=1e-4, atol=1e-4)
    enlarged = F.interpolate(pictures, scale_factor=4, mode="bicubic", align_corners=False)
    torch.testing.assert_close(decided(1e-7)(pictures, poses(2), portrait), enlarged, rtol=1e-4, atol=1e-4)
    large = Portrait(photos, faces(2, 128, seed=3), poses(2))  # larger than what the net looks at
    half = decided(0.5)(faces(2, 128), poses(2), large)
    torch.testing.assert_close(half, (faces(2, 128) + photos) / 2, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_what_differs_between_the_generators_pictures_can_be_added_to_the_photo() -> None:
    pictures, portrait = faces(2, 32), Portrait(faces(2, 32, seed=1), faces(2, 32, seed=2), poses(2))
    frames = decided(1 - 1e-7, 1 - 1e-7)(pictures, poses(2), portrait)
    torch.testing.assert_close(frames, portrait.photos + pictures - portrait.rebuilt, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_every_frame_is_bent_from_its_own_clips_photo() -> None:
    torch.manual_seed(1)
    net, pictures, photos, rebuilt = PhotoWarp(SMALL, POSE_DIM), faces(6, 32), faces(2, 64, 1), faces(2, 32, 2)
    pose, photos_pose = poses(6), poses(2, 1)
    together = net(pictures, pose, Portrait(photos, rebuilt, photos_pose))
    apart = torch.cat([
        net(pictures[:3], pose[:3], Portrait(photos[:1], rebuilt[:1], photos_pose[:1])),
        net(pictures[3:], pose[3:], Portrait(photos[1:], rebuilt[1:], photos_pose[1:])),
    ])
    assert_close(together, apart)


def test_it_learns_where_the_photo_is_seen() -> None:
    """Photos are the pictures moved, in other colours: only bending them gives the truth."""
    torch.manual_seed(0)
    net = PhotoWarp(SMALL, POSE_DIM)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)

    def sample(seed: int) -> tuple[Tensor, Portrait, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        pictures = faces(8, 32, seed)
        move = ((torch.rand(8, 2, 1, 1, generator=generator) - 0.5) * 0.4).expand(-1, -1, 32, 32)
        truth = pictures.flip(1)
        return pictures, Portrait(warp(truth, -move), warp(pictures, -move), poses(8)), truth

    def error(seed: int) -> Tensor:
        pictures, portrait, truth = sample(seed)
        return (net(pictures, poses(8), portrait) - truth)[:, :, 4:-4, 4:-4].abs().mean()

    with torch.no_grad():
        before = error(1000)
    for step in range(150):
        optimizer.zero_grad()
        error(step).backward()
        optimizer.step()
    with torch.no_grad():
        pictures, portrait, truth = sample(1000)
        unmoved = (portrait.photos - truth)[:, :, 4:-4, 4:-4].abs().mean()
        assert error(1000) < 0.5 * before and error(1000) < 0.6 * unmoved


def test_it_learns_how_the_head_turned_from_the_poses_alone() -> None:
    """The generator's pictures show nothing; what the photo has to do, shift and turn in the plane, stands in f_P."""
    torch.manual_seed(0)

    def error(net: PhotoWarp, seed: int) -> Tensor:
        turn = torch.randn(8, 3, generator=torch.Generator().manual_seed(seed))
        still = torch.eye(2, 3)[None]
        moved = torch.stack([still[0].clone() for _ in range(8)])
        moved[:, 0, 2], moved[:, 0, 1], moved[:, 1, 0] = 0.1 * turn[:, 0], 0.15 * turn[:, 1], -0.15 * turn[:, 1]
        grid = [F.affine_grid(way.expand(8, -1, -1), [8, 1, 32, 32], align_corners=False) for way in (moved, still)]
        photos, nothing = faces(8, 32, seed), torch.zeros(8, 3, 32, 32)
        truth = warp(photos, (grid[0] - grid[1]).permute(0, 3, 1, 2))
        pose = torch.cat([turn, torch.zeros(8, POSE_DIM - 3)], 1)
        frames = net(nothing, pose, Portrait(photos, nothing, torch.zeros(8, POSE_DIM)))
        return (frames - truth)[:, :, 4:-4, 4:-4].abs().mean()

    errors = []
    for config in (SMALL, dataclasses.replace(SMALL, poses=0)):
        net = PhotoWarp(config, POSE_DIM)
        optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
        for step in range(200):
            optimizer.zero_grad()
            error(net, step).backward()
            optimizer.step()
        with torch.no_grad():
            errors.append(float(torch.stack([error(net, 1000 + seed) for seed in range(4)]).mean()))
    assert errors[0] < 0.6 * errors[1]


@torch.no_grad()
def test_with_the_shipped_weights_a_photo_in_its_own_pose_and_feeling_comes_out_as_it_is() -> None:
    """Also a stranger's, whom G_g makes nothing like: its two pictures are alike, so little is to be moved."""
    model, config, _ = load_speak(None)
    scenes = RenderedData("speak", 5, "test", 64, fresh(config.rendered, frames=1)).batch(range(6))
    person, number = scenes.identity_frame, scenes.number
    portrait = model.portrait(model.read_identity(person), person)
    rebuilt = portrait.rebuilt
    for photos in (person, reshaped(recoloured(person, number), number)):
        kept = model.photo_warp(rebuilt, portrait.pose, dataclasses.replace(portrait, photos=photos))
        assert (kept - photos).abs().mean() < 0.5 * (rebuilt - photos).abs().mean()


@torch.no_grad()
def test_a_model_without_it_makes_the_generators_frames() -> None:
    plain = Speak(with_changes(preset("tiny"), {"model.photo_warp.width": 0})).eval()
    assert plain.photo_warp is None and not any("photo_warp" in key for key in plain.state_dict())
    whole = Speak(preset("tiny")).eval()
    photo, identity = torch.rand(1, 3, 64, 64), torch.rand(1, preset("tiny").model.identity.code_dim)
    assert plain.portrait(identity, photo) is None
    portrait = whole.portrait(identity, photo, torch.rand(1, 3, 256, 256))
    assert portrait.rebuilt.shape == photo.shape
    pose, emotion = whole.encode_pose(photo)[:, None], whole.encode_emotion(photo)[:, None]
    codes, noise = (identity, pose, emotion, whole.encode_silence()[None, None]), whole.draw_noise([0])
    assert_close(portrait.rebuilt, whole.generate(*codes, noise)[:, 0])
    assert torch.equal(plain.generate(*codes, noise, portrait), plain.generate(*codes, noise))
    assert whole.generate(*codes, noise, portrait).shape == (1, 1, 3, 256, 256)


def test_weights_from_before_there_were_such_parts_still_load(tmp_path: Path) -> None:
    without = {"model.photo_warp.width": 0, "model.photo_warp.poses": 0, "model.editing.repeat_input": False}
    config = with_changes(preset("tiny"), without)
    values = to_dict(config)
    del values["model"]["photo_warp"], values["model"]["editing"]["repeat_input"]
    checkpoint.save(tmp_path / "old.pt", {"stage": "speak", "config": values, "step": 0,
                                          "models": {"speak": Speak(config).state_dict()}})  # fmt: skip
    model, found, _ = load_speak(tmp_path / "old.pt")
    assert model.photo_warp is None and found == config


def test_half_precision_is_nearly_the_same() -> None:
    torch.manual_seed(0)
    net, pictures = PhotoWarp(SMALL, POSE_DIM), faces(4, 32)
    pose, portrait = poses(4), Portrait(faces(4, 64, seed=1), faces(4, 32, seed=2), poses(4, 1))
    with torch.no_grad():
        expected = net(pictures, pose, portrait)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            frames = net(pictures.to(torch.bfloat16), pose, portrait)
    assert frames.dtype == torch.float32
    assert 0 < (frames - expected).abs().mean() < 0.02
