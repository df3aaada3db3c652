"""Poses as numbers and emotions by name."""

import pytest
import torch

from speak.config import EMOTIONS
from speak.errors import SpeakError
from speak.models.pose_mapper import NEUTRAL, EmotionPrototypes, PoseMapper
from tests.tolerances import assert_close

HAPPY, SAD = EMOTIONS.index("happy"), EMOTIONS.index("sad")


def fitted() -> EmotionPrototypes:
    prototypes = EmotionPrototypes(code_dim=2, levels=2)
    codes = torch.tensor([[1.0, 1.0], [3.0, 1.0], [4.0, 1.0], [8.0, 1.0], [2.0, 5.0]])
    labels = torch.tensor([NEUTRAL, NEUTRAL, HAPPY, HAPPY, SAD])
    prototypes.fit(codes, labels, torch.tensor([0, -1, 0, 1, -1]))
    return prototypes


def test_prototypes_are_means_and_a_missing_level_lies_on_the_way_from_neutral() -> None:
    codes = fitted().codes
    assert codes[NEUTRAL].tolist() == [[2, 1], [2, 1]]
    assert codes[HAPPY].tolist() == [[4, 1], [8, 1]]
    assert codes[SAD].tolist() == [[2, 3], [2, 5]]  # only the strongest was seen


@pytest.mark.parametrize(
    ("strengths", "expected"),
    [
        ({}, [2, 1]),
        ({"happy": 0.0}, [2, 1]),
        ({"happy": 0.25}, [3, 1]),
        ({"happy": 0.5}, [4, 1]),
        ({"happy": 0.75}, [6, 1]),
        ({"happy": 1.0}, [8, 1]),
        ({"happy": 0.5, "sad": 0.5}, [4, 3]),
        ({"neutral": 1.0}, [2, 1]),
    ],
)
def test_an_emotion_grows_with_its_strength_and_mixes(strengths: dict[str, float], expected: list[float]) -> None:
    assert_close(fitted()(strengths), torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize(
    ("strengths", "message"),
    [
        ({"joy": 1.0}, "unknown emotion 'joy': choose from angry"),
        ({"fear": 1.0}, "never seen the emotion 'fear'"),
        ({"happy": 1.5}, "from 0 to 1"),
    ],
)
def test_what_is_not_known_is_refused_in_one_line(strengths: dict[str, float], message: str) -> None:
    with pytest.raises(SpeakError, match=message) as caught:
        fitted()(strengths)
    assert "\n" not in str(caught.value)


def test_weights_that_were_never_fitted_refuse_both_options_and_say_so_after_loading() -> None:
    prototypes, mapper = EmotionPrototypes(4, 3), PoseMapper(8, 16)
    with pytest.raises(SpeakError, match="cannot take an emotion by name"):
        prototypes({"happy": 1.0})
    with pytest.raises(SpeakError, match="cannot take a pose in numbers"):
        mapper.require_fitted()
    other = PoseMapper(8, 16)
    other.fitted.fill_(True)
    mapper.load_state_dict(other.state_dict())
    mapper.require_fitted()
    with pytest.raises(SpeakError, match="neutral"):
        prototypes.fit(torch.randn(2, 4), torch.tensor([HAPPY, -1]), torch.tensor([0, 0]))


def test_the_mapper_can_learn_a_code_of_the_pose() -> None:
    torch.manual_seed(0)
    mapper = PoseMapper(code_dim=3, width=32)
    pose = torch.randn(256, 6) * torch.tensor([30, 20, 20, 0.1, 0.1, 0.2]) + torch.tensor([0, 0, 0, 0, 0, 1.0])
    codes = torch.stack([pose[:, 0] / 30, pose[:, 1] / 20, torch.sin(pose[:, 2] / 20)], 1)
    optimizer = torch.optim.Adam(mapper.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        loss = (mapper(pose) - codes).square().mean()
        loss.backward()
        optimizer.step()
    assert loss < 0.02  # of a variance of about 0.8
    assert mapper(pose.view(4, 64, 6)).shape == (4, 64, 3)
    assert torch.equal(mapper(pose, torch.rand(256, 4)), mapper(pose))  # nobody has told what eyes do
