"""The glances that the perceptual net and E_e take at frames."""

import torch

from speak.train.jitter import LIGHT, NOISE, SHIFT, TURN, ZOOM, jittered, picture_seeds
from tests.tolerances import assert_close


def pictures(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_a_frame_and_its_truth_are_changed_alike() -> None:
    frames, seeds = pictures(4), torch.arange(4)
    made, true = jittered(frames, frames.clone(), seeds, 1.0)
    assert torch.equal(made, true)
    assert all((made[row] - frames[row]).abs().mean() > 0.05 for row in range(4))
    assert (made[0] - frames[0]).sub(made[1] - frames[1]).abs().mean() > 0.05  # each in its own way


def test_a_pictures_jitter_does_not_depend_on_how_the_batch_is_divided() -> None:
    made, true = pictures(6), pictures(6, 1)
    seeds = picture_seeds(torch.tensor([7, 11]), 3).flatten()
    assert len(set(seeds.tolist())) == 6
    whole = jittered(made, true, seeds, 1.0)
    halves = [jittered(made[part], true[part], seeds[part], 1.0) for part in (slice(0, 3), slice(3, 6))]
    for side in range(2):
        assert_close(torch.cat([half[side] for half in halves]), whole[side])


def test_faces_are_moved_enlarged_and_turned_a_little() -> None:
    """What becomes of a bright disc, and of pictures whose brightness is a pixel's place."""
    place = (torch.arange(65) - 32) / 65
    x, y = place.expand(65, 65), place[:, None].expand(65, 65)
    frames = torch.where(x**2 + y**2 < 0.2**2, 1.0, -1.0).expand(64, 3, 65, 65)
    moved = jittered(frames, frames, torch.arange(64), 1.0)[0].mean(1) + 1
    disc = (moved > 0.8).float()
    shift = torch.stack([(disc * x).sum((1, 2)), (disc * y).sum((1, 2))]) / disc.sum((1, 2))
    assert shift.abs().max() < SHIFT * (1 + ZOOM) + 1 / 65 and shift.std() > SHIFT / 4
    size = (disc.sum((1, 2)) / (frames[0, 0] > 0).sum()).sqrt()
    assert 1 / (1 + ZOOM) - 0.05 < size.min() < 0.95 and 1.05 < size.max() < 1 / (1 - ZOOM) + 0.05

    frames = x.expand(64, 3, 65, 65)
    moved = jittered(frames, frames, torch.arange(64), 1.0)[0].mean(1)[:, 16:49, 16:49]
    across, down = ((moved * side[16:49, 16:49]).sum((1, 2)) for side in (x, y))
    turn = torch.rad2deg(torch.atan2(down, across))
    assert TURN / 3 < turn.std() and turn.abs().max() < TURN + 1


def test_light_and_noise_differ_from_picture_to_picture() -> None:
    frames = torch.zeros(64, 3, 32, 32)
    lit = jittered(frames, frames, torch.arange(64), 1.0)[0]
    light, noise = lit.mean((2, 3)), lit.std((2, 3))
    assert LIGHT / 3 < light.std() and light.abs().max() < LIGHT + 0.01
    assert NOISE / 2 < noise.max() < 1.1 * NOISE and noise.min() < NOISE / 4


def test_half_precision_moves_no_face() -> None:
    frames, seeds = pictures(4), torch.arange(4)
    wanted = jittered(frames, frames, seeds, 1.0)[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(jittered(frames, frames, seeds, 1.0)[0], wanted)


def test_gradients_reach_the_generated_frames_and_strength_0_changes_nothing() -> None:
    made, true = pictures(2).requires_grad_(True), pictures(2, 1)
    jittered(made, true, torch.arange(2), 1.0)[0].square().mean().backward()
    assert made.grad is not None and (made.grad != 0).float().mean() > 0.5
    assert jittered(made, true, torch.arange(2), 0.0) == (made, true)
