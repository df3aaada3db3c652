"""Motion of rendered people: smooth, bounded, the same from a seed."""

import pytest
import torch

from speak.config import EMOTIONS, FRAME_RATE
from speak.synthetic.motion import blinks, emotion_strength, emotion_weights, head_motion, natural_motion, saccades


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_a_head_moves_smoothly_within_its_range(emotion: str) -> None:
    pose = torch.cat([natural_motion(150, seeded(seed), emotion).pose.unsqueeze(0) for seed in range(12)])
    assert pose[..., 0].abs().max() <= 40 and pose[..., 1].abs().max() <= 30 and pose[..., 2].abs().max() <= 20
    assert pose[..., 5].min() >= 0.8 and pose[..., 5].max() <= 1.2
    speed = (pose[:, 1:] - pose[:, :-1]).abs()
    assert speed[..., :3].max() < 3.5  # degrees a frame: a quick turn is about 100 degrees a second
    jerk = (pose[:, 2:] - 2 * pose[:, 1:-1] + pose[:, :-2]).abs()
    assert jerk[..., :3].max() < 0.8
    assert pose[..., 0].std(1).mean() > 1.5  # and it does move


def test_a_seed_is_a_motion() -> None:
    first, second = natural_motion(60, seeded(3), "happy"), natural_motion(60, seeded(3), "happy")
    other = natural_motion(60, seeded(4), "happy")
    assert torch.equal(first.pose, second.pose) and torch.equal(first.eyes, second.eyes)
    assert not torch.equal(first.pose, other.pose)


def test_blinks_shut_the_eye_briefly_and_come_every_few_seconds() -> None:
    shut = blinks(FRAME_RATE * 600, seeded())
    assert shut.min() >= 0 and shut.max() <= 1
    closed = (shut > 0.5).int()
    count = ((closed[1:] - closed[:-1]) == 1).sum().item()
    assert 10 < count / 10 < 30  # a minute; at rest people blink 15 to 20 times
    assert 2 < closed.sum().item() / count < 8  # frames more than half shut: about a sixth of a second
    assert (shut == 0).float().mean() > 0.75


def test_gaze_rests_between_quick_jumps() -> None:
    gaze = saccades(FRAME_RATE * 60, seeded())
    speed = (gaze[1:] - gaze[:-1]).norm(dim=1)
    assert (speed < 1e-4).float().mean() > 0.6
    assert gaze.abs().max() <= 1 and gaze.std() > 0.1


def test_a_passing_emotion_starts_and_ends_at_rest_and_reaches_its_level() -> None:
    for seed in range(8):
        strength = emotion_strength(120, seeded(seed), 0.72, held=False)
        assert strength[0] == 0 and strength[-1] < 0.05
        assert 0.6 < strength.max() <= 0.72
        assert (strength[1:] - strength[:-1]).abs().max() < 0.2
    held = emotion_strength(120, seeded(), 0.72)
    assert held.min() > 0.55 and held.max() <= 0.72


def test_weights_are_the_emotion_and_the_rest_neutral() -> None:
    weights = emotion_weights("fear", torch.tensor([0.0, 0.3, 1.0]))
    assert torch.allclose(weights.sum(1), torch.ones(3))
    assert torch.allclose(weights[:, EMOTIONS.index("fear")], torch.tensor([0.0, 0.3, 1.0]))
    assert torch.allclose(emotion_weights("neutral", torch.tensor([0.4])).sum(), torch.tensor(1.0))


def test_sad_heads_hang_lower_than_surprised_ones() -> None:
    def pitch(emotion: str) -> float:
        return torch.stack([head_motion(90, seeded(seed), emotion)[:, 1] for seed in range(6)]).mean().item()

    assert pitch("sad") > pitch("neutral") + 4 and pitch("surprised") < pitch("neutral") - 2
